"""Prompts: what a picture is drawn from is the conversation before it.

Every picture of a prompt is one that is read, the user's as well as one drawn earlier: dropping pictures
takes all of them away, and the last of them is the one that an edit changes.  What is said before a picture
in its own turn is its plan: part of the prompt where the reader writes one before it draws, else left out.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from unimodal.data.document import Document, Image, Part, Text, Turn


def prompts(document: Document, plans: bool) -> Iterator[tuple[Document, np.ndarray]]:
    """Each picture that a document draws, uint8 (H, W, 3), with the prompt before it."""
    turns: list[Turn] = []
    for turn in document.turns:
        parts: list[Part] = []
        for part in turn.parts:
            if isinstance(part, Image) and part.trained:
                begun = (Turn(turn.role, tuple(parts)),) if parts else ()
                yield _told(Document((*turns, *begun), document.id), plans), part.pixels
            parts.append(_read(part))
        turns.append(Turn(turn.role, tuple(parts)))


def as_prompt(document: Document, plans: bool) -> Document:
    """A conversation up to a picture that is to be drawn, as `prompts` gives it."""
    turns = tuple(replace(turn, parts=tuple(map(_read, turn.parts))) for turn in document.turns)
    return _told(replace(document, turns=turns), plans)


def plan_of(prompt: Document) -> str:
    """What is said before the picture in its own turn, after the last picture there; empty if nothing is."""
    said = ""
    for part in prompt.turns[-1].parts if prompt.turns and prompt.turns[-1].role == "assistant" else ():
        said = said + part.text if isinstance(part, Text) else ""
    return said


def _told(prompt: Document, plans: bool) -> Document:
    """The prompt, without its plan unless that is part of it; one that says nothing is a silent user's."""
    if not plans and plan_of(prompt):
        *before, last = prompt.turns
        parts = list(last.parts)
        while parts and isinstance(parts[-1], Text):
            parts.pop()
        begun = (replace(last, parts=tuple(parts)),) if parts else ()
        prompt = replace(prompt, turns=(*before, *begun))
    return prompt if prompt.turns else replace(prompt, turns=(Turn("user", ()),))


def reference(prompt: Document) -> np.ndarray | None:
    """The picture that an edit changes: the last one."""
    return prompt.images[-1].pixels if prompt.images else None


def _read(part: Part) -> Part:
    return replace(part, trained=False)
