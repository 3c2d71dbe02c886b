"""Context: a ragged batch of conversations read into one cache.

Built by `read_documents` from the same layout that training uses, grown token by token and image by
image.  It keeps, for each row, where the next position, step and span would be, and the hidden state of
the last position.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unimodal.data.document import Document
from unimodal.model.cache import KVCache, stack
from unimodal.model.unified import UnifiedModel
from unimodal.sequence.layout import Sequence, layout
from unimodal.sequence.mask import PADDING, Marks
from unimodal.sequence.spans import Grid, TargetLayout, clean_layout
from unimodal.sequence.tokenizer import Tokenizer

Spans = list[tuple[int, Tensor]]  # first positions, and what stands there


@dataclass(slots=True)
class Context:
    """B conversations so far.

    cache     keys and values of everything read
    position  (B,) RoPE position of what comes next
    step      (B,) its step
    span      (B,) its span
    hidden    (B, D) hidden state of the last position
    """

    cache: KVCache
    position: Tensor
    step: Tensor
    span: Tensor
    hidden: Tensor

    @property
    def rows(self) -> int:
        """Number of conversations."""
        return len(self.position)

    def select(self, rows: list[int]) -> "Context":
        """An independent copy of some rows."""
        index = torch.tensor(rows, device=self.position.device)
        return Context(
            self.cache.select(rows),
            self.position[index],
            self.step[index],
            self.span[index],
            self.hidden[index],
        )


def stack_contexts(contexts: list[Context]) -> Context:
    """Rows of several contexts under one another."""

    def join(name: str) -> Tensor:
        return torch.cat([getattr(context, name) for context in contexts])

    cache = stack([context.cache for context in contexts])
    return Context(cache, join("position"), join("step"), join("span"), join("hidden"))


@torch.inference_mode()
def read_documents(
    model: UnifiedModel, tokenizer: Tokenizer, documents: list[Document], room: int = 64
) -> Context:
    """Read documents up to where the assistant is to go on.

    room  positions to allocate beyond the longest document
    """
    sequences = [
        layout(d, tokenizer, model.path, model.multiple, open_turn=True, vision=model.vision_grid)
        for d in documents
    ]
    rows, width = len(sequences), max(map(len, sequences))
    device = model.device
    ids, position, marks, images, features = side_by_side(model, sequences)
    cache = model.new_cache(rows, width + room)
    hidden = model.read(cache, ids, position, marks, images, features)
    lengths = torch.tensor([len(sequence) for sequence in sequences], device=device)
    return Context(
        cache,
        torch.tensor([s.next_position for s in sequences], device=device),
        torch.tensor([s.next_step for s in sequences], device=device),
        torch.tensor([int(s.span.max()) + 1 for s in sequences], device=device),
        hidden[torch.arange(rows, device=device), lengths - 1],
    )


def side_by_side(
    model: UnifiedModel, sequences: list[Sequence]
) -> tuple[Tensor, Tensor, Marks, list[Spans], list[Spans]]:
    """Sequences as rows of one batch, padded at the ends: ids, position, marks, images and features
    of `model.read`."""
    rows, width = len(sequences), max(map(len, sequences))
    device = model.device

    def padded(name: str, fill: int) -> Tensor:
        first = getattr(sequences[0], name)
        out = np.full((rows, width, *first.shape[1:]), fill, dtype=first.dtype)
        for row, sequence in enumerate(sequences):
            out[row, : len(sequence)] = getattr(sequence, name)
        return torch.from_numpy(out).to(device)

    document = torch.full((rows, width), PADDING, device=device)
    for row, sequence in enumerate(sequences):
        document[row, : len(sequence)] = 0
    marks = Marks(document, padded("step", 0), padded("span", 0), padded("hidden", False))
    latents = model.encode([picture for sequence in sequences for picture in sequence.pixels])
    images, features, start = [], [], 0
    for sequence in sequences:
        read = [span for span in sequence.images if span.kind == "clean"]
        images.append([(span.start, latents[start + span.image]) for span in read])
        start += len(sequence.pixels)
        features.append(_features(model, sequence))
    return padded("ids", 0), padded("position", 0), marks, images, features


def _features(model: UnifiedModel, sequence: Sequence) -> list[tuple[int, Tensor]]:
    """What the vision tower tells of a sequence's pictures, and where it stands."""
    looked_at = [span for span in sequence.images if span.kind == "vision"]
    if not looked_at:
        return []
    told = model.tower([sequence.pixels[span.image] for span in looked_at])
    return [(span.start, features) for span, features in zip(looked_at, told)]


@torch.inference_mode()
def read_text(model: UnifiedModel, context: Context, ids: Tensor, counts: Tensor) -> None:
    """Read the first `counts` (B,) of text tokens (B, n) into each row; a row of none stays as it is."""
    ahead = torch.arange(ids.shape[1], device=ids.device)
    inside = ahead < counts[:, None]
    zero = torch.zeros_like(ids)
    marks = Marks(
        torch.where(inside, zero, zero + PADDING),
        context.step[:, None] + ahead,
        context.span[:, None] + zero,
        torch.zeros_like(inside),
    )
    position = (context.position[:, None] + ahead)[..., None].expand(-1, -1, 3)
    hidden = model.read(context.cache, ids, position, marks)
    last = hidden[torch.arange(context.rows, device=ids.device), (counts - 1).clamp_min(0)]
    context.hidden = torch.where((counts > 0)[:, None], last, context.hidden)
    context.position = context.position + counts
    context.step = context.step + counts


def read_tokens(model: UnifiedModel, context: Context, ids: Tensor, active: Tensor) -> None:
    """Read one more text token (B,) into the rows that are `active` (B,) bool."""
    read_text(model, context, ids[:, None], active.long())


def read_size(
    model: UnifiedModel, tokenizer: Tokenizer, context: Context, grid: Grid, active: Tensor
) -> None:
    """Read what the path has said before a picture of `grid`, if anything, into the `active` rows."""
    said = tokenizer.encode(model.path.target_layout(grid).said)
    if said:
        ids = torch.tensor(said, device=active.device).expand(context.rows, -1)
        read_text(model, context, ids, active * len(said))


def start_image(model: UnifiedModel, tokenizer: Tokenizer, context: Context, grid: Grid) -> None:
    """Read all that stands before a picture of `grid`, so that one can be drawn in every row."""
    everyone = torch.ones(context.rows, dtype=torch.bool, device=context.position.device)
    read_tokens(model, context, everyone * tokenizer.image_start, everyone)
    read_size(model, tokenizer, context, grid, everyone)


@torch.inference_mode()
def read_images(model: UnifiedModel, context: Context, latents: Tensor, grid: Grid, active: Tensor) -> None:
    """Read one finished image (B, P, C) of `grid` into the rows that are `active`."""
    rows, positions = latents.shape[:2]
    position, marks = image_place(context, grid, clean_layout(grid))
    off = torch.full_like(marks.document, PADDING)
    marks = Marks(torch.where(active[:, None], marks.document, off), marks.step, marks.span, marks.hidden)
    ids = torch.zeros(rows, positions, dtype=torch.long, device=latents.device)
    hidden = model.read(context.cache, ids, position, marks, [[(0, row)] for row in latents])
    context.hidden = torch.where(active[:, None], hidden[:, -1], context.hidden)
    context.position = context.position + max(grid) * active
    context.step = context.step + active
    context.span = context.span + 2 * active


def image_place(context: Context, grid: Grid, target: TargetLayout) -> tuple[Tensor, Marks]:
    """RoPE positions (B, P, 3) and marks (B, P) of an image that comes next in every row."""
    device = context.position.device
    position = context.position[:, None, None] + torch.from_numpy(target.offsets(grid)).to(device)
    steps = torch.from_numpy(target.steps).to(device)
    flat = torch.zeros(context.rows, len(steps), dtype=torch.long, device=device)
    marks = Marks(flat, context.step[:, None] + steps, flat + context.span[:, None] + 1, flat.bool())
    return position, marks
