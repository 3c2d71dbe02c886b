"""What a person asks, as a row of training data and as the document it stands for.

The same parser reads it that reads training data, so a prompt is never put together in a second way.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unimodal.data.document import Document
from unimodal.data.pictures import MAX_PIXELS, fit, open_picture
from unimodal.data.rows import parse_row
from unimodal.errors import UserError


def user_row(text: str, image: Any = None) -> dict:
    """A row with one message of the user's; the image, if any, stands before the text."""
    parts = [{"type": "text", "text": text}]
    if image is None:
        return {"messages": [{"role": "user", "content": parts}]}
    return {"messages": [{"role": "user", "content": [{"type": "image"}, *parts]}], "images": [image]}


def paired(image: Any, text: str | Sequence[str], what: str) -> list[tuple[Any, str]]:
    """Each text with its image: a list of both, or one image for all.  UserError if they differ in number."""
    texts = [text] if isinstance(text, str) else list(text)
    pictures = list(image) if isinstance(image, list | tuple) else [image] * len(texts)
    if len(pictures) != len(texts):
        raise UserError(f"{len(pictures)} images but {len(texts)} {what}s; give one {what} for each image")
    return list(zip(pictures, texts))


def open_document(row: dict, multiple: int, size: int) -> Document:
    """The document of a row, for the assistant to go on with, its pictures scaled as in training.

    multiple  of the picture sides
    size      pixels that the longest side of its largest picture gets
    Raises UserError if the row or one of its pictures cannot be read.
    """
    pictures = [_opened(image) for image in row.get("images") or ()]
    row = {**row, "images": pictures} if pictures else row
    document = parse_row(row, "the conversation", max_pixels=MAX_PIXELS, open_turn=True)
    return fit(document, multiple, MAX_PIXELS, size)


def _opened(image: Any) -> Any:
    """Pictures given by path may lie anywhere: here a person names them, not a row of a data set."""
    return open_picture(Path(image), str(image)) if isinstance(image, str | Path) else image
