"""How the rows of each kind are judged by their truth: drawings, edits, answers, worked sums, plain texts.

Each judge takes (model, folder, kind, rows with their truth, seed), and gives scores by name and the cases.
"""

from collections import Counter
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from unimodal.data.rows import parse_row
from unimodal.evaluation.emoji import Example
from unimodal.evaluation.nearest import nearer_than_others
from unimodal.evaluation.report import Case
from unimodal.evaluation.scores import Score, average, ratio, share, share_of_groups
from unimodal.evaluation.shapes import ANSWER_TOKENS, BATCH, plain, psnr
from unimodal.external.model import ExternalModel
from unimodal.model.unified import UnifiedModel
from unimodal.sequence.layout import layout
from unimodal.sequence.pack import pack_sequences
from unimodal.sequence.tokenizer import Tokenizer

WORKED_TOKENS = 400  # of a sum that is worked out in words
FINAL = "####"  # before the number in which such a sum ends
KEPT = 30.0  # decibels outside the mask, from which on what had to stay counts as kept

Found = tuple[dict[str, Score], list[Case]]


def _batches(some: list[Example]) -> list[list[Example]]:
    return [some[start : start + BATCH] for start in range(0, len(some), BATCH)]


def _words(row: dict) -> str:
    """What the user says, without the mark of the picture."""
    return row["messages"][0]["content"].replace("<image>", "").strip()


def _open(path: Path, mode: str = "RGB") -> Image.Image:
    with Image.open(path) as picture:
        return picture.convert(mode)


def judge_drawings(model: Any, data: Path, kind: str, some: list[Example], seed: int) -> Found:
    """How often a drawing is nearer to its own picture than to those of the other prompts."""
    drawn, told, true = [], [], []
    for k, batch in enumerate(_batches(some)):
        words = [_words(row) for row, _ in batch]
        told += words
        drawn += model.generate(words, seed=seed * 1000 + k)
        true += [_open(data / row["images"][0]) for row, _ in batch]
    nearer, nearest = nearer_than_others(drawn, true, [row["images"][0] for row, _ in some])
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


def judge_edits(model: Any, data: Path, kind: str, some: list[Example], seed: int) -> Found:
    """Errors inside of the masks, as a share of a copy's, and PSNR outside of them."""
    cases = []
    for k, batch in enumerate(_batches(some)):
        befores, afters = ([_open(data / row["images"][i]) for row, _ in batch] for i in (0, 1))
        told = [_words(row) for row, _ in batch]
        drawn = model.edit(befores, told, seed=seed * 1000 + k)
        for (_, truth), before, after, words, got in zip(batch, befores, afters, told, drawn):
            got = got.convert("RGB").resize(after.size)
            mask = np.asarray(_open(data / truth["mask"], "L")) > 127
            inside, copied, outside = mask_errors(*map(np.asarray, (before, after, got)), mask)
            note = f"{inside / copied:.2f} of a copy's error, {outside:.0f} dB outside"
            right = bool(inside <= copied / 2 and outside >= KEPT)
            tiles = ((before, words), (got, note), (after, "right"))
            cases.append(Case(kind, right, tiles, numbers=(inside, copied, outside)))
    return {kind: share(case.right for case in cases)} | edit_scores(f"{kind}_", cases), cases


def edit_scores(prefix: str, cases: list[Case]) -> dict[str, Score]:
    """What was measured of edits taken together; names begin with `prefix`."""
    inside, copied, outside = np.array([case.numbers for case in cases]).T
    return {f"{prefix}inside_to_copy": ratio(inside, copied), f"{prefix}psnr_outside": average(outside)}


def judge_answers(model: Any, data: Path, kind: str, some: list[Example], seed: int) -> Found:
    """How many answers are right, and how many would be if all were the commonest one."""
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


def judge_sums(model: Any, data: Path, kind: str, some: list[Example], seed: int) -> Found:
    """How many worked sums end in the right number."""
    cases = []
    for batch in _batches(some):
        asked = [{"messages": row["messages"][:1]} for row, _ in batch]
        replies = model.chat_batch(asked, max_tokens=WORKED_TOKENS, temperature=0.0, seed=seed)
        for (_, truth), reply in zip(batch, replies):
            _, mark, final = reply.text.rpartition(FINAL)
            cases.append(Case(kind, bool(mark) and plain(final) == plain(truth["answer"])))
    return {kind: share(case.right for case in cases)}, cases


def decoder_of(model: Any) -> tuple[UnifiedModel, Tokenizer] | None:
    """What says how probable a text is: the model, or an external one's reader if that is of this toolkit."""
    inner, tokenizer = model.model, model.tokenizer
    if isinstance(inner, ExternalModel):
        inner, tokenizer = getattr(inner.reader, "model", None), getattr(inner.reader, "tokenizer", None)
    return (inner, tokenizer) if isinstance(inner, UnifiedModel) else None


@torch.inference_mode()
def judge_texts(model: Any, data: Path, kind: str, some: list[Example], seed: int) -> Found:
    """Cross-entropy of a row, its end included, over the characters of all rows."""
    (inner, tokenizer), bits, characters = decoder_of(model), [], []
    for row, _ in some:
        document = parse_row(row, str(data))
        sequence = layout(document, tokenizer, inner.path, inner.multiple)
        nats = inner(pack_sequences([sequence]), torch.Generator(inner.device)).text.item()
        bits.append(nats / log(2))
        characters.append(len(row["text"]))
    return {f"{kind}_bits_per_character": ratio(bits, characters)}, []
