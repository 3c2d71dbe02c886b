"""The emoji suite: edits and questions on families of emoji that training has no picture of.

An edit is measured by its mean absolute error (8-bit levels) against the true variant, inside the pixels that
the two variants differ in and outside of them, beside what copying the input would get.
"""

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from unimodal.errors import UserError
from unimodal.evaluation.report import Case
from unimodal.evaluation.scores import Score, average, mean_of, ratio, share
from unimodal.evaluation.shapes import ANSWER_TOKENS, BATCH, plain

EDITS = ("tone", "gender", "direction")
QUESTIONS = ("name", "group", "tone", "gender", "direction")
SPLITS = ("val", "train")
DIFFERENT = 8  # levels by which a pixel has to differ between variants to count as changed

Example = tuple[dict, dict]  # a row and its truth


def judge_emoji(
    model: Any, data: Path | None, split: str, n: int, seed: int, tick: Callable[[int, int], None]
) -> tuple[dict[str, Score], list[Case]]:
    """Scores and cases of `n` edits and questions of every kind.

    data   the folder that `unimodal data make emoji` wrote; None draws one from this machine's font
    tick   told (batches done, batches in all)
    Raises UserError if the split is unknown or the folder holds no emoji rows.
    """
    if split not in SPLITS:
        raise UserError(f"emoji: split {split!r}; expected {' or '.join(SPLITS)} (val: families held out)")
    if data is not None:
        return _judge(model, Path(data), split, n, seed, tick)
    from data_tools.emoji.build import make_emoji

    with TemporaryDirectory() as folder:
        made = Path(folder) / "emoji"
        make_emoji(made, size=getattr(getattr(model, "config", None), "image_size", None) or 64)
        return _judge(model, made, split, n, seed, tick)


def read_examples(data: Path, split: str, made: str = "emoji") -> dict[str, list[Example]]:
    """Rows with their truth by kind ("edit/tone", "vqa/name", ...), in the order of the file.

    made  what `unimodal data make` calls such folders, for the error if it is none
    """
    found: dict[str, list[Example]] = {}
    paths = [data / f"{split}.jsonl", data / f"{split}.truth.jsonl"]
    for path in paths:
        if not path.is_file():
            raise UserError(
                f"{path}: missing; expected the folder that `unimodal data make {made}` wrote with --out"
            )
    rows, truths = (path.read_text(encoding="utf-8").rstrip("\n").split("\n") for path in paths)
    if len(rows) != len(truths):
        raise UserError(f"{paths[1]}: {len(truths)} lines; expected {len(rows)}, one for each row")
    for row, truth in zip(map(json.loads, rows), map(json.loads, truths)):
        found.setdefault(truth["kind"], []).append((row, truth))
    return found


def _judge(
    model: Any, data: Path, split: str, n: int, seed: int, tick: Callable[[int, int], None]
) -> tuple[dict[str, Score], list[Case]]:
    found = read_examples(data, split)
    kinds = [f"edit/{name}" for name in EDITS] + [f"vqa/{name}" for name in QUESTIONS]
    batches = []
    for kind in kinds:
        some = found.get(kind, [])
        some = Random(f"emoji/{seed}/{kind}").sample(some, min(n, len(some)))
        batches += [(kind, some[start : start + BATCH]) for start in range(0, len(some), BATCH)]
    errors: dict[str, list[np.ndarray]] = {}
    cases: list[Case] = []
    for k, (kind, some) in enumerate(batches):
        if kind.startswith("edit/"):
            cases += _edits(model, data, kind, some, seed * 1000 + k, errors)
        else:
            cases += _answers(model, data, kind, some, seed)
        tick(k + 1, len(batches))
    return _edit_scores(errors) | _answer_scores(cases), cases


def _edit_scores(errors: dict[str, list[np.ndarray]]) -> dict[str, Score]:
    scores: dict[str, Score] = {}
    both = np.array([row for rows in errors.values() for row in rows])  # (n, 4)
    if not len(both):
        return scores
    names = ("error_inside", "error_inside_copy", "error_outside", "error_outside_copy")
    scores |= {f"edit/{name}": average(both[:, k]) for k, name in enumerate(names)}
    scores["edit/inside_to_copy"] = ratio(both[:, 0], both[:, 1])
    for kind, rows in errors.items():
        table = np.array(rows)
        scores[f"{kind}_inside_to_copy"] = ratio(table[:, 0], table[:, 1])
    return scores


def _answer_scores(cases: list[Case]) -> dict[str, Score]:
    asked = [case for case in cases if case.name.startswith("vqa/")]
    names = dict.fromkeys(case.name for case in asked)
    scores = {name: share(case.right for case in asked if case.name == name) for name in names}
    return scores | ({"vqa/mean": mean_of(list(scores.values()))} if scores else {})


def _open(data: Path, path: str) -> Image.Image:
    with Image.open(data / path) as picture:
        return picture.convert("RGB")


def edit_errors(before: np.ndarray, after: np.ndarray, got: np.ndarray) -> np.ndarray:
    """Mean absolute errors (4,): of `got` and of copying `before`, inside the change, then outside of it.

    All (H, W, 3) in 8-bit levels.
    """
    before, after, got = (picture.astype(np.float64) for picture in (before, after, got))
    inside = np.abs(before - after).max(-1) > DIFFERENT
    error, copied = np.abs(got - after).mean(-1), np.abs(before - after).mean(-1)
    return np.array([_mean(e[where]) for where in (inside, ~inside) for e in (error, copied)])


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else 0.0


def _edits(
    model: Any, data: Path, kind: str, some: list[Example], seed: int, errors: dict[str, list[np.ndarray]]
) -> list[Case]:
    befores, afters = ([_open(data, row["images"][k]) for row, _ in some] for k in (0, 1))
    told = [_words(row) for row, _ in some]
    cases = []
    for before, after, words, got in zip(befores, afters, told, model.edit(befores, told, seed=seed)):
        got = got.convert("RGB").resize(after.size)
        measured = edit_errors(*map(np.asarray, (before, after, got)))
        errors.setdefault(kind, []).append(measured)
        tiles = (
            (before, words),
            (got, f"error {measured[0]:.1f}, copied {measured[1]:.1f}"),
            (after, "right"),
        )
        cases.append(Case(kind, bool(measured[0] <= measured[1] / 2), tiles))
    return cases


def _answers(model: Any, data: Path, kind: str, some: list[Example], seed: int) -> list[Case]:
    shown = [_open(data, row["images"][0]) for row, _ in some]
    asked = [_words(row) for row, _ in some]
    said = model.answer(shown, asked, max_tokens=ANSWER_TOKENS, seed=seed)
    cases = []
    for (_, truth), picture, words, answer in zip(some, shown, asked, said):
        note = f"{words} {answer} [right: {truth['answer']}]"
        cases.append(Case(kind, plain(answer) == plain(truth["answer"]), ((picture, note),)))
    return cases


def _words(row: dict) -> str:
    """What the user says, without the mark of the picture."""
    return row["messages"][0]["content"].replace("<image>", "").strip()
