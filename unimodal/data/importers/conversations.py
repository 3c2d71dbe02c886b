"""Conversations: LLaVA and ShareGPT, OpenAI's parts, and the toolkit's own rows.

LLaVA and ShareGPT: `conversations` of `from` and `value`, pictures under `image` where `<image>` stands.
OpenAI: `messages` whose content is a text or a list of `text` and `image_url` parts (no marks in texts).
"""

from collections.abc import Iterator
from urllib.parse import urlsplit
from urllib.request import DataHandler, Request, url2pathname

from unimodal.data.importers.importer import Drop, Importer, Look, Picture, Record, make_row, read_table
from unimodal.data.importers.turns import (
    LEARNED,
    all_taken,
    blank,
    either,
    learned,
    listed,
    marked,
    no_other_marks,
    no_other_media,
    only,
    role_of,
)
from unimodal.data.rows import MARK, MESSAGE_KEYS, PART_KEYS, ROLES

SPEAKERS = {
    **{name: "user" for name in ("human", "user")},
    **{name: "assistant" for name in ("gpt", "assistant", "chatgpt", "bing", "bard")},
    "system": "system",
}
TURN_KEYS = frozenset(("from", "value", "role", "content", *LEARNED))
OPENAI_ROLES = {role: role for role in ROLES} | {"developer": "system"}
OPENAI_KEYS = frozenset(("role", "content", "weight", "name"))


def llava_rows(record: Record) -> Iterator[dict]:
    """One row of the whole conversation; what a turn says of being learned is kept."""
    no_other_media(record)
    waiting = iter(record.pictures("image", "images") or ())
    turns: list[tuple] = []
    if not blank(record.get("system")):
        turns.append(("system", marked(record.text("system"), waiting, record.where)))
    for turn in listed(record, "conversations"):
        only(turn, TURN_KEYS, record.where, "turn")
        role = role_of(either(turn, "from", "role", record.where), SPEAKERS, record.where)
        trained = learned(turn, role, record.where)
        text = either(turn, "value", "content", record.where)
        if role == "system" and blank(text):
            continue
        no_other_marks(record.spoken(text, "value"), record.where)
        turns.append((role, marked(text, waiting, record.where), trained))
    all_taken(waiting, record.where)
    yield make_row(*turns)


def openai_rows(record: Record) -> Iterator[dict]:
    """One row of the whole conversation; `weight` 0 is "not trained"."""
    turns: list[tuple] = []
    for message in listed(record, "messages"):
        only(message, OPENAI_KEYS, record.where)
        if message.get("name") is not None:
            record.without_place.add("messages.name")
        role = role_of(message.get("role"), OPENAI_ROLES, record.where)
        trained = learned(message, role, record.where)
        content = message.get("content")
        if role == "system" and blank(content):
            continue
        parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
        turns.append((role, [_part(part, record) for part in parts], trained))
    yield make_row(*turns)


def _part(part, record: Record) -> str | Picture:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text":
        return record.spoken(part.get("text"), "content")
    url = part.get("image_url") if kind == "image_url" else None
    if isinstance(url, dict):  # besides its url it may say `detail`, which is for a server
        record.without_place |= {f"image_url.{name}" for name in url.keys() - {"url"}}
        url = url.get("url")
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
    """A row as it is, with pictures given in place moved to `images`; who may say nothing, `rows` knows."""
    no_other_media(record)
    if "text" in record:
        beside = [name for name in ("messages", "images") if name in record]
        if beside:
            raise Drop(
                "'text' beside 'messages' or 'images'",
                f"{record.where}: 'text' stands beside {' and '.join(map(repr, beside))}; expected 'text' "
                "alone, or 'messages' and 'images'. Remove one.",
            )
        yield {"text": record.text("text")}
        return
    waiting = iter(record.pictures("images") or ())
    turns = []
    for message in listed(record, "messages"):
        only(message, MESSAGE_KEYS, record.where)
        content = message.get("content")
        if isinstance(content, list):
            parts = [made for part in content for made in _own_part(part, waiting, record)]
        else:
            parts = marked(record.written(content, "content"), waiting, record.where)
        turns.append((message.get("role"), parts, message.get("trained")))
    all_taken(waiting, record.where)
    yield make_row(*turns)


def _own_part(part, waiting: Iterator, record: Record) -> list[str | Picture]:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str) or kind not in PART_KEYS:
        raise Drop(
            f"a part of type {kind!r}",
            f"{record.where}: a part is {part!r:.60}; expected one of type text or image. Remove it.",
        )
    only(part, PART_KEYS[kind], record.where, "part")
    if kind == "text":
        return [record.written(part.get("text"), "content")]
    given = part.get("image")
    return marked(MARK, waiting, record.where) if given is None else [Picture(given)]


def _openai_sign(look: Look) -> str | None:
    for record in look.records:
        messages = record.values.get("messages")
        for message in messages if isinstance(messages, list) else ():
            if not isinstance(message, dict):
                continue
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
