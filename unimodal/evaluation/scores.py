"""Scores with 95 % intervals: shares, of groups too, means of measured values, and means of kinds.

A score without its interval and count says nothing about the next run, so the three travel together.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from math import sqrt

import numpy as np

Z = 1.959964  # the normal law's 97.5 % point


@dataclass(frozen=True, slots=True)
class Score:
    """A value, its 95 % interval and the number of judgements behind it."""

    value: float
    low: float
    high: float
    n: int

    def as_dict(self) -> dict[str, float | int]:
        """For JSON."""
        return asdict(self)

    def told(self, name: str) -> tuple[str, str]:
        """The value and, "low to high", its interval as a table gives them, under the score's name.

        The interval is "" for what is counted and not estimated, such as parameters.
        """
        counted, digits = self.low == self.high, 1 if "psnr" in name or "error" in name else 3
        if self.n == 1 and self.value == round(self.value):
            digits = 0
        value, low, high = (f"{number:,.{digits}f}" for number in (self.value, self.low, self.high))
        return value, "" if counted else f"{low} to {high}"


def share(right: Iterable[bool]) -> Score:
    """The share that is right, with Wilson's interval (1927), which stays inside [0, 1] for all-right too.

    Raises ValueError for no judgements.
    """
    judged = [bool(one) for one in right]
    n = len(judged)
    if n == 0:
        raise ValueError("a share of no judgements")
    p = sum(judged) / n
    return Score(p, *wilson(p, n), n)


def wilson(p: float, n: float) -> tuple[float, float]:
    """Lower and upper bound of a share p of n judgements (Wilson 1927)."""
    centre = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))


def share_of_groups(right: Iterable[bool], groups: Iterable[Hashable]) -> Score:
    """The share that is right where judgements come in groups, as pictures of one statement do.

    Judgements of a group are not independent: the interval is a bootstrap over whole groups (fixed seed).
    Where all judgements agree that has no width; then it is Wilson's for one judgement a group.
    Raises ValueError for no judgements.
    """
    counts: dict[Hashable, list[int]] = {}
    for one, group in zip(right, groups, strict=True):
        rights_and_all = counts.setdefault(group, [0, 0])
        rights_and_all[0] += bool(one)
        rights_and_all[1] += 1
    if not counts:
        raise ValueError("a share of no judgements")
    rights, sizes = zip(*counts.values())
    n = sum(sizes)
    if sum(rights) in (0, n):
        return replace(share([sum(rights) > 0] * len(counts)), n=n)
    return replace(ratio(rights, sizes), n=n)


def average(values: Iterable[float]) -> Score:
    """The mean of measured values with the normal law's interval; of one value the interval is that value.

    Raises ValueError for no values.
    """
    measured = [float(value) for value in values]
    n = len(measured)
    if n == 0:
        raise ValueError("a mean of no values")
    mean = sum(measured) / n
    variance = sum((value - mean) ** 2 for value in measured) / (n - 1) if n > 1 else 0.0
    half = Z * sqrt(variance / n)
    return Score(mean, mean - half, mean + half, n)


def mean_of(scores: Sequence[Score]) -> Score:
    """The plain mean of independent scores, every kind counting the same.

    Its interval joins theirs by the recovery of variances (Zou and Donner 2008): distances from value to
    bound add in squares, so kinds that were all right do not pretend to be certain.
    """
    if not scores:
        raise ValueError("a mean of no scores")
    k = len(scores)
    value = sum(score.value for score in scores) / k
    below = sqrt(sum((score.value - score.low) ** 2 for score in scores)) / k
    above = sqrt(sum((score.high - score.value) ** 2 for score in scores)) / k
    return Score(value, value - below, value + above, sum(score.n for score in scores))


def ratio(above: Sequence[float], below: Sequence[float], rounds: int = 2000) -> Score:
    """Sum of `above` over sum of `below`, paired; the interval by bootstrap over the pairs (fixed seed).

    Raises ValueError for no pairs or if `below` sums to zero.
    """
    pairs = np.stack([np.asarray(above, float), np.asarray(below, float)])  # (2, n)
    n = pairs.shape[1]
    if n == 0 or pairs[1].sum() == 0:
        raise ValueError("a ratio of no values, or to nothing")
    drawn = np.random.default_rng(0).integers(0, n, (rounds, n))
    sums = pairs[:, drawn].sum(-1)  # (2, rounds)
    ratios = sums[0] / np.where(sums[1] == 0, np.nan, sums[1])
    low, high = np.nanpercentile(ratios, (2.5, 97.5))
    return Score(float(pairs[0].sum() / pairs[1].sum()), float(low), float(high), n)
