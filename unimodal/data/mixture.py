"""Weighted mixtures of sources, as a pure function of the row number.

Row numbers are cut into blocks; in each block every source gets its exact quota, in an order drawn from
(seed, block).  So how often a source was drawn before any number is closed-form, and a mixture has no state
but the next number: resuming costs nothing and ranks need not talk.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import TypeVar

import numpy as np

from unimodal.data.document import Document
from unimodal.data.pictures import MAX_PIXELS
from unimodal.data.rows import parse_row
from unimodal.data.source import Source
from unimodal.errors import UserError

BLOCK = 1000
USELESS = 1000  # rows in a row after which a mixture counts as having none of use
T = TypeVar("T")


class Mixture:
    """Documents of several sources by weight; rank r of W reads the numbers r, r + W, r + 2 W, ...

    sources  what to draw from
    weights  one positive number a source; their ratio counts, to one part in BLOCK
    first    the document that is called the 0th
    Finite sources are walked in a fresh seeded order each epoch, nothing repeated or left out within one;
    endless ones by number.  Raises UserError if weights and sources do not go together.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        weights: Sequence[float],
        seed: int,
        rank: int = 0,
        world: int = 1,
        max_pixels: int = MAX_PIXELS,
        first: int = 0,
    ):
        if not sources or len(sources) != len(weights):
            raise UserError(
                f"the mixture has {len(sources)} sources and {len(weights)} weights; expected one each."
            )
        if not all(0 < weight < float("inf") for weight in weights):
            raise UserError(
                f"mixture weights {list(weights)}: each must be positive. Remove unwanted sources."
            )
        if not 0 <= rank < world:
            raise UserError(f"rank {rank} is not one of {world} ranks.")
        self.sources, self.seed, self.rank, self.world = list(sources), seed, rank, world
        self.max_pixels, self.first = max_pixels, first
        self.quotas = quotas(weights)
        self.block = int(self.quotas.sum())
        self._plan = lru_cache(maxsize=4)(self._make_plan)
        self._orders: dict[int, tuple[int, np.ndarray]] = {}

    def _random(self, *name: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=name))

    def _make_plan(self, block: int) -> tuple[list[int], list[int]]:
        """For each number of a block: its source, and how many of that source come before it in the block."""
        chosen = np.repeat(np.arange(len(self.sources)), self.quotas)
        self._random(0, block).shuffle(chosen)
        before = np.empty(self.block, np.int64)
        for k in range(len(self.sources)):
            mine = chosen == k
            before[mine] = np.arange(mine.sum())
        return chosen.tolist(), before.tolist()

    def draw(self, i: int) -> tuple[int, int]:
        """`(source, row of that source)` of this rank's i-th document."""
        block, offset = divmod((self.first + i) * self.world + self.rank, self.block)
        chosen, before = self._plan(block)
        k = chosen[offset]
        count = block * int(self.quotas[k]) + before[offset]
        length = self.sources[k].length
        if length is None:
            return k, count
        epoch, place = divmod(count, length)
        if self._orders.get(k, (-1, None))[0] != epoch:
            self._orders[k] = epoch, self._random(1, k, epoch).permutation(length)
        return k, int(self._orders[k][1][place])

    def document(self, i: int) -> Document:
        """This rank's i-th document: a pure function of (sources, weights, seed, rank, world, i)."""
        k, number = self.draw(i)
        where, row = self.sources[k].row(number)
        root = getattr(self.sources[k], "image_root", None)
        return parse_row(row, where, image_root=root, max_pixels=self.max_pixels)


def quotas(weights: Sequence[float]) -> np.ndarray:
    """Rows of each source in a block: largest remainders, at least one each; int64, one a weight."""
    block = max(BLOCK, 10 * len(weights))
    share = np.asarray(weights, np.float64) / sum(weights) * block
    rows = np.maximum(np.floor(share + 1e-9).astype(np.int64), 1)
    for k in np.argsort(-(share - rows), kind="stable")[: max(0, block - int(rows.sum()))]:
        rows[k] += 1
    return rows


def rows_of_use(
    find: Callable[[int], T | None], start: int, stride: int, lack: str
) -> Iterator[tuple[int, T]]:
    """Endless (number, what `find` makes of it) of start, start + stride, ... without those of no use.

    find  None for a row of no use;  lack  what such rows lack, for the error
    Raises UserError if USELESS rows in a row are of none: the mixture then seems to have no others.
    """
    useless, number = 0, start
    while True:
        found = find(number)
        useless = 0 if found is not None else useless + 1
        if useless == USELESS:
            raise UserError(f"data.sources: {useless} rows in a row {lack}")
        if found is not None:
            yield number, found
        number += stride
