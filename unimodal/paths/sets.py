"""Pictures written in sets of positions: how many at a time, and which.

Iterative unmasking (Chang et al. 2022, MaskGIT) hides a random set of positions in training and fills in
one set after another while it draws.  A schedule says what share is still hidden after a share of the
forwards; the same function, of a uniform number, gives the shares that training hides.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Literal

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
EVALUATIONS = 10_000  # of a schedule, where there is no integral in closed form


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


def within(sets: list[int], sizes: Sequence[int]) -> list[int]:
    """Sets of so many positions, cut wherever one of the parts of `sizes` that they fill in order ends."""
    ends = sorted({*np.cumsum(sets).tolist(), *np.cumsum(sizes).tolist()})
    return [after - before for before, after in pairwise([0, *ends])]


def cut(schedule: str, total: int, forwards: int, sizes: Sequence[int]) -> list[int]:
    """`counts` of `total` positions, none across two of the parts of `sizes`, in so many forwards.

    At least one a part, at most one a position.  Where a set ends with a part anyway, the largest is halved.
    """
    sets = within(counts(schedule, total, max(forwards - len(sizes) + 1, 1)), sizes)
    while len(sets) < min(forwards, total):
        at = sets.index(max(sets))
        sets[at : at + 1] = [sets[at] // 2, sets[at] - sets[at] // 2]
    return sets


def random_set(
    positions: int, share: float, generator: torch.Generator, parts: Tensor | None = None
) -> Tensor:
    """A random set of share x positions, rounded up and at least one: (positions,) bool.

    parts  (positions,) number of the part that each is of: those of later parts are taken first
    """
    chosen = torch.zeros(positions, dtype=torch.bool, device=generator.device)
    count = min(max(math.ceil(share * positions), 1), positions)
    order = torch.randperm(positions, generator=generator, device=generator.device)
    if parts is not None:
        order = order[parts.to(order.device)[order].argsort(descending=True, stable=True)]
    chosen[order[:count]] = True
    return chosen


@lru_cache(maxsize=64)
def mean_asked(schedule: str, sizes: tuple[int, ...]) -> float:
    """The mean share of positions that training asks for: the hidden ones of the first part with any.

    sizes  of the parts that are filled in one after the other; all hidden positions if there is one part
    """
    if len(sizes) == 1:
        return MEAN_SHARE[schedule]
    total, later = sum(sizes), np.cumsum([0, *sizes[:0:-1]])  # positions behind each part, the last first
    shares = np.array([SCHEDULES[schedule]((at + 0.5) / EVALUATIONS) for at in range(EVALUATIONS)])
    hidden = np.ceil(shares * total).clip(1, total)
    behind = later[np.searchsorted(later, hidden, side="left") - 1]
    return float((hidden - behind).mean() / total)


def random_orders(generators: list[torch.Generator], positions: int) -> Tensor:
    """An order of all positions for each row, from its own generator: (B, positions)."""
    return torch.stack([torch.randperm(positions, generator=generator) for generator in generators])


def order_of(
    kind: Literal["halton", "random"], maps: list[Cells], apart: bool, generators: list[torch.Generator]
) -> Tensor:
    """An order of the codes of maps (rows, columns) for each row of a batch: (B, codes).

    kind   `halton`, the same for all rows, or `random`, from each row's own generator
    apart  whether the maps come one after the other, each in an order of its own
    """
    groups = [(cells,) for cells in maps] if apart else [tuple(maps)]
    sizes = [sum(rows * columns for rows, columns in group) for group in groups]
    if kind == "random":
        orders = [random_orders(generators, size) for size in sizes]
    else:
        orders = [torch.tensor(halton_order(group)).expand(len(generators), -1) for group in groups]
    starts = np.cumsum([0, *sizes[:-1]]).tolist()
    return torch.cat([order + start for order, start in zip(orders, starts)], dim=1)


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
