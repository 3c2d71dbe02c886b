"""A loaded external model: it is asked what any other model is asked.

What it writes, its reader writes.  What it draws is drawn by the denoiser, from the conversation so far, and
from what the reader says first of the picture, if it was trained so.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from unimodal.data.document import Document
from unimodal.diffusion.solvers import OnStep
from unimodal.errors import UserError
from unimodal.external.draw import draw
from unimodal.external.folder import load_external
from unimodal.external.model import ExternalModel, alike
from unimodal.generation.converse import Drawn, Event, Settings
from unimodal.generation.verbs import Unimodal
from unimodal.model.config import Writing


class ExternalConverser:
    """Replies of an external model to a batch of documents (see `unimodal.generation.converse`)."""

    def __init__(
        self,
        model: ExternalModel,
        documents: list[Document],
        settings: Settings,
        on_step: OnStep | None = None,
    ):
        self.model, self.documents, self.settings = model, documents, settings
        self.draw = partial(draw, model, guidance=settings.guidance, steps=settings.steps, on_step=on_step)

    def run(self, seeds: list[int]) -> Iterator[tuple[int, Event]]:
        """Yield (row, event) until every row has ended its turn."""
        side, reader = self.model.config.image_size, self.model.reader
        if self.settings.writes or self.settings.plan:
            yield from reader.converse(self.documents, self._readers(), seeds, side, self.draw)
            return
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        sizes = [self._size(document, side) for document in self.documents]
        for rows in alike(sizes):
            asked, chance = [self.documents[row] for row in rows], [generators[row] for row in rows]
            for row, picture in zip(rows, self.draw(asked, sizes[rows[0]], chance)):
                yield row, Drawn(picture)

    def _readers(self) -> Settings:
        """The settings with a picture's size in the reader's own positions."""
        grid, times = self.settings.grid, self.model.multiple // self.model.reader.multiple
        return replace(self.settings, grid=grid and tuple(cells * times for cells in grid))

    def _size(self, document: Document, side: int) -> tuple[int, int]:
        """Height and width in pixels of what is to be drawn."""
        if self.settings.grid:
            return tuple(cells * self.model.multiple for cells in self.settings.grid)
        return document.images[-1].pixels.shape[:2] if document.images else (side, side)


class External(Unimodal):
    """An external model and its verbs."""

    def __init__(self, model: ExternalModel, name: str = "model"):
        super().__init__(model, None, name)

    @property
    def writes(self) -> bool:
        """See Unimodal; whether its reader does."""
        return self.model.reader.writes

    @property
    def writing(self) -> Writing:
        """The reader's, which writes; without a plan where pictures are not drawn from one."""
        own = self.model.reader.writing
        return own if self.config.plans else own.model_copy(update={"plan": 0})

    def add_adapter(self, folder: str | Path) -> str:
        """Refuse: adapters change a unimodal model's decoder, and here that is frozen."""
        raise UserError(f"{self.base} is an external model, which takes no adapters.")

    def _converser(
        self, documents: list[Document], settings: Settings, on_step: OnStep | None = None
    ) -> ExternalConverser:
        return ExternalConverser(self.model, documents, settings, on_step)


def open_external(folder: Path, name: str, device: str) -> External:
    """Load the model of a folder.  Raises UserError if it or its reader cannot be read."""
    return External(load_external(folder, device), name)
