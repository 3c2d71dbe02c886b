"""Prompts: what a picture is drawn from is the conversation before it.

Every picture of a prompt is one that is read, the user's as well as one drawn earlier: dropping pictures
takes all of them away, and the last of them is the one that an edit changes.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from unimodal.data.document import Document, Image, Part, Turn


def prompts(document: Document) -> Iterator[tuple[Document, np.ndarray]]:
    """Each picture that a document draws, uint8 (H, W, 3), with the prompt before it."""
    turns: list[Turn] = []
    for turn in document.turns:
        parts: list[Part] = []
        for part in turn.parts:
            if isinstance(part, Image) and part.trained:
                begun = (Turn(turn.role, tuple(parts)),) if parts else ()
                yield Document((*turns, *begun), document.id), part.pixels
            parts.append(_read(part))
        turns.append(Turn(turn.role, tuple(parts)))


def as_prompt(document: Document) -> Document:
    """A conversation up to a picture that is to be drawn, as `prompts` gives it."""
    turns = tuple(replace(turn, parts=tuple(map(_read, turn.parts))) for turn in document.turns)
    return replace(document, turns=turns)


def reference(prompt: Document) -> np.ndarray | None:
    """The picture that an edit changes: the last one."""
    return prompt.images[-1].pixels if prompt.images else None


def _read(part: Part) -> Part:
    return replace(part, trained=False)
