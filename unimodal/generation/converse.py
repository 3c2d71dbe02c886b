"""The assistant's turn: the model writes, and where it writes `<|image_start|>`, it draws.

A batch of conversations goes on together.  Each row stops when it has ended its own turn; a finished
picture is decoded, encoded again and read, so what later text sees is exactly what training would have
laid out.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from unimodal.data.document import Document, Image, Text, Turn
from unimodal.diffusion.guidance import Guidance
from unimodal.diffusion.solvers import OnStep
from unimodal.generation.context import read_documents, read_images, read_tokens
from unimodal.generation.draw import draw
from unimodal.generation.text import choose
from unimodal.model.unified import UnifiedModel
from unimodal.sequence.layout import Grid
from unimodal.sequence.tokenizer import StreamDecoder, Tokenizer


@dataclass(frozen=True, slots=True)
class Piece:
    """Some more text of the reply."""

    text: str


@dataclass(frozen=True, slots=True)
class Drawn:
    """A finished picture, uint8 (H, W, 3)."""

    pixels: np.ndarray


Event = Piece | Drawn


@dataclass(frozen=True, slots=True)
class Settings:
    """How to reply.

    draws, writes  what the model may do; a reply that may only draw starts with `<|image_start|>`
    max_tokens     text tokens a reply may have; max_images pictures
    grid           size of a drawn picture in positions; None takes the last picture's size, or the
                   model's own
    """

    max_tokens: int = 256
    max_images: int = 4
    temperature: float = 0.0
    top_p: float = 1.0
    steps: int | None = None
    guidance: Guidance = field(default_factory=Guidance)
    grid: Grid | None = None
    draws: bool = True
    writes: bool = True


class Converser:
    """Replies of one model to a batch of documents that end where the assistant is to go on.

    `on_step` is told of every solver step; `documents` grow by the pictures that are drawn.
    """

    def __init__(
        self,
        model: UnifiedModel,
        tokenizer: Tokenizer,
        documents: list[Document],
        settings: Settings,
        on_step: OnStep | None = None,
    ):
        self.model, self.tokenizer, self.settings = model, tokenizer, settings
        self.documents, self.on_step = list(documents), on_step
        self.side = model.config.image_size  # of a picture whose size nothing says

    @torch.inference_mode()
    def run(self, seeds: list[int]) -> Iterator[tuple[int, Event]]:
        """Yield (row, event) until every row has ended its turn."""
        model, settings = self.model, self.settings
        rows = len(self.documents)
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.context = read_documents(model, self.tokenizer, self.documents, room=settings.max_tokens + 64)
        decoders = [StreamDecoder(self.tokenizer) for _ in range(rows)]
        alive = torch.ones(rows, dtype=torch.bool, device=model.device)
        tokens, images = [0] * rows, [0] * rows
        while alive.any():
            ids = self._next_ids(images)
            wants_image = alive & (ids == self.tokenizer.image_start)
            alive = alive & ~(ids == self.tokenizer.im_end) & ~(ids == self.tokenizer.endoftext)
            for row in torch.nonzero(alive & ~wants_image).flatten().tolist():
                tokens[row] += 1
                if text := decoders[row].push(int(ids[row])):
                    yield row, Piece(text)
                if tokens[row] >= settings.max_tokens:
                    alive[row] = False
            read_tokens(model, self.context, ids, alive)
            if wants_image.any():
                chosen = torch.nonzero(wants_image).flatten().tolist()
                yield from self._draw(chosen)
                for row in chosen:
                    images[row] += 1
                    if not settings.writes:
                        alive[row] = False

    def _next_ids(self, images: list[int]) -> Tensor:
        settings, special = self.settings, self.tokenizer
        if not settings.writes:
            return torch.full((len(images),), special.image_start, device=self.model.device)
        logits = self.model.logits(self.context.hidden).float()
        forbidden = [special.pad, special.im_start, special.image_end]
        logits[:, forbidden] = float("-inf")
        logits[:, len(special) :] = float("-inf")
        for row, count in enumerate(images):
            if not settings.draws or count >= settings.max_images:
                logits[row, special.image_start] = float("-inf")
        return choose(logits, self.generators, settings.temperature, settings.top_p)

    def _grid(self, row: int) -> Grid:
        if self.settings.grid:
            return self.settings.grid
        seen = self.documents[row].images
        height, width = seen[-1].pixels.shape[:2] if seen else (self.side, self.side)
        return height // self.model.multiple, width // self.model.multiple

    def _draw(self, chosen: list[int]) -> Iterator[tuple[int, Event]]:
        """Draw in the chosen rows, those of one size together, and read the pictures back."""
        sizes: dict[Grid, list[int]] = {}
        for row in chosen:
            sizes.setdefault(self._grid(row), []).append(row)
        for grid, rows in sizes.items():
            pictures = self._pictures(rows, grid)
            self._read_back(rows, grid, pictures)
            for row, picture in zip(rows, pictures):
                yield row, Drawn(picture)

    def _pictures(self, rows: list[int], grid: Grid) -> list[np.ndarray]:
        """The pictures of `grid` positions that come next in these rows."""
        return draw(
            self.model,
            self.tokenizer,
            self.context.select(rows),
            [self.documents[row] for row in rows],
            grid,
            [self.generators[row] for row in rows],
            self.settings.guidance,
            self.settings.steps,
            self.on_step,
        )

    def _read_back(self, rows: list[int], grid: Grid, pictures: list[np.ndarray]) -> None:
        model = self.model
        latents = torch.stack(model.encode(pictures))
        active = torch.zeros(self.context.rows, dtype=torch.bool, device=model.device)
        active[rows] = True
        everyone = latents.new_zeros(self.context.rows, *latents.shape[1:])
        everyone[rows] = latents
        read_images(model, self.context, everyone, grid, active)
        end = torch.full((self.context.rows,), self.tokenizer.image_end, device=model.device)
        read_tokens(model, self.context, end, active)
        for row, picture in zip(rows, pictures):
            self.documents[row] = with_reply(self.documents[row], [Image(picture, trained=True)])


def with_reply(document: Document, parts: list[Text | Image]) -> Document:
    """The document with more said by the assistant, in its open turn or in a new one."""
    last = document.turns[-1]
    if last.role == "assistant":
        turns = (*document.turns[:-1], replace(last, parts=(*last.parts, *parts)))
    else:
        turns = (*document.turns, Turn("assistant", tuple(parts)))
    return replace(document, turns=turns)
