"""Pictures written in sets of positions: how many at a time, and which.

Iterative unmasking (Chang et al. 2022, MaskGIT) hides a random set of positions in training and fills in
one set after another while it draws.  A schedule says what share is still hidden after a share of the
forwards; the same function, of a uniform number, gives the shares that training hides.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from unimodal.errors import UserError
from unimodal.images.quantizer import Cells

# Share still hidden after a share of the forwards; from 1 to 0.
SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": lambda done: math.cos(math.pi / 2 * done),
    "arccos": lambda done: math.acos(done) / (math.pi / 2),
    "linear": lambda done: 1 - done,
}
MEAN_SHARE = {"cosine": 2 / math.pi, "arccos": 2 / math.pi, "linear": 1 / 2}  # their integrals from 0 to 1


def counts(schedule: str, positions: int, forwards: int) -> list[int]:
    """How many positions each forward fills in: at least one, all together `positions`.

    There are `forwards` of them, or one a position if that is less.  Raises UserError if forwards < 1.
    """
    if forwards < 1:
        raise UserError(f"a picture takes at least 1 forward, not {forwards}")
    forwards = min(forwards, positions)
    hidden = [positions]
    for done in range(1, forwards + 1):
        share = SCHEDULES[schedule](done / forwards)
        hidden.append(max(min(int(share * positions), hidden[-1] - 1), forwards - done))
    return [before - after for before, after in pairwise(hidden)]


def random_set(positions: int, share: float, generator: torch.Generator) -> Tensor:
    """A random set of share x positions, rounded up and at least one: (positions,) bool."""
    chosen = torch.zeros(positions, dtype=torch.bool, device=generator.device)
    count = min(max(math.ceil(share * positions), 1), positions)
    chosen[torch.randperm(positions, generator=generator, device=generator.device)[:count]] = True
    return chosen


def random_orders(generators: list[torch.Generator], positions: int) -> Tensor:
    """An order of all positions for each row, from its own generator: (B, positions)."""
    return torch.stack([torch.randperm(positions, generator=generator) for generator in generators])


@lru_cache(maxsize=64)
def halton_order(maps: tuple[Cells, ...]) -> tuple[int, ...]:
    """An order of the codes of maps (rows, columns) that spreads evenly from the first on.

    Codes filled in together should tell little about each other, so they should stand far apart (Besnier
    et al. 2025).  The Halton sequence visits (row, column) in bases 2 and 3, and, where there are several
    maps, the map in base 5; each code takes its turn when it is first met.
    """
    sizes = [rows * columns for rows, columns in maps]
    starts = np.cumsum([0, *sizes[:-1]])
    sides = np.array(maps)
    length = 4 * sum(sizes)
    while True:
        points = np.arange(1, length + 1)
        number = _cell(points, 5, len(maps))
        row, column = _cell(points, 2, sides[number, 0]), _cell(points, 3, sides[number, 1])
        met, first = np.unique(starts[number] + row * sides[number, 1] + column, return_index=True)
        if len(met) == sum(sizes):
            return tuple(met[np.argsort(first)].tolist())
        length *= 2


def _cell(points: np.ndarray, base: int, cells: np.ndarray | int) -> np.ndarray:
    """Which of so many cells of [0, 1) each point of the Halton sequence of one base is in.

    A point is its number's digits mirrored at the point, kept as a fraction: floats miss cells' edges.
    """
    above, below = np.zeros_like(points), 1
    while points.any():
        above, below = above * base + points % base, below * base
        points = points // base
    return above * cells // below
