"""Whether two entrants differ on shared prompts, and what several training seeds say together.

Prompts and the noise that pictures start from are shared, so judgements pair up: McNemar's exact test
(1947) asks whether those that only one of the two got right could be even by chance.
"""

from collections.abc import Mapping, Sequence
from math import comb

import numpy as np

from unimodal.evaluation.scores import Score, mean_of, share

Cases = Mapping[str, Sequence[bool]]  # by score, right or not, in the order of the prompts
ROUNDS = 2000


def pooled(results: Sequence[dict]) -> dict[str, Score]:
    """Scores of one entrant over its training seeds.

    Shares are taken over all judgements of all seeds; a mean of kinds over such shares; measured values
    (decibels) are the mean of the seeds' means.
    """
    scores: dict[str, Score] = {}
    for name in results[0]["scores"]:
        if name in results[0]["cases"]:
            scores[name] = share(right for result in results for right in result["cases"][name])
    for task in dict.fromkeys(name.split("/")[0] for name in scores):
        whole = "edit/followed" if task == "edit" else f"{task}/mean"
        scores[whole] = mean_of([score for name, score in scores.items() if name.split("/")[0] == task])
    for name in results[0]["scores"]:
        if name not in scores:
            scores[name] = mean_of([Score(**result["scores"][name]) for result in results])
    return scores


def of_task(cases: Cases, task: str) -> np.ndarray:
    """All judgements of a task, bool (n,)."""
    found = [np.asarray(rights, bool) for name, rights in cases.items() if name.split("/")[0] == task]
    return np.concatenate(found) if found else np.zeros(0, bool)


def mcnemar(one: np.ndarray, other: np.ndarray) -> float:
    """Two-sided exact p of paired judgements, bool (n,) each."""
    only_one, only_other = int((one & ~other).sum()), int((other & ~one).sum())
    n = only_one + only_other
    tail = sum(comb(n, k) for k in range(min(only_one, only_other) + 1))
    return min(1.0, 2 * tail / 2**n)


def difference(one: np.ndarray, other: np.ndarray) -> Score:
    """Share of `one` less that of `other`, with the interval of a bootstrap over the pairs (fixed seed)."""
    gaps = one.astype(float) - other.astype(float)
    drawn = np.random.default_rng(0).integers(0, len(gaps), (ROUNDS, len(gaps)))
    low, high = np.percentile(gaps[drawn].mean(-1), (2.5, 97.5))
    return Score(float(gaps.mean()), float(low), float(high), len(gaps))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """p values corrected for as many tests (Holm 1979), in the order given."""
    ordered = sorted(p_values, key=p_values.__getitem__)
    corrected, worst = {}, 0.0
    for rank, name in enumerate(ordered):
        worst = max(worst, min(1.0, (len(ordered) - rank) * p_values[name]))
        corrected[name] = worst
    return {name: corrected[name] for name in p_values}
