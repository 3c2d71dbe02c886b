"""An external model as the loop's trainee: prompts and the pictures that are drawn from them.

A row that draws several pictures gives one of them a visit, chosen by its number; the conversation before it
is the prompt, which loses a condition now and then (the drop table).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from unimodal.data.document import Document, Text
from unimodal.data.mixture import Mixture
from unimodal.data.pictures import MAX_PIXELS, fit
from unimodal.diffusion.guidance import Guidance
from unimodal.errors import UserError
from unimodal.external.folder import save_external
from unimodal.external.model import ExternalModel
from unimodal.external.prompts import prompts
from unimodal.model.config import DropTable
from unimodal.training.trainee import Losses
from unimodal.training.unified_trainee import SAMPLED, SAMPLES_START, dropped

WITHOUT_PICTURES = 1000  # rows in a row after which a mixture counts as drawing nothing


@dataclass(frozen=True, slots=True)
class DrawnRows:
    """Row number to a prompt and the picture to draw from it, as a pure function."""

    mixture: Mixture
    multiple: int
    image_size: int
    table: DropTable
    seed: int

    def __call__(self, number: int, whole: bool = False) -> tuple[Document, np.ndarray] | None:
        """Row `number`; None if it draws nothing.  `whole`: no condition is dropped."""
        document = fit(self.mixture.document(number), self.multiple, MAX_PIXELS, self.image_size)
        drawn = list(prompts(document))
        if not drawn:
            return None
        chance = np.random.default_rng(np.random.SeedSequence([self.seed, number]))
        prompt, picture = drawn[chance.integers(len(drawn))]
        return (prompt if whole else dropped(prompt, self.table, self.seed, number)), picture

    def from_number(
        self, number: int, stride: int = 1, whole: bool = False
    ) -> Iterator[tuple[int, Document, np.ndarray]]:
        """Endless (number, prompt, picture) of number, number + stride, ...; rows that draw nothing go out.

        Raises UserError if the mixture seems to draw nothing at all.
        """
        empty = 0
        while True:
            found = self(number, whole)
            empty = 0 if found else empty + 1
            if empty == WITHOUT_PICTURES:
                raise UserError(
                    f"data.sources: {empty} rows in a row draw no picture, so there is nothing to train an "
                    "external model on. Name sources or tasks that draw."
                )
            if found:
                yield number, *found
            number += stride


@dataclass(frozen=True, slots=True)
class DrawnBatch:
    """A micro-batch: prompts, the uint8 (H, W, 3) pictures to draw, and the number after the last."""

    prompts: list[Document]
    pictures: list[np.ndarray]
    cell: int  # pixels of a latent cell along a side
    state: dict[str, Any]

    @property
    def ids(self) -> list[str]:
        """Where the prompts came from."""
        return [prompt.id for prompt in self.prompts]

    @property
    def tokens(self) -> int:
        """Latent cells of the pictures."""
        return sum(p.shape[0] * p.shape[1] for p in self.pictures) // self.cell**2

    budget = tokens


class ExternalTrainee:
    """See `unimodal.training.trainee.Trainee`."""

    def __init__(
        self,
        model: ExternalModel,
        mixture: Mixture,
        batch_size: int,
        weights: dict[str, float],
        seed: int,
        dtype: torch.dtype = torch.float32,
    ):
        self.module, self.batch_size, self.dtype = model, batch_size, dtype
        self.weights = {name: w for name, w in weights.items() if name != "embedding" or model.regresses}
        config = model.config
        self.rows = DrawnRows(mixture, model.multiple, config.image_size, config.drop, seed)
        self._flops: float | None = None  # of a picture, once counted

    def batches(self, start_state: dict | None, rank: int, world: int) -> Iterator[DrawnBatch]:
        """Pictures of rows rank, rank + world, ... in batches."""
        stream = self.rows.from_number(start_state["next"] if start_state else rank, world)
        while True:
            numbers, asked, pictures = zip(*(next(stream) for _ in range(self.batch_size)))
            state = {"next": numbers[-1] + world}
            yield DrawnBatch(list(asked), list(pictures), self.module.codec.stride, state)

    def count(self, batch: DrawnBatch) -> dict[str, float]:
        """Latent cells, at every noise level at which they are drawn, and pictures."""
        counts = {"image": float(batch.tokens * self.module.config.times.copies)}
        return counts | ({"embedding": float(len(batch.pictures))} if self.module.regresses else {})

    def losses(self, batch: DrawnBatch, generator: torch.Generator) -> Losses:
        """Loss sums of one batch, and every noised picture's loss at its noise level."""
        out = self.module(batch.prompts, batch.pictures, generator)
        sums = {"image": out.image} | ({} if out.embedding is None else {"embedding": out.embedding})
        return Losses(sums, self.weights, {"image": (out.image_each, out.times)})

    def flops(self, batch: DrawnBatch) -> float:
        """What torch counts in the forward of the first batch, a picture, and the way back.

        What is behind the reader costs three times its forward; the reader itself once, or twice where
        gradients pass through it to what a connector appended.
        """
        if self._flops is None:
            self._flops = self._count_flops(batch) / len(batch.pictures)
        return self._flops * len(batch.pictures)

    @torch.no_grad()
    def _count_flops(self, batch: DrawnBatch) -> float:
        with FlopCounterMode(display=False) as read:
            self.module.read(batch.prompts)
        with FlopCounterMode(display=False) as all_of_it:
            self.module(batch.prompts, batch.pictures, torch.Generator(self.module.device).manual_seed(0))
        reader = float(read.get_total_flops())
        back = 1.0 if self.module.connector.appended is None else 2.0
        return back * reader + 3 * (float(all_of_it.get_total_flops()) - reader)

    def samples(self, seed: int) -> Image.Image:
        """The first rows that draw, beyond those that training reads, as the model draws them now."""
        from unimodal.evaluation.sheet import sheet
        from unimodal.external.draw import draw
        from unimodal.external.model import alike

        stream = self.rows.from_number(SAMPLES_START, whole=True)
        asked, truth = zip(
            *((prompt, picture) for _, prompt, picture in (next(stream) for _ in range(SAMPLED)))
        )
        sampling = self.module.config.sampling
        guidance = Guidance(sampling.guidance, sampling.image_guidance)
        tiles: list = [None] * SAMPLED
        for rows in alike([picture.shape[:2] for picture in truth]):
            some = [asked[row] for row in rows]
            generators = [torch.Generator().manual_seed(seed + row) for row in rows]
            for row, drawn in zip(
                rows, draw(self.module, some, truth[rows[0]].shape[:2], generators, guidance)
            ):
                tiles[row] = (Image.fromarray(drawn), _words(asked[row]))
        return sheet(tiles, columns=6)

    def hint(self, folder: Path) -> str:
        """How to use what was trained."""
        return f"Use it with `unimodal chat {folder}`"

    def save(self, folder: Path, module: ExternalModel) -> None:
        """A model folder."""
        if module.cache is not None:
            module.cache.flush()
        save_external(folder, module, self.dtype)


def _words(prompt: Document) -> str:
    """What was said last before the picture."""
    said = [[p.text.strip() for p in turn.parts if isinstance(p, Text)] for turn in prompt.turns]
    return next((" ".join(texts) for texts in reversed(said) if texts), "")
