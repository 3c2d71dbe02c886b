"""Pack: many sequences side by side in one fixed token budget.

Documents are never split, so an image is never cut.  The packer looks a window ahead and takes the rows in
order, each if it still fits (first fit), which fills packs to more than 95 %.  What it holds back is
described by row numbers alone, so a checkpoint can continue the stream exactly.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from unimodal.errors import UserError
from unimodal.sequence.layout import Sequence
from unimodal.sequence.mask import PADDING, Marks
from unimodal.sequence.spans import ImageSpan, TextBlock
from unimodal.sequence.writer import NO_LABEL


@dataclass(slots=True)
class Pack:
    """Sequences in one row of T = `budget` positions (padding at the end).

    ids, labels  (1, T)
    marks        Marks of (1, T)
    position     (1, T, 3)
    images       spans with `start` in this pack and `image` into `pixels`
    blocks       hidden copies of text, with `start` in this pack
    sample_ids   id of every document
    lengths      positions of every document
    state        what a Packer needs to go on right after this pack
    """

    ids: Tensor
    labels: Tensor
    marks: Marks
    position: Tensor
    images: list[ImageSpan]
    pixels: list[np.ndarray]
    blocks: list[TextBlock]
    sample_ids: list[str]
    lengths: list[int]
    state: dict

    @property
    def tokens(self) -> int:
        """Used positions."""
        return sum(self.lengths)

    @property
    def rows(self) -> dict[str, int]:
        """Rows of the data that are in it."""
        return {"read": len(self.lengths)}

    @property
    def budget(self) -> int:
        """All positions, padding included."""
        return self.ids.shape[1]

    def to(self, device) -> "Pack":
        """Move the tensors to a device."""
        return replace(
            self,
            ids=self.ids.to(device),
            labels=self.labels.to(device),
            marks=self.marks.to(device),
            position=self.position.to(device),
        )


def pack_sequences(sequences: list[Sequence], budget: int | None = None, state: dict | None = None) -> Pack:
    """Put sequences side by side.  `budget` None means exactly as long as they are."""
    lengths = [len(s) for s in sequences]
    used = sum(lengths)
    budget = used if budget is None else budget
    if used > budget:
        raise UserError(f"{used} positions do not fit a budget of {budget}; raise data.tokens or pack fewer.")
    pad = budget - used

    def row(name: str, fill: int) -> Tensor:
        joined = np.concatenate([getattr(s, name) for s in sequences])
        width = ((0, pad),) + ((0, 0),) * (joined.ndim - 1)
        return torch.from_numpy(np.pad(joined, width, constant_values=fill))[None]

    document = np.repeat(np.arange(len(sequences)), lengths)
    document = torch.from_numpy(np.pad(document, (0, pad), constant_values=PADDING))[None]
    images, pixels, blocks = [], [], []
    for start, sequence in zip(np.cumsum([0, *lengths[:-1]]).tolist(), sequences):
        for span in sequence.images:
            before = None if span.before is None else span.before + len(pixels)
            images.append(
                replace(span, start=span.start + start, image=span.image + len(pixels), before=before)
            )
        pixels += sequence.pixels
        blocks += [replace(block, start=block.start + start) for block in sequence.blocks]
    return Pack(
        ids=row("ids", 0),
        labels=row("labels", NO_LABEL),
        marks=Marks(document, row("step", 0), row("span", 0), row("hidden", False)),
        position=row("position", 0),
        images=images,
        pixels=pixels,
        blocks=blocks,
        sample_ids=[s.id for s in sequences],
        lengths=lengths,
        state=state or {},
    )


class Packer:
    """Endless stream of packs from numbered rows.

    make(i)  lays out row i; called for `first`, `first + stride`, ... in order
    window   how many sequences to look ahead
    state    continue after the pack that carried it

    Raises UserError for a sequence longer than the budget, naming its row.
    """

    def __init__(
        self,
        make: Callable[[int], Sequence],
        budget: int,
        window: int = 64,
        first: int = 0,
        stride: int = 1,
        state: dict | None = None,
    ):
        self.make, self.budget, self.window, self.stride = make, budget, window, stride
        self.next_row = state["next_row"] if state else first
        self.waiting: dict[int, Sequence] = {}  # by row, in order
        for row in state["waiting"] if state else ():
            self._add(row)

    def __iter__(self) -> Iterator[Pack]:
        while True:
            yield self.next_pack()

    def next_pack(self) -> Pack:
        """Fill one pack: rows in their order, passing over those that no longer fit.

        Taking the longest first would fill as well, but then short documents wait, and a pack is no
        fair sample of the mixture.
        """
        while sum(map(len, self.waiting.values())) < 1.5 * self.budget or len(self.waiting) < self.window:
            self._add(self.next_row)
            self.next_row += self.stride
        room, chosen = self.budget, []
        for row, sequence in self.waiting.items():
            if len(sequence) <= room:
                chosen.append(row)
                room -= len(sequence)
        sequences = [self.waiting.pop(row) for row in chosen]
        return pack_sequences(
            sequences, self.budget, {"next_row": self.next_row, "waiting": list(self.waiting)}
        )

    def _add(self, row: int) -> None:
        self.waiting[row] = _within(self.make(row), self.budget)


def pack_in_order(sequences: Iterable[Sequence], budget: int) -> Iterator[Pack]:
    """All sequences, each once and in their order, in as few packs as that allows.

    Raises UserError for a sequence longer than the budget, naming its row.
    """
    chosen: list[Sequence] = []
    for sequence in sequences:
        if sum(map(len, chosen)) + len(_within(sequence, budget)) > budget:
            yield pack_sequences(chosen, budget)
            chosen = []
        chosen.append(sequence)
    if chosen:
        yield pack_sequences(chosen, budget)


def _within(sequence: Sequence, budget: int) -> Sequence:
    """The sequence, if it fits into a pack."""
    if len(sequence) > budget:
        raise UserError(
            f"{sequence.id}: {len(sequence)} positions do not fit the budget of {budget}. An image "
            "is never cut: raise data.tokens, use smaller pictures, or split the document."
        )
    return sequence
