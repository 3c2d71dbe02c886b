"""Turns: what the formats of conversations share, from marks in texts to who speaks and what is learned.

What a row cannot hold, as a call of a tool, a video, or a weight of one half, is a Drop that says so.
"""

from collections.abc import Iterator

from unimodal.data.importers.importer import Drop, Picture, Record
from unimodal.data.rows import MARK

OTHER_MEDIA = ("video", "videos", "audio", "audios")
OTHER_MARKS = ("<video>", "<audio>")
# Keys by which a turn says whether it is learned: OpenAI's and axolotl's, then rows' own.
LEARNED = {"weight": "0 or 1", "train": "true or false", "trained": "true or false"}


def marked(text: str, waiting: Iterator, where: str) -> list[str | Picture]:
    """A text with `<image>` marks as parts; each mark takes the next of `waiting`."""
    parts: list[str | Picture] = []
    for i, run in enumerate(text.split(MARK)):
        if i:
            source = next(waiting, None)
            if source is None:
                raise _mismatch(where, "more <image> marks than pictures")
            parts.append(Picture(source))
        if run:
            parts.append(run)
    return parts


def all_taken(waiting: Iterator, where: str) -> None:
    """Raise Drop if a picture is left without a mark."""
    if next(waiting, None) is not None:
        raise _mismatch(where, "more pictures than <image> marks")


def _mismatch(where: str, what: str) -> Drop:
    return Drop(
        "marks and pictures differ in number",
        f"{where}: there are {what}; expected one for each. Add or remove some until they match.",
    )


def listed(record: Record, name: str) -> list:
    """The list of objects under `name`; raises Drop if it is something else."""
    turns = record.need(name)
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise Drop(
            f"{name!r} is no list of turns",
            f"{record.where}: {name!r} is {turns!r:.60}; expected a list of objects. Mend it.",
        )
    return turns


def role_of(speaker, known: dict[str, str], where: str) -> str:
    """The role that a speaker has in rows; raises Drop if it has none."""
    if not isinstance(speaker, str) or speaker not in known:
        raise Drop(
            f"a turn of {speaker!r}",
            f"{where}: a turn is by {speaker!r}; expected {', '.join(known)}. Rows hold no other turns.",
        )
    return known[speaker]


def either(turn: dict, first: str, second: str, where: str):
    """What a turn says under one of two names, or None; raises Drop if they say different things."""
    one, other = turn.get(first), turn.get(second)
    if one is not None and other is not None and one != other:
        raise Drop(
            f"a turn with {first!r} and {second!r}",
            f"{where}: a turn has {first!r} {one!r:.30} and {second!r} {other!r:.30}. Remove one.",
        )
    return other if one is None else one


def only(message: dict, known: frozenset, where: str, what: str = "message") -> None:
    """Raise Drop if a message says something that a row cannot hold, as a call of a tool."""
    for key, value in message.items():
        if key not in known and value not in (None, []):
            raise Drop(
                f"a {what} with {key!r}",
                f"{where}: a {what} has {key!r}; rows hold texts and pictures alone. Remove it.",
            )


def blank(content) -> bool:
    """Whether a content is absent, or a text or parts of text that say nothing."""
    parts = content if isinstance(content, list) else [content]
    texts = [p.get("text") if isinstance(p, dict) and p.get("type") == "text" else p for p in parts]
    return all(text is None or (isinstance(text, str) and not text.strip()) for text in texts)


def learned(turn: dict, role: str, where: str) -> bool | None:
    """False if a turn of the assistant says that it is not learned, else None.

    Raises Drop at a share of a weight, and where another's turn is to be learned: rows hold neither.
    """
    left_out = False
    for key, words in LEARNED.items():
        value = turn.get(key)
        if value not in (None, 0, 1):  # false and true are 0 and 1
            raise Drop(
                f"a turn whose {key!r} is not {words}",
                f"{where}: a turn has {key!r} {value!r:.30}; turns are learned or not. Say {words}.",
            )
        if key != "weight" and value and role != "assistant":  # a weight of 1 is what nothing else means
            raise Drop(
                f"a turn of the {role} with {key!r}",
                f"{where}: a turn of the {role} has {key!r}; the assistant's alone are learned. Remove it.",
            )
        left_out = left_out or (value is not None and not value)
    return False if left_out and role == "assistant" else None


def no_other_media(record: Record) -> None:
    """Raise Drop if a record has videos or sounds beside its texts."""
    for name in OTHER_MEDIA:
        if record.values.get(name) not in (None, "", []):
            raise Drop(
                f"a record with {name!r}",
                f"{record.where}: it has {name!r}; rows hold texts and pictures alone. Remove the record.",
            )


def no_other_marks(text: str, where: str) -> None:
    """Raise Drop if a text marks the place of a video or a sound."""
    for mark in OTHER_MARKS:
        if mark in text:
            raise Drop(
                f"a mark {mark}", f"{where}: a text has {mark}; rows hold pictures alone. Remove the record."
            )
