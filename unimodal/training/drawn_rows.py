"""Rows as an external model learns from them: a prompt, and the picture to draw from it.

A row that draws several pictures gives one of them a visit, chosen by its number; the conversation before it
is the prompt, which loses a condition now and then (the drop table).  A row that draws nothing teaches
nothing: it is passed over, and counted.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from unimodal.data.document import Document
from unimodal.data.mixture import Mixture, rows_of_use
from unimodal.data.pictures import MAX_PIXELS, fit
from unimodal.external.prompts import plan_of, prompts
from unimodal.model.config import DropTable
from unimodal.training.row_maker import dropped

LOOKED_AT = 200  # rows that are counted before a run


@dataclass(frozen=True, slots=True)
class DrawnRows:
    """Row number to a prompt and the picture to draw from it, as a pure function.

    plans   whether what is said before a picture is part of its prompt (see `unimodal.external.config`)
    reader  the reader's name, for messages;  writes  whether it can write
    """

    mixture: Mixture
    multiple: int
    image_size: int
    table: DropTable
    seed: int
    plans: bool = False
    reader: str = "the reader"
    writes: bool = True

    def __call__(self, number: int, whole: bool = False) -> tuple[Document, np.ndarray] | None:
        """Row `number`; None if it draws nothing.  `whole`: no condition is dropped."""
        drawn = list(prompts(self._document(number), self.plans))
        if not drawn:
            return None
        chance = np.random.default_rng(np.random.SeedSequence([self.seed, number]))
        prompt, picture = drawn[chance.integers(len(drawn))]
        return (prompt if whole else dropped(prompt, self.table, self.seed, number)), picture

    def _document(self, number: int) -> Document:
        return fit(self.mixture.document(number), self.multiple, MAX_PIXELS, self.image_size)

    def from_number(
        self, number: int, stride: int = 1, whole: bool = False
    ) -> Iterator[tuple[int, Document, np.ndarray]]:
        """Endless (number, prompt, picture) of number, number + stride, ... without those that draw nothing.

        Raises UserError if the mixture seems to draw nothing at all.
        """
        lack = (
            "draw no picture, so there is nothing to train an external model on. Name sources or tasks that "
            "draw."
        )
        for at, found in rows_of_use(partial(self, whole=whole), number, stride, lack):
            yield at, *found

    def about(self) -> list[str]:
        """Sentences on the first rows: how many draw, and what is said before their pictures."""
        pictures = [list(prompts(self._document(number), True)) for number in range(LOOKED_AT)]
        drawing = [drawn for drawn in pictures if drawn]
        told = []
        if nothing := LOOKED_AT - len(drawing):
            told.append(
                f"{nothing} of the first {LOOKED_AT} rows draw no picture: they teach an external model "
                "nothing, and are passed over and counted (`rows` in the log)."
            )
        every = [prompt for drawn in drawing for prompt, _ in drawn]
        planned = sum(bool(plan_of(prompt)) for prompt in every)
        if planned and not self.plans:
            told.append(
                f"Of their {len(every)} pictures {planned} come after words in the same turn, which are left "
                f"out here: {self.reader} is not to write any before it draws."
            )
        elif self.plans and self.writes and planned < len(every):
            told.append(
                f"Of their {len(every)} pictures {len(every) - planned} come without words before them in "
                f"the same turn, though {self.reader} is to write some before it draws; with rows that have "
                "none at all, set model.plans=false."
            )
        return told


@dataclass(frozen=True, slots=True)
class DrawnBatch:
    """A micro-batch: prompts, the uint8 (H, W, 3) pictures to draw, and the number after the last.

    cell  pixels of a latent cell along a side;  read  rows it took to find them
    """

    prompts: list[Document]
    pictures: list[np.ndarray]
    cell: int
    state: dict[str, Any]
    read: int

    def alone(self, row: int) -> "DrawnBatch":
        """One of the rows, as a batch."""
        return replace(self, prompts=[self.prompts[row]], pictures=[self.pictures[row]], read=1)

    @property
    def sample_ids(self) -> list[str]:
        """Where the prompts came from."""
        return [prompt.id for prompt in self.prompts]

    @property
    def rows(self) -> dict[str, int]:
        """Rows that were read, and those of them that draw nothing."""
        return {"read": self.read, "without_picture": self.read - len(self.prompts)}

    @property
    def tokens(self) -> int:
        """Latent cells of the pictures."""
        return sum(p.shape[0] * p.shape[1] for p in self.pictures) // self.cell**2

    budget = tokens
