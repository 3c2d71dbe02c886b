"""The rows suite: held-out rows of a folder that a builder of real data wrote, judged by their truth.

Drawings are compared with the true pictures of all prompts, edits inside and outside of their exact masks,
answers with the right one, worked sums by their last number; plain text is measured by how many bits the
model needs for a character of it.
"""

from collections import Counter
from collections.abc import Callable
from math import log
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image

from unimodal.data.rows import parse_row
from unimodal.errors import UserError
from unimodal.evaluation.emoji import Example, read_examples
from unimodal.evaluation.likeness import likeness
from unimodal.evaluation.report import Case
from unimodal.evaluation.scores import Score, average, ratio, share, share_of_groups
from unimodal.evaluation.shapes import ANSWER_TOKENS, BATCH, plain, psnr
from unimodal.external.model import ExternalModel
from unimodal.model.unified import UnifiedModel
from unimodal.sequence.layout import layout
from unimodal.sequence.pack import pack_sequences
from unimodal.sequence.tokenizer import Tokenizer

SPLITS = ("val", "train")
WORKED_TOKENS = 400  # of a sum that is worked out in words
FINAL = "####"  # before the number in which such a sum ends
KEPT = 30.0  # decibels outside the mask, from which on what had to stay counts as kept

Found = tuple[dict[str, Score], list[Case]]


def judge_rows(
    model: Any, data: Path | None, split: str, n: int, seed: int, tick: Callable[[int, int], None]
) -> tuple[dict[str, Score], list[Case], dict[str, int]]:
    """Scores and cases of `n` rows of every kind, and how many rows there are of kinds not judged.

    A model without a language model is judged by what it draws alone, and plain text asks for a decoder of
    this toolkit.

    data  the folder that `unimodal data make` wrote
    tick  told (kinds done, kinds in all)
    Raises UserError if the split is unknown, or the folder is no such folder.
    """
    if split not in SPLITS:
        raise UserError(f"rows: split {split!r}; expected {' or '.join(SPLITS)} (val: held out)")
    if data is None:
        raise UserError("the rows suite needs --data: the folder that `unimodal data make` wrote")
    found = read_examples(Path(data), split, "emoji, tiles, nlvr, gsm8k or plain")
    judges = {
        "t2i": _drawings,
        "edit": _edits,
        "vqa": _answers,
        "text/nlvr": _answers,
        "text/gsm8k": _sums,
        "text/plain": _texts,
    }
    scores: dict[str, Score] = {}
    cases: list[Case] = []
    left: dict[str, int] = {}
    for k, (kind, some) in enumerate(found.items()):
        judge = judges.get(kind) or judges.get(kind.split("/")[0])
        mute = judge not in (_drawings, _edits) and not getattr(model, "writes", True)
        bare = NEEDS.get(judge, "kind") not in some[0][1]  # the emoji suite has a judge of its own for those
        if judge is None or bare or mute or (judge is _texts and _decoder(model) is None):
            left[kind] = len(some)
        else:
            chosen = Random(f"rows/{seed}/{kind}").sample(some, min(n, len(some)))
            more, shown = judge(model, Path(data), kind, chosen, seed)
            scores |= more
            cases += shown
        tick(k + 1, len(found))
    return scores, cases, left


def _batches(some: list[Example]) -> list[list[Example]]:
    return [some[start : start + BATCH] for start in range(0, len(some), BATCH)]


def _words(row: dict) -> str:
    """What the user says, without the mark of the picture."""
    return row["messages"][0]["content"].replace("<image>", "").strip()


def _open(path: Path, mode: str = "RGB") -> Image.Image:
    with Image.open(path) as picture:
        return picture.convert(mode)


def _drawings(model: Any, data: Path, kind: str, some: list[Example], seed: int) -> Found:
    drawn, told, true = [], [], []
    for k, batch in enumerate(_batches(some)):
        words = [_words(row) for row, _ in batch]
        told += words
        drawn += model.generate(words, seed=seed * 1000 + k)
        true += [_open(data / row["images"][0]) for row, _ in batch]
    names = [row["images"][0] for row, _ in some]
    if len(set(names)) < 2:
        raise UserError(f"rows: {kind}: one picture; expected several, to tell drawings apart. Raise --n")
    nearer, nearest = likeness(drawn, true, names)
    cases = [
        Case(kind, bool(first), ((got, f"{words} (nearer than {of:.0%})"), (right, "right")))
        for got, right, words, of, first in zip(drawn, true, told, nearer, nearest)
    ]
    return {f"{kind}_nearer": average(nearer), f"{kind}_nearest": share(nearest)}, cases


def mask_errors(
    before: np.ndarray, after: np.ndarray, got: np.ndarray, mask: np.ndarray
) -> tuple[float, float, float]:
    """Mean absolute error inside the mask, that of copying `before`, and PSNR outside of it in decibels.

    Pictures (H, W, 3) in 8-bit levels, mask (H, W) bool with something inside and outside.
    """
    before, after, got = (picture.astype(np.float64) for picture in (before, after, got))
    inside = np.abs(got - after)[mask].mean()
    return inside, np.abs(before - after)[mask].mean(), psnr(np.square(got - after)[~mask].mean())


def _edits(model: Any, data: Path, kind: str, some: list[Example], seed: int) -> Found:
    table, cases = [], []
    for k, batch in enumerate(_batches(some)):
        befores, afters = ([_open(data / row["images"][i]) for row, _ in batch] for i in (0, 1))
        told = [_words(row) for row, _ in batch]
        drawn = model.edit(befores, told, seed=seed * 1000 + k)
        for (_, truth), before, after, words, got in zip(batch, befores, afters, told, drawn):
            got = got.convert("RGB").resize(after.size)
            mask = np.asarray(_open(data / truth["mask"], "L")) > 127
            inside, copied, outside = mask_errors(*map(np.asarray, (before, after, got)), mask)
            table.append((inside, copied, outside))
            note = f"{inside / copied:.2f} of a copy's error, {outside:.0f} dB outside"
            right = bool(inside <= copied / 2 and outside >= KEPT)
            cases.append(Case(kind, right, ((before, words), (got, note), (after, "right"))))
    columns = np.array(table)
    scores = {
        f"{kind}_inside_to_copy": ratio(columns[:, 0], columns[:, 1]),
        f"{kind}_psnr_outside": average(columns[:, 2]),
    }
    return {kind: share(case.right for case in cases)} | scores, cases


def _answers(model: Any, data: Path, kind: str, some: list[Example], seed: int) -> Found:
    cases = []
    for batch in _batches(some):
        shown = [_open(data / row["images"][0]) if row.get("images") else None for row, _ in batch]
        asked = [_words(row) for row, _ in batch]
        said = model.answer(shown, asked, max_tokens=ANSWER_TOKENS, seed=seed)
        for (_, truth), picture, words, answer in zip(batch, shown, asked, said):
            note = f"{words} {answer} [right: {truth['answer']}]"
            tiles = ((picture, note),) if picture else ()
            cases.append(Case(kind, plain(answer) == plain(truth["answer"]), tiles, answer))
    answers = [plain(truth["answer"]) for _, truth in some]
    commonest = Counter(answers).most_common(1)[0][0]
    guess = [answer == commonest for answer in answers]  # what always saying the same would get
    # Pictures of one statement are held out together, and are right or wrong together.
    groups = [truth.get("statement", number) for number, (_, truth) in enumerate(some)]
    right = [case.right for case in cases]
    return {kind: share_of_groups(right, groups), f"{kind}_majority": share_of_groups(guess, groups)}, cases


def _sums(model: Any, data: Path, kind: str, some: list[Example], seed: int) -> Found:
    cases = []
    for batch in _batches(some):
        asked = [{"messages": row["messages"][:1]} for row, _ in batch]
        replies = model.chat_batch(asked, max_tokens=WORKED_TOKENS, temperature=0.0, seed=seed)
        for (_, truth), reply in zip(batch, replies):
            _, mark, final = reply.text.rpartition(FINAL)
            cases.append(Case(kind, bool(mark) and plain(final) == plain(truth["answer"])))
    return {kind: share(case.right for case in cases)}, cases


def _decoder(model: Any) -> tuple[UnifiedModel, Tokenizer] | None:
    """What says how probable a text is: the model, or an external one's reader if that is of this toolkit."""
    inner, tokenizer = model.model, model.tokenizer
    if isinstance(inner, ExternalModel):
        inner, tokenizer = getattr(inner.reader, "model", None), getattr(inner.reader, "tokenizer", None)
    return (inner, tokenizer) if isinstance(inner, UnifiedModel) else None


@torch.inference_mode()
def _texts(model: Any, data: Path, kind: str, some: list[Example], seed: int) -> Found:
    """Cross-entropy of a row, its end included, over the characters of all rows."""
    (inner, tokenizer), bits, characters = _decoder(model), [], []
    for row, _ in some:
        document = parse_row(row, str(data))
        sequence = layout(document, tokenizer, inner.path, inner.multiple)
        nats = inner(pack_sequences([sequence]), torch.Generator(inner.device)).text.item()
        bits.append(nats / log(2))
        characters.append(len(row["text"]))
    return {f"{kind}_bits_per_character": ratio(bits, characters)}, []


NEEDS = {_edits: "mask", _answers: "answer", _sums: "answer"}  # what the truth has to tell a judge
