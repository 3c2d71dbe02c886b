"""Document: one parsed and validated row, the only form in which data enters the toolkit.

A row on disk (see `rows`) becomes turns of parts.  Each part says whether the model is trained to write
it.  Everything after this point (layout, packing, generation, chat) knows documents, never rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

Role = Literal["system", "user", "assistant"]
Drop = Literal["text", "image", "both"]


@dataclass(frozen=True, slots=True)
class Text:
    """A run of text; `trained` if the model should learn to write it."""

    text: str
    trained: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """A picture, uint8 RGB of shape (height, width, 3); `trained` if the model should learn to draw it."""

    pixels: np.ndarray
    trained: bool = False


Part = Text | Image


@dataclass(frozen=True, slots=True)
class Turn:
    """What one speaker says.  `role` is None in a document of plain text, which has one turn."""

    role: Role | None
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """Turns in order, and where they came from (`file:line`, or a generator's name and index)."""

    turns: tuple[Turn, ...]
    id: str = ""

    def parts(self) -> Iterator[Part]:
        """Every part of every turn, in order."""
        for turn in self.turns:
            yield from turn.parts

    @property
    def images(self) -> list[Image]:
        """Every picture, in order."""
        return [part for part in self.parts() if isinstance(part, Image)]

    @property
    def reads_pictures(self) -> bool:
        """Whether it holds a picture that is only read."""
        return any(not image.trained for image in self.images)


def drop(document: Document, kind: Drop) -> Document:
    """Take the conditions out of a document: what guidance calls its null branch.

    `text` removes every text, `image` every picture that is only read, `both` removes both.  Pictures
    that are to be drawn stay; texts that stay are no longer trained, because what they should be told
    from is gone (unless nothing is).  Training (at the rates of the drop table) and guided sampling both
    call this one function, so a null seen at sampling is a null seen in training.
    """

    if kind == "image" and not document.reads_pictures:
        return document

    def keep(part: Part) -> bool:
        if isinstance(part, Text):
            return kind == "image"
        return part.trained or kind == "text"

    def untrain(part: Part) -> Part:
        return replace(part, trained=False) if isinstance(part, Text) else part

    turns = tuple(replace(t, parts=tuple(untrain(p) for p in t.parts if keep(p))) for t in document.turns)
    return replace(document, turns=turns)
