"""All results of a comparison as one value, which is also what results.json holds."""

from collections.abc import Sequence
from statistics import mean
from typing import Any

import numpy as np

from unimodal.compare.entrant import TASKS, WORDS
from unimodal.compare.plan import Comparison
from unimodal.compare.significance import difference, holm, mcnemar, of_task, pooled

MEASURED = (
    *("flops_per_picture", "forwards_per_picture"),
    *("seconds_per_picture", "seconds_per_picture_of_16", "memory_gb"),
)


def results_of(
    comparison: Comparison,
    budget: str,
    results: dict[str, list[dict]],
    failures: dict[str, str],
    readers: dict[str, dict],
) -> dict[str, Any]:
    """Results by entrant, in the comparison's order.

    results   by entrant, what its seeds gave (see `entrant.judge_job`)
    failures  by entrant, why it has none
    readers   by entrant, the result of the model whose understanding it must not lose
    """
    entrants = []
    for entrant in comparison.entrants:
        told = {"name": entrant.name, "family": entrant.family}
        if entrant.name in results:
            told |= _summary(results[entrant.name], readers.get(entrant.name))
            told["reader"] = entrant.reader or comparison.reader
        else:
            told["failed"] = failures[entrant.name]
        entrants.append(told)
    done = [entrant.name for entrant in comparison.entrants if entrant.name in results]
    return {
        "title": comparison.title,
        "budget": {"name": budget, "equal": comparison.equal, **comparison.budgets[budget].model_dump()},
        "split": comparison.split,
        "codecs": comparison.codecs,
        "reader": comparison.reader,
        "entrants": entrants,
        "pairs": _pairs(done, results) if len(done) > 1 else [],
    }


def _summary(results: Sequence[dict], reader: dict | None) -> dict[str, Any]:
    """One entrant: pooled scores, costs (means over seeds), and its change of understanding."""
    told: dict[str, Any] = {
        "scores": {name: score.as_dict() for name, score in pooled(results).items()},
        "params": results[0]["params"],
        "parts": results[0].get("parts", {}),
        "training": {
            key: _mean([result["training"][key] for result in results]) for key in results[0]["training"]
        },
        "condition_cache": _mean([result.get("condition_cache") for result in results]),
        "seeds": [
            {"seed": r["seed"], "scores": {k: v["value"] for k, v in r["scores"].items()}} for r in results
        ],
    }
    told |= {key: mean(result[key] for result in results) for key in MEASURED if key in results[0]}
    told["understanding_change"] = _change(results, reader) if reader else None
    return told


def _mean(values: list[Any]) -> Any:
    """The mean of numbers, or of each entry of dictionaries; None if there is nothing to average."""
    if values[0] is None:
        return None
    if isinstance(values[0], dict):
        return {key: _mean([value[key] for value in values]) for key in values[0]}
    return mean(values)


def _words(cases: dict[str, list[bool]]) -> np.ndarray:
    return np.concatenate([of_task(cases, task) for task in WORDS])


def _change(results: Sequence[dict], reader: dict) -> dict[str, float]:
    """Share of questions and texts right now, less the reader's, on the same prompts."""
    before = np.tile(_words(reader["cases"]), len(results))
    after = np.concatenate([_words(result["cases"]) for result in results])
    return difference(after, before).as_dict()


def _pairs(names: list[str], results: dict[str, list[dict]]) -> list[dict[str, Any]]:
    """Each other entrant against the first, task by task, on shared prompts; seeds pair up in order."""
    first, *others = names
    pairs = []
    for task in TASKS:
        found = {name: _paired(results[name], results[first], task) for name in others}
        found = {name: pair for name, pair in found.items() if len(pair[0])}
        corrected = holm({name: mcnemar(*pair) for name, pair in found.items()})
        for name, pair in found.items():
            told = {"task": task, "name": name, "against": first, "difference": difference(*pair).as_dict()}
            pairs.append(told | {"p": mcnemar(*pair), "p_holm": corrected[name]})
    return pairs


def _paired(one: Sequence[dict], other: Sequence[dict], task: str) -> tuple[np.ndarray, np.ndarray]:
    both = list(zip(one, other))
    return tuple(np.concatenate([of_task(pair[k]["cases"], task) for pair in both]) for k in (0, 1))
