"""Conversations: LLaVA and ShareGPT, OpenAI's parts, and the toolkit's own rows.

LLaVA and ShareGPT: `conversations` of `from` and `value`, pictures under `image` where `<image>` stands.
OpenAI: `messages` whose content is a text or a list of `text` and `image_url` parts (no marks in texts).
"""

from collections.abc import Iterator
from urllib.parse import urlsplit
from urllib.request import DataHandler, Request, url2pathname

from unimodal.data.importers.importer import Drop, Importer, Look, Picture, Record, make_row, read_table
from unimodal.data.rows import MARK, MESSAGE_KEYS, ROLES

SPEAKERS = {
    **{name: "user" for name in ("human", "user")},
    **{name: "assistant" for name in ("gpt", "assistant", "chatgpt", "bing", "bard")},
    "system": "system",
}
OPENAI_ROLES = {role: role for role in ROLES} | {"developer": "system"}
OPENAI_KEYS = frozenset(("role", "content", "weight", "name"))


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


def llava_rows(record: Record) -> Iterator[dict]:
    """One row of the whole conversation."""
    waiting = iter(record.pictures("image", "images") or ())
    turns: list[tuple] = []
    if "system" in record:
        turns.append(("system", marked(record.text("system"), waiting, record.where)))
    for turn in listed(record, "conversations"):
        speaker = turn.get("from", turn.get("role"))
        text = record.spoken(turn.get("value", turn.get("content")), "value")
        turns.append((role_of(speaker, SPEAKERS, record.where), marked(text, waiting, record.where)))
    all_taken(waiting, record.where)
    yield make_row(*turns)


def role_of(speaker, known: dict[str, str], where: str) -> str:
    """The role that a speaker has in rows; raises Drop if it has none."""
    if not isinstance(speaker, str) or speaker not in known:
        raise Drop(
            f"a turn of {speaker!r}",
            f"{where}: a turn is by {speaker!r}; expected {', '.join(known)}. Rows hold no other turns.",
        )
    return known[speaker]


def openai_rows(record: Record) -> Iterator[dict]:
    """One row of the whole conversation; `weight` 0 is "not trained"."""
    turns: list[tuple] = []
    for message in listed(record, "messages"):
        _only(message, OPENAI_KEYS, record.where)
        role = role_of(message.get("role"), OPENAI_ROLES, record.where)
        content = message.get("content")
        parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
        trained = False if role == "assistant" and message.get("weight") == 0 else None
        turns.append((role, [_part(part, record) for part in parts], trained))
    yield make_row(*turns)


def _only(message: dict, known: frozenset, where: str) -> None:
    """Raise Drop if a message says something that a row cannot hold, as a call of a tool."""
    for key, value in message.items():
        if key not in known and value not in (None, []):
            raise Drop(
                f"a message with {key!r}",
                f"{where}: a message has {key!r}; rows hold texts and pictures alone. Remove it.",
            )


def _part(part, record: Record) -> str | Picture:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text":
        return record.spoken(part.get("text"), "content")
    url = part.get("image_url") if kind == "image_url" else None
    url = url.get("url") if isinstance(url, dict) else url
    if not isinstance(url, str):
        raise Drop(
            f"a part of type {kind!r}",
            f"{record.where}: a part is {part!r:.60}; expected a text or an image_url with a url. Remove it.",
        )
    if url.startswith("data:"):
        try:  # DataHandler reads data: URLs alone; it opens no connection
            return Picture(DataHandler().data_open(Request(url)).read())
        except ValueError as error:
            raise Drop(
                "broken data: URL", f"{record.where}: a data: URL is broken ({error}). Encode it again."
            ) from error
    return Picture(url2pathname(urlsplit(url).path) if url.startswith("file:") else url)


def canonical_rows(record: Record) -> Iterator[dict]:
    """A row as it is, with pictures given in place moved to `images`."""
    if "text" in record and "messages" not in record:
        yield {"text": record.text("text")}
        return
    waiting = iter(record.pictures("images") or ())
    turns = []
    for message in listed(record, "messages"):
        _only(message, MESSAGE_KEYS, record.where)
        content = message.get("content")
        parts: list[str | Picture] = []
        for part in content if isinstance(content, list) else [content]:
            if isinstance(part, dict) and part.get("type") == "image":
                given = part.get("image")
                parts += marked(MARK, waiting, record.where) if given is None else [Picture(given)]
            elif isinstance(part, dict):
                parts.append(record.spoken(part.get("text"), "content"))
            else:
                parts += marked(record.spoken(part, "content"), waiting, record.where)
        turns.append((message.get("role"), parts, message.get("trained")))
    all_taken(waiting, record.where)
    yield make_row(*turns)


def _openai_sign(look: Look) -> str | None:
    for record in look.records:
        for message in (m for m in record.values.get("messages") or () if isinstance(m, dict)):
            parts = message["content"] if isinstance(message.get("content"), list) else ()
            if any(isinstance(part, dict) and part.get("type") == "image_url" for part in parts):
                return "a message has a part of type 'image_url'"
            odd = message.get("role") in ("developer", "tool", "function") or message.keys() - MESSAGE_KEYS
            if odd and "images" not in record:  # with images there are marks, which OpenAI has not
                return "its messages have roles or keys of OpenAI's"
    return None


def _fits_rows(look: Look) -> str | None:
    if look.has("messages") and not _openai_sign(look):
        return "its objects have 'messages' of role and content"
    return "its objects have 'text' alone" if look.names == {"text"} else None


LLAVA = Importer(
    about="LLaVA and ShareGPT: conversations of from and value, pictures under image",
    sign="a field 'conversations'",
    fields=("conversations", "image", "system"),
    fits=lambda look: "its objects have 'conversations'" if look.has("conversations") else None,
    read=read_table,
    rows=llava_rows,
)
OPENAI = Importer(
    about="OpenAI: messages with text and image_url parts, data: URLs and local paths",
    sign="'messages' with image_url parts, or roles and keys of OpenAI's",
    fields=("messages",),
    fits=_openai_sign,
    read=read_table,
    rows=openai_rows,
)
ROWS = Importer(
    about="rows of this toolkit, ms-swift or LLaMA-Factory: to gather their pictures or change the file type",
    sign="'messages' of role and content, or 'text' alone",
    fields=("messages", "images", "text"),
    fits=_fits_rows,
    read=read_table,
    rows=canonical_rows,
)
