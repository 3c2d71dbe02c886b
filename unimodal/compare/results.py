"""All results of a comparison as one value, which is also what results.json holds."""

from collections.abc import Sequence
from statistics import mean
from typing import Any

import numpy as np

from unimodal.compare.entrant import TASKS, WORDS
from unimodal.compare.plan import Comparison
from unimodal.compare.significance import difference, holm, of_task, paired_p, pooled
from unimodal.errors import UserError

MEASURED = (
    *("flops_per_picture", "forwards_per_picture"),
    *("seconds_per_picture", "seconds_per_picture_of_16", "memory_gb"),
)


def results_of(
    comparison: Comparison,
    budget: str,
    results: dict[str, list[dict]],
    failures: dict[str, dict[int, str]],
    readers: dict[str, dict],
) -> dict[str, Any]:
    """Results by entrant, in the comparison's order.

    results   by entrant, what those of its seeds gave that finished (see `entrant.result_at`)
    failures  by entrant and seed, why it has none
    readers   by entrant, the result of the model whose understanding it must not lose
    """
    entrants = []
    for entrant in comparison.entrants:
        told = {"name": entrant.name, "family": entrant.family}
        failed = [{"seed": seed, "why": why} for seed, why in failures.get(entrant.name, {}).items()]
        if results.get(entrant.name):
            told |= _summary(results[entrant.name], readers.get(entrant.name))
            told["reader"] = entrant.reader or comparison.reader
            told["failed_seeds"] = failed
        else:
            told["failed"] = "; ".join(dict.fromkeys(one["why"] for one in failed))
        entrants.append(told)
    done = [entrant.name for entrant in comparison.entrants if results.get(entrant.name)]
    pairs = comparison.pairs or [(one, other) for k, other in enumerate(done) for one in done[:k]]
    return {
        "title": comparison.title,
        "budget": {"name": budget, "equal": comparison.equal, **comparison.budgets[budget].model_dump()},
        "split": comparison.split,
        "own_codecs": [entrant.name for entrant in comparison.entrants if entrant.codec == "own"],
        "reader": comparison.reader,
        "entrants": entrants,
        "pairs": _pairs([pair for pair in pairs if {*pair} <= {*done}], results),
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


def check_words(result: dict, reader: dict) -> None:
    """Raise UserError unless an external entrant said just what its reader says, question by question."""
    for name, before in reader["answers"].items():
        for number, (said, wanted) in enumerate(zip(result["answers"][name], before, strict=True)):
            if said != wanted:
                raise UserError(
                    f"its understanding changed, though an external model's words are its reader's: to "
                    f"prompt {number} of {name} it says {said!r}, the reader {wanted!r}. Look whether the "
                    "reader's weights or settings have changed since one of them was judged."
                )


def _seeds(results: Sequence[dict], *tasks: str) -> np.ndarray:
    """Judgements of tasks, bool (seeds, prompts)."""
    return np.stack([np.concatenate([of_task(r["cases"], task) for task in tasks]) for r in results])


def _change(results: Sequence[dict], reader: dict) -> dict[str, float]:
    """Share of questions and texts right now, less the reader's, on the same prompts."""
    return difference(_seeds(results, *WORDS), _seeds([reader], *WORDS)).as_dict()


def _pairs(pairs: Sequence[tuple[str, str]], results: dict[str, list[dict]]) -> list[dict[str, Any]]:
    """The second of each pair against its first, task by task, on shared prompts."""
    told = []
    for task in TASKS:
        judged = {name: _seeds(results[name], task) for pair in pairs for name in pair}
        found = {(one, other): (judged[other], judged[one]) for one, other in pairs if judged[one].size}
        p_values = {pair: paired_p(*both) for pair, both in found.items()}
        corrected = holm(p_values)
        for pair, both in found.items():
            gap = difference(*both).as_dict()
            told.append({"task": task, "name": pair[1], "against": pair[0], "difference": gap})
            told[-1] |= {"p": p_values[pair], "p_holm": corrected[pair]}
    return told
