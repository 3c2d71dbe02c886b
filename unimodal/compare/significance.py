"""Whether two entrants differ on shared prompts, and what several training seeds say together.

Prompts and seeds are shared, so judgements pair up by prompt.  Training seeds
are judged on the same prompts, so what two of them say of one prompt is no two facts: a prompt counts once,
with its share of right over the seeds.  S seeds, n prompts.
"""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from unimodal.compare.entrant import TASKS
from unimodal.evaluation.scores import Score, mean_of, wilson

Cases = Mapping[str, Sequence[bool]]  # by score, right or not, in the order of the prompts
ROUNDS = 2000
K = TypeVar("K")


def pooled(results: Sequence[dict]) -> dict[str, Score]:
    """Scores of one entrant over its training seeds.

    Shares are taken over all judgements of all seeds (see `clustered`); a mean of kinds over such shares.
    Of measured values (decibels) value and ends of the interval are the means of the seeds': these are of the
    same pictures, so that more seeds make no narrower interval.
    """
    scores: dict[str, Score] = {}
    for name in results[0]["scores"]:
        if name in results[0]["cases"]:
            scores[name] = clustered(np.array([result["cases"][name] for result in results], bool))
    for task in (task for task in TASKS if any(name.startswith(f"{task}/") for name in scores)):
        whole = "edit/followed" if task == "edit" else f"{task}/mean"
        scores[whole] = mean_of([score for name, score in scores.items() if name.split("/")[0] == task])
    for name in results[0]["scores"]:
        if name not in scores:
            found = [Score(**result["scores"][name]) for result in results]
            value, low, high = np.mean([(one.value, one.low, one.high) for one in found], axis=0).tolist()
            scores[name] = Score(value, low, high, found[0].n)
    return scores


def clustered(rights: np.ndarray) -> Score:
    """The share that is right, bool (S, n), with Wilson's interval for as many judgements as it is worth.

    That is p (1 - p) over the variance of the prompts' means (Kish's effective sample size): all of them if
    seeds agree no more than chance has it, one a prompt if they always agree, or all are right or wrong.
    """
    means = rights.mean(0)
    p, prompts = float(rights.mean()), len(means)
    worth = float(prompts)
    if prompts > 1 and (spread := float(means.var(ddof=1)) / prompts):
        worth = min(max(p * (1 - p) / spread, worth), float(rights.size))
    elif 0 < p < 1 and prompts > 1:  # every prompt is right as often
        worth = float(rights.size)
    return Score(p, *wilson(p, worth), rights.size)


def of_task(cases: Cases, task: str) -> np.ndarray:
    """All judgements of a task, bool (n,)."""
    found = [np.asarray(rights, bool) for name, rights in cases.items() if name.split("/")[0] == task]
    return np.concatenate(found) if found else np.zeros(0, bool)


def paired_p(one: np.ndarray, other: np.ndarray) -> float:
    """Two-sided exact p that two entrants do as well, from their judgements, bool (S, n) and (S', n).

    If they did, every prompt's difference could as well be the other way round; p is the share of all 2^n
    ways to turn them whose sum is as far from 0 (Fisher 1935).  With one seed it is McNemar's test (1947).
    """
    gaps = one.sum(0) * len(other) - other.sum(0) * len(one)  # of the prompts, times S S'
    reach = int(np.abs(gaps).sum())
    chance = np.zeros(2 * reach + 1)  # of the sums from -reach to reach
    chance[reach] = 1.0
    for gap in np.abs(gaps[gaps != 0]).tolist():
        chance = (np.roll(chance, gap) + np.roll(chance, -gap)) / 2
    far = np.abs(np.arange(-reach, reach + 1)) >= abs(int(gaps.sum()))
    return float(min(1.0, chance[far].sum()))


def difference(one: np.ndarray, other: np.ndarray) -> Score:
    """Share of `one` (S, n) less that of `other` (S', n), interval by bootstrap over prompts (fixed seed)."""
    gaps = one.mean(0) - other.mean(0)
    drawn = np.random.default_rng(0).integers(0, len(gaps), (ROUNDS, len(gaps)))
    low, high = np.percentile(gaps[drawn].mean(-1), (2.5, 97.5))
    return Score(float(gaps.mean()), float(low), float(high), len(gaps))


def holm(p_values: Mapping[K, float]) -> dict[K, float]:
    """p values corrected for as many tests (Holm 1979), in the order given."""
    ordered = sorted(p_values, key=p_values.__getitem__)
    corrected, worst = {}, 0.0
    for rank, name in enumerate(ordered):
        worst = max(worst, min(1.0, (len(ordered) - rank) * p_values[name]))
        corrected[name] = worst
    return {name: corrected[name] for name in p_values}
