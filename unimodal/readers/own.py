"""This toolkit's own decoder as a frozen reader.

It reads a prompt with the layout that it was trained with.  Where it was also trained to ask for pictures
(`<|image_start|>`), it goes on deciding in a conversation when to draw; only the drawing is another's.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from unimodal.attention.door import make_plan
from unimodal.connectors.connector import Appended
from unimodal.data.document import Document
from unimodal.generation.context import side_by_side
from unimodal.generation.converse import Converser, Event, Settings
from unimodal.model.folder import load_model
from unimodal.model.unified import UnifiedModel
from unimodal.readers.reader import Draw
from unimodal.sequence.layout import Sequence, layout
from unimodal.sequence.mask import PADDING, Marks
from unimodal.sequence.spans import Grid
from unimodal.sequence.tokenizer import Tokenizer


class OwnReader(nn.Module):
    """See `unimodal.readers.reader`."""

    causal, sees, writes = False, True, True

    def __init__(self, model: UnifiedModel, tokenizer: Tokenizer):
        super().__init__()
        self.model, self.tokenizer = model.requires_grad_(False).eval(), tokenizer
        self.codec = model.codec
        self.layers, self.width = model.config.num_hidden_layers, model.config.hidden_size
        self.seen = model.tower.width if model.tower is not None else self.width
        self.multiple = model.multiple
        self.writing = model.config.writing

    def read(
        self, prompts: list[Document], layers: list[int], appended: Appended | None = None
    ) -> tuple[Tensor, Tensor]:
        """See Reader."""
        sequences = [self._laid_out(prompt) for prompt in prompts]
        with torch.no_grad():
            ids, position, marks, *seen = side_by_side(self.model, sequences)
            embeds, is_image = self.model.embedded(ids, *seen)
            embeds = self.model.places(embeds, position, is_image)
            if appended is None:
                hidden = self._through(embeds, position, marks, is_image, layers)
                return hidden, (marks.document != PADDING) & ~self._prefix(prompts, ids.shape[1])
        asked = appended.make(embeds, marks.document != PADDING).to(embeds.dtype)
        place, their_marks = self._behind(sequences, appended)
        hidden = self._through(
            torch.cat([embeds, asked], dim=1),
            torch.cat([position, place], dim=1),
            _joined(marks, their_marks),
            torch.cat([is_image, torch.zeros_like(place[..., 0], dtype=torch.bool)], dim=1),
            layers,
        )
        hidden = hidden[:, -appended.count :]
        return hidden, torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device)

    def _laid_out(self, prompt: Document) -> Sequence:
        return layout(
            prompt,
            self.tokenizer,
            self.model.path,
            self.model.multiple,
            open_turn=True,
            vision=self.model.vision_grid,
        )

    def _through(
        self, embeds: Tensor, position: Tensor, marks: Marks, is_image: Tensor, layers: list[int]
    ) -> Tensor:
        """Hidden states (B, T, K, D) of some layers."""
        kept: list[Tensor] = []
        plan = make_plan(marks, half=torch.is_autocast_enabled(embeds.device.type))
        self.model.decoder(embeds, position, plan, is_image, taps=kept)
        return torch.stack([kept[layer] for layer in layers], dim=2)

    def _prefix(self, prompts: list[Document], width: int) -> Tensor:
        """Which positions (B, T) say only that somebody begins to speak."""
        roles = [prompt.turns[0].role for prompt in prompts]
        bos = int(self.tokenizer.bos is not None)
        lengths = [1 if role is None else bos + 1 + len(self.tokenizer.encode(f"{role}\n")) for role in roles]
        return (torch.arange(width) < torch.tensor(lengths)[:, None]).to(self.model.device)

    def _behind(self, sequences: list[Sequence], appended: Appended) -> tuple[Tensor, Marks]:
        """RoPE positions (B, N, 3) and marks (B, N) of what is appended to each row."""
        device = self.model.device
        count = torch.arange(appended.count, device=device)

        def column(values: list[int]) -> Tensor:
            return torch.tensor(values, device=device)[:, None]

        order = column([s.next_position for s in sequences]) + count
        step = column([s.next_step for s in sequences]) + (count if appended.causal else 0 * count)
        span = column([int(s.span.max()) + 1 for s in sequences]).expand_as(step)
        zero = torch.zeros_like(step)
        return order[..., None].expand(-1, -1, 3), Marks(zero, step, span, zero.bool())

    @torch.no_grad()
    def see(self, pictures: list[np.ndarray]) -> list[tuple[Tensor, Grid]]:
        """See Reader; its vision tower's features, or without one how the decoder embeds the latents."""
        if self.model.tower is not None:
            return [(features, self.model.tower.grid) for features in self.model.tower(pictures)]
        grids = [tuple(side // self.multiple for side in picture.shape[:2]) for picture in pictures]
        return list(zip(map(self.model.path.embed_clean, self.model.encode(pictures)), grids))

    def converse(
        self, documents: list[Document], settings: Settings, seeds: list[int], side: int, draw: Draw
    ) -> Iterator[tuple[int, Event]]:
        """See Reader."""
        yield from _Speaker(self.model, self.tokenizer, documents, settings, side, draw).run(seeds)


class _Speaker(Converser):
    """A conversation of the reader's in which another draws."""

    def __init__(
        self,
        model: UnifiedModel,
        tokenizer: Tokenizer,
        documents: list[Document],
        settings: Settings,
        side: int,
        draw: Draw,
    ):
        super().__init__(model, tokenizer, documents, settings)
        self.side, self.draw = side, draw

    def _pictures(self, rows: list[int], grid: Grid) -> list[np.ndarray]:
        size = grid[0] * self.model.multiple, grid[1] * self.model.multiple
        asked = [self.documents[row] for row in rows]
        return self.draw(asked, size, [self.generators[row] for row in rows])


def _joined(first: Marks, second: Marks) -> Marks:
    names = ("document", "step", "span", "hidden")
    return Marks(*(torch.cat([getattr(first, name), getattr(second, name)], dim=1) for name in names))


def load_own(folder: Path) -> OwnReader:
    """A model folder as a reader.  Raises UserError if it is none."""
    return OwnReader(*load_model(folder))
