"""Rows: what a user has on disk, checked and parsed into Documents.

    {"messages": [{"role": "user", "content": "make it red <image>"}, ...], "images": ["a.png", ...]}
    {"text": "plain text"}

`<image>` marks (as in ms-swift and LLaMA-Factory) take the images in order; a list of parts
`{"type": "text", "text": ...}` and `{"type": "image"}` may stand for the string.  Nothing is guessed: what
does not fit is a UserError that says file, line and mend.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np

from unimodal.data.document import Document, Image, Part, Text, Turn
from unimodal.data.files import advice_on
from unimodal.data.pictures import MAX_PIXELS, open_picture, picture_size, unseen
from unimodal.errors import UserError, nearest

MARK = "<image>"
ROLES = ("system", "user", "assistant")
ROW_KEYS = frozenset(("messages", "images", "text"))
MESSAGE_KEYS = frozenset(("role", "content", "trained"))
PART_KEYS = {"text": frozenset(("type", "text")), "image": frozenset(("type", "image"))}


def parse_row(
    row: dict,
    where: str,
    image_root: Path | None = None,
    max_pixels: int = MAX_PIXELS,
    open_turn: bool = False,
    decode: bool = True,
) -> Document:
    """Check one row and parse it; pictures are decoded wholly.

    row         {"messages": [...], "images": [...]} or {"text": ...}; None counts as absent (parquet)
    where       "file:line", put before every message
    image_root  relative paths start here and no path may leave it; None: paths are refused
    open_turn   the assistant is still to answer, so nothing need be trained
    decode      False: of pictures only the headers are read, and the document has their shapes alone
    An image is a path, bytes, {"bytes": ...} or {"path": ...}, a PIL image, or uint8 (H, W, 3).
    The assistant's parts are trained unless its message says `"trained": false`; all of `text` is.
    Raises UserError.
    """
    try:
        return _parse_row(row, where, image_root, max_pixels, open_turn, decode)
    except UserError as error:
        hint = advice_on(where.rpartition(":")[0], row) if isinstance(row, dict) else ""
        raise UserError(f"{error}{hint}") from error


def _parse_row(
    row: dict, where: str, image_root: Path | None, max_pixels: int, open_turn: bool, decode: bool
) -> Document:
    if not isinstance(row, dict):
        raise UserError(f"{where}: the row is a {_kind(row)}; expected an object with 'messages' or 'text'.")
    _known_keys(row, ROW_KEYS, where, "row")
    messages, images, text = row.get("messages"), row.get("images"), row.get("text")
    if text is not None:
        return _plain(text, messages, images, where, open_turn)
    if not isinstance(messages, (list, tuple)) or not messages:
        found = "neither 'messages' nor 'text'" if messages is None else f"'messages' as {messages!r:.60}"
        raise UserError(
            f"{where}: found {found}; expected a list of messages or a text. Add what the row says."
        )
    if images is None:
        images = ()
    if not isinstance(images, (list, tuple)):
        raise UserError(f"{where}: 'images' is a {_kind(images)}; expected a list. Put brackets around it.")
    contents = [_content(message, where, n) for n, message in enumerate(messages, 1)]
    marks = sum(part is None for parts in contents for part in parts)
    if marks != len(images):
        raise UserError(
            f"{where}: {marks} <image> marks but {len(images)} images; expected one image for each mark. "
            "Add or remove marks or images until they match."
        )
    waiting = iter(images)
    turns = tuple(
        _turn(message, parts, waiting, where, n, image_root, max_pixels, decode)
        for n, (message, parts) in enumerate(zip(messages, contents), 1)
    )
    if not open_turn and not any(part.trained for turn in turns for part in turn.parts):
        raise UserError(
            f"{where}: nothing in the row is trained; expected a message of the assistant to learn from. "
            "Add one, or remove its '\"trained\": false'."
        )
    return Document(turns, where)


def _plain(text, messages, images, where: str, open_turn: bool) -> Document:
    if messages is not None or images is not None:
        raise UserError(
            f"{where}: 'text' stands beside 'messages' or 'images'; expected 'text' alone. "
            "Use 'messages' for a row with pictures or roles."
        )
    if not isinstance(text, str):
        raise UserError(f"{where}: 'text' is a {_kind(text)}; expected a string. Put it in quotes.")
    if not text.strip() and not open_turn:
        raise UserError(f"{where}: 'text' is empty; expected something to learn. Remove the row.")
    return Document((Turn(None, (Text(text, True),)),), where)


def _content(message, where: str, n: int) -> list:
    """Parts of a message: str is text, None the next image, a one-tuple an image given in place."""
    if not isinstance(message, dict):
        raise UserError(
            f"{where}: message {n} is a {_kind(message)}; expected an object with role and content."
        )
    if not message.keys() <= MESSAGE_KEYS:
        _known_keys(message, MESSAGE_KEYS, where, f"message {n}")
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        hint = nearest(role, ROLES) if isinstance(role, str) else ""
        raise UserError(f"{where}: message {n} has role {role!r}{hint}; expected one of {', '.join(ROLES)}.")
    if role == "system" and n > 1:
        raise UserError(f"{where}: message {n} is the system's; expected it first. Move it to the front.")
    if isinstance(content, str):
        parts: list = []
        for i, run in enumerate(content.split(MARK)):
            if i:
                parts.append(None)
            if run:
                parts.append(run)
        return parts
    if not isinstance(content, (list, tuple)):
        raise UserError(
            f"{where}: content of message {n} is a {_kind(content)}; expected a string or a list of parts."
        )
    return [run for k, part in enumerate(content, 1) if (run := _part(part, where, n, k)) != ""]


def _part(part, where: str, n: int, k: int):
    kind = part.get("type") if isinstance(part, dict) else None
    if kind not in PART_KEYS:
        raise UserError(
            f"{where}: part {k} of message {n} is {part!r:.60}; expected "
            '{"type": "text", "text": ...} or {"type": "image"}.'
        )
    _known_keys(part, PART_KEYS[kind], where, f"part {k} of message {n}")
    if kind == "image":
        return None if part.get("image") is None else (part["image"],)
    if not isinstance(part.get("text"), str):
        raise UserError(f"{where}: part {k} of message {n} has no text; expected a string under 'text'.")
    return part["text"]


def _turn(message, contents, waiting, where, n, image_root, max_pixels, decode) -> Turn:
    role, trained = message["role"], message.get("trained")
    if trained is None:
        trained = role == "assistant"
    elif not isinstance(trained, bool):
        raise UserError(f"{where}: 'trained' of message {n} is {trained!r}; expected true or false.")
    elif trained and role != "assistant":
        raise UserError(
            f"{where}: message {n} of the {role} is 'trained'; expected so of the assistant alone."
        )
    parts: list[Part] = []
    for content in contents:
        if isinstance(content, str):
            parts.append(Text(content, trained))
            continue
        source = next(waiting) if content is None else content[0]
        if not isinstance(source, np.ndarray):
            source = locate(source, where, image_root)
        if decode:
            pixels = open_picture(source, where, max_pixels)
        else:
            pixels = unseen(*picture_size(source, where, max_pixels))
        parts.append(Image(pixels, trained))
    if role == "assistant" and not any(type(part) is Image or part.text.strip() for part in parts):
        raise UserError(
            f"{where}: message {n} of the assistant is empty; expected a text or an <image>. Remove the row."
        )
    return Turn(role, tuple(parts))


def locate(source, where: str, image_root: Path | None):
    """What `open_picture` takes: bytes and PIL images as they are, a path inside `image_root`."""
    if isinstance(source, dict):  # the form of `datasets`
        _known_keys(source, frozenset(("bytes", "path")), where, "image")
        source = source.get("bytes") if source.get("bytes") is not None else source.get("path")
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source)
    if hasattr(source, "getexif"):
        return source
    if not isinstance(source, (str, Path)) or not str(source):
        raise UserError(f"{where}: an image is {source!r:.60}; expected a path or bytes.")
    if "://" in str(source):
        raise UserError(f"{where}: image {str(source)!r} is a link; expected a file. Download it first.")
    if image_root is None:
        raise UserError(f"{where}: image {str(source)!r} is a path, but there is no image_root to look in.")
    root = _resolved(Path(image_root))
    try:
        file = (root / source).resolve()  # follows links, so a link out of the root is seen as leaving it
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"{where}: image path {str(source)!r} does not resolve ({error}). Mend it."
        ) from error
    if not file.is_relative_to(root):
        raise UserError(
            f"{where}: image {str(source)!r} leads to {file}, outside the image root {root}. "
            "Move the file below the root, or name a wider image_root."
        )
    if not file.is_file():
        found = "a folder" if file.is_dir() else "no file"
        raise UserError(
            f"{where}: image {str(source)!r}: there is {found} at {file}. Mend the path or image_root."
        )
    return file


@lru_cache(maxsize=64)
def _resolved(root: Path) -> Path:
    return root.resolve()


def _known_keys(mapping: dict, known: frozenset, where: str, what: str) -> None:
    for key, value in mapping.items():
        if key not in known and value is not None:
            raise UserError(
                f"{where}: {what} has the unknown key {key!r}{nearest(str(key), known)}; "
                f"expected {', '.join(sorted(known))}. Rename or remove it."
            )


def _kind(value) -> str:
    names = {dict: "object", list: "list", str: "string", int: "number", float: "number", bool: "boolean"}
    return "null" if value is None else names.get(type(value), type(value).__name__)
