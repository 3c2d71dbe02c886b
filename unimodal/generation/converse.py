"""The assistant's turn: the model writes, and where it writes `<|image_start|>`, it draws.

A batch of conversations goes on together, token by token, or block by block where text is learned by masked
prediction.  Each row stops when it has ended its own turn; a finished picture is decoded, encoded again and
read, so what later text sees is exactly what training would have laid out.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from unimodal.data.document import Document, Image, Text, Turn
from unimodal.diffusion.solvers import OnStep
from unimodal.generation.context import read_documents, read_images, read_size, read_text, read_tokens
from unimodal.generation.draw import draw, grid_for
from unimodal.generation.masked_text import say_block
from unimodal.generation.settings import Settings
from unimodal.model.unified import UnifiedModel
from unimodal.paths.choose import choose
from unimodal.sequence.spans import Grid
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


class Converser:
    """Replies of one model to a batch of documents that end where the assistant is to go on.

    `on_step` is told of every solver step; `documents` grow by what is said before a picture, and by it.
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
        self.choice = settings.choice
        self.side = model.config.image_size  # of a picture whose size nothing says

    @torch.inference_mode()
    def run(self, seeds: list[int]) -> Iterator[tuple[int, Event]]:
        """Yield (row, event) until every row has ended its turn."""
        model, settings = self.model, self.settings
        rows = len(self.documents)
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.context = read_documents(model, self.tokenizer, self.documents, room=settings.max_tokens + 64)
        decoders = [StreamDecoder(self.tokenizer) for _ in range(rows)]
        writing = [not settings.writes or settings.max_tokens > 0] * rows
        tokens, images = [0] * rows, [0] * rows
        self.said = [""] * rows  # since the last picture
        self.ends = (self.tokenizer.im_end, self.tokenizer.endoftext)
        drawing: list[int] = []
        while any(writing) or drawing:
            if not any(writing):  # all that are to draw, draw together
                yield from self._draw(drawing)
                for row in drawing:
                    images[row] += 1
                    writing[row] = settings.writes
                drawing = []
                continue
            said = self._next(writing, images, tokens)
            told = said.tolist()
            read = [0] * rows
            for row in (row for row in range(rows) if writing[row]):
                for token in told[row]:
                    text = ""
                    if token in self.ends:
                        writing[row] = False
                    elif token == self.tokenizer.image_start:
                        read[row] += 1
                        drawing.append(row)
                        writing[row] = False
                    else:
                        read[row] += 1
                        tokens[row] += 1
                        text = decoders[row].push(token)
                        writing[row] = not settings.writes or tokens[row] < settings.max_tokens
                    if not writing[row]:
                        text += decoders[row].finish()
                    if text:
                        self.said[row] += text
                        yield row, Piece(text)
                    if not writing[row]:
                        break
            read_text(model, self.context, said, torch.tensor(read, device=model.device))

    def _next(self, writing: list[bool], images: list[int], tokens: list[int]) -> Tensor:
        """What every row says next: one token (B, 1), or a block of them (B, n) where text is masked."""
        settings, start = self.settings, self.tokenizer.image_start
        if not (settings.writes or settings.plan):
            return torch.full((len(images), 1), start, device=self.model.device)
        forbidden = self._forbidden(images)
        idle = torch.Generator()  # a row that is not writing leaves its own as it is
        generators = [own if busy else idle for own, busy in zip(self.generators, writing)]
        if self.model.block:
            said = say_block(self.model, self.context, forbidden, generators, self.choice)
        else:
            logits = self.model.logits(self.context.hidden).float().masked_fill(forbidden, float("-inf"))
            said = choose(logits[:, None], generators, self.choice)
        if settings.writes:
            return said
        # A reply that has to draw draws where it would end, and once its plan is as long as it may be.
        said_before = torch.tensor(tokens, device=said.device)[:, None]
        enough = said_before + torch.arange(said.shape[1], device=said.device) >= settings.plan
        ends = torch.isin(said, torch.tensor(self.ends, device=said.device))
        return torch.where(ends | enough, start, said)

    def _forbidden(self, images: list[int]) -> Tensor:
        """(B, V) bool: tokens that a row may not say, given how many pictures it has drawn."""
        settings, special, model = self.settings, self.tokenizer, self.model
        forbidden = torch.zeros(len(images), model.config.vocab_size, dtype=torch.bool, device=model.device)
        never = [special.pad, special.im_start, special.image_end]
        never += [] if special.bos is None else [special.bos]
        forbidden[:, never] = True
        forbidden[:, len(special) :] = True
        full = [not settings.draws or count >= settings.max_images for count in images]
        forbidden[:, special.image_start] = torch.tensor(full, device=model.device)
        return forbidden

    def _grid(self, row: int) -> Grid:
        if self.settings.grid:
            return self.settings.grid
        seen = self.documents[row].images
        return grid_for(self.model, *(seen[-1].pixels.shape[:2] if seen else (self.side, self.side)))

    def _draw(self, chosen: list[int]) -> Iterator[tuple[int, Event]]:
        """Draw in the chosen rows, those of one size and as many nulls together; read pictures back."""
        alike: dict[tuple[Grid, bool], list[int]] = {}
        for row in chosen:
            if self.said[row]:  # it is part of what the picture is drawn from, and of its nulls as trained
                self.documents[row] = with_reply(self.documents[row], [Text(self.said[row], trained=True)])
                self.said[row] = ""
            alike.setdefault((self._grid(row), self.documents[row].reads_pictures), []).append(row)
        for (grid, _), rows in alike.items():
            read_size(self.model, self.tokenizer, self.context, grid, self._only(rows))
            pictures = self._pictures(rows, grid)
            self._read_back(rows, grid, pictures)
            for row, picture in zip(rows, pictures):
                yield row, Drawn(picture)

    def _only(self, rows: list[int]) -> Tensor:
        """(B,) bool, which rows these are."""
        active = torch.zeros(self.context.rows, dtype=torch.bool, device=self.model.device)
        active[rows] = True
        return active

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
        active = self._only(rows)
        everyone = latents.new_zeros(self.context.rows, *latents.shape[1:])
        everyone[rows] = latents
        read_images(model, self.context, everyone, grid, active)
        end = torch.full((self.context.rows,), self.tokenizer.image_end, device=model.device)
        read_tokens(model, self.context, end, active)
        for row, picture in zip(rows, pictures):
            self.documents[row] = with_reply(self.documents[row], [Image(picture, trained=True)])


def with_reply(document: Document, parts: list[Text | Image]) -> Document:
    """The document with more said by the assistant, in its open turn or in a new one."""
    if document.turns and document.turns[-1].role == "assistant":
        last = document.turns[-1]
        turns = (*document.turns[:-1], replace(last, parts=(*last.parts, *parts)))
    else:
        turns = (*document.turns, Turn("assistant", tuple(parts)))
    return replace(document, turns=turns)
