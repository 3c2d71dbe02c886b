"""The rows suite: held-out rows of a folder that a builder of real data wrote, judged by their truth.

Drawings are compared with the true pictures of all prompts, edits inside and outside of their exact masks,
answers with the right one, worked sums by their last number; plain text is measured by how many bits the
model needs for a character of it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from unimodal.errors import UserError
from unimodal.evaluation.emoji import Example, read_examples
from unimodal.evaluation.report import Case
from unimodal.evaluation.row_judges import (
    Found,
    decoder_of,
    edit_scores,
    judge_answers,
    judge_drawings,
    judge_edits,
    judge_sums,
    judge_texts,
)
from unimodal.evaluation.scores import Score

SPLITS = ("val", "train")


@dataclass(frozen=True)
class Judge:
    """How rows of a kind are judged, and what that takes.

    truth     what the truth beside a row has to tell; rows without it are left to another suite
    writes    the model has to write texts
    measures  the model has to be a decoder of this toolkit, which says how probable a text is
    several   the rows have to be about more than one picture, since they are compared with each other's
    """

    judge: Callable[[Any, Path, str, list[Example], int], Found]
    truth: str = "kind"
    writes: bool = True
    measures: bool = False
    several: bool = False

    def fits(self, model: Any, truth: dict) -> bool:
        """Whether the model can be judged by it, and the row."""
        able = getattr(model, "writes", True) or not self.writes
        return able and self.truth in truth and (not self.measures or decoder_of(model) is not None)


JUDGES = {
    "t2i": Judge(judge_drawings, writes=False, several=True),
    "edit": Judge(judge_edits, "mask", writes=False),
    "vqa": Judge(judge_answers, "answer"),
    "text/nlvr": Judge(judge_answers, "answer"),
    "text/gsm8k": Judge(judge_sums, "answer"),
    "text/plain": Judge(judge_texts, measures=True),
}


def judge_rows(
    model: Any, data: Path | None, split: str, n: int, seed: int, tick: Callable[[int, int], None]
) -> tuple[dict[str, Score], list[Case], dict[str, int]]:
    """Scores and cases of `n` rows of every kind, and how many rows there are of kinds not judged.

    A model without a language model is judged by what it draws alone, and plain text asks for a decoder of
    this toolkit.

    data  the folder that `unimodal data make` wrote
    tick  told (kinds done, kinds in all)
    Raises UserError if the split is unknown, the folder is no such folder, or a kind shows one picture where
    several are needed.
    """
    if split not in SPLITS:
        raise UserError(f"rows: split {split!r}; expected {' or '.join(SPLITS)} (val: held out)")
    if data is None:
        raise UserError("the rows suite needs --data: the folder that `unimodal data make` wrote")
    found = read_examples(Path(data), split, "emoji, tiles, nlvr, gsm8k or plain")
    scores: dict[str, Score] = {}
    cases: list[Case] = []
    left: dict[str, int] = {}
    to_do: list[tuple[Judge, str, list[Example]]] = []
    for kind, some in found.items():
        judge = JUDGES.get(kind) or JUDGES.get(kind.split("/")[0])
        if judge is None or not judge.fits(model, some[0][1]):
            left[kind] = len(some)
            continue
        chosen = Random(f"rows/{seed}/{kind}").sample(some, min(n, len(some)))
        if judge.several and len({row["images"][0] for row, _ in chosen}) < 2:
            raise UserError(f"rows: {kind}: one picture; expected several, to tell drawings apart. Raise --n")
        to_do.append((judge, kind, chosen))
    for k, (judge, kind, chosen) in enumerate(to_do):
        more, shown = judge.judge(model, Path(data), kind, chosen, seed)
        scores |= more
        cases += shown
        tick(k + 1, len(to_do))
    edits = [case for case in cases if case.name.startswith("edit/")]
    if len({case.name for case in edits}) > 1:
        scores |= edit_scores("edit/", edits)  # of all kinds, each with as many edits as were taken
    return scores, cases, left
