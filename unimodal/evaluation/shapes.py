"""The shapes suite: drawing, editing, answering and talking, judged exactly by the oracle.

A picture is right if the oracle reads in it what was asked and nothing more; an edit, if every other thing
and the background are as they were; a conversation, if every turn is right on the model's own pictures.
The kinds of drawing are those of GenEval (Ghosh et al. 2023).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from data_tools.shapes.captions import FULL
from data_tools.shapes.open_questions import ANSWERS as OPEN
from data_tools.shapes.oracle import Unreadable, read_scene
from data_tools.shapes.reasons import final
from data_tools.shapes.render import CANVAS, changed_mask, render
from data_tools.shapes.rows import PLAIN, Example, example, kinds
from data_tools.shapes.scene import Scene
from unimodal.evaluation.report import Case
from unimodal.evaluation.scores import Score, average, mean_of, share
from unimodal.evaluation.talk import talk_through

BATCH = 16  # prompts that are answered together
ANSWER_TOKENS = 64  # reasons and all
PSNR_MOST = 60.0  # of equal pictures, so that a mean of decibels stays finite

Tick = Callable[[int], None]  # told how many examples more are judged


def examples(task: str, split: str, n: int, seed: int, canvas: int) -> list[Example]:
    """`n` examples of every judged kind; greetings and refusals name no pair, so `unseen` has none."""
    left_out = (FULL, *OPEN, *(("greeting", "refusal") if split == "unseen" else ()))
    names = [kind for kind in kinds(task) if kind not in left_out]
    return [example(task, split, seed, i, kind, canvas=canvas) for kind in names for i in range(n)]


def judge_shapes(
    model: Any, split: str, n: int, seed: int, tick: Tick, tasks: Sequence[str]
) -> tuple[dict[str, Score], list[Case]]:
    """Scores and cases of the tasks given, `n` examples of every kind.

    model  has generate, edit, answer, complete and chat_batch as a loaded model has them
    """
    canvas = getattr(getattr(model, "config", None), "image_size", None) or CANVAS
    scores: dict[str, Score] = {}
    cases: list[Case] = []
    judges = {"t2i": _draws, "edit": _edits, "vqa": _answers, "text": _writes, "chat": talk_through}
    for task in tasks:
        measured: dict[str, list[float]] = {}
        found: list[Case] = []
        asked = examples(task, split, n, seed, canvas)
        for k, some in enumerate(_batches(asked)):
            found += judges[task](model, some, seed * 100_000 + k * BATCH, measured)
            tick(len(some))
        scores |= _summed(task, found, measured)
        cases += found
    return scores, cases


def _batches(asked: list[Example]) -> Iterator[list[Example]]:
    """Examples of one kind together, so that a batch of conversations has as many turns."""
    for kind in dict.fromkeys(one.kind for one in asked):
        alike = [one for one in asked if one.kind == kind]
        yield from (alike[start : start + BATCH] for start in range(0, len(alike), BATCH))


def _summed(task: str, found: list[Case], measured: dict[str, list[float]]) -> dict[str, Score]:
    names = dict.fromkeys(case.name for case in found)
    scores = {name: share(case.right for case in found if case.name == name) for name in names}
    whole = "edit/followed" if task == "edit" else f"{task}/mean"
    scores[whole] = mean_of(list(scores.values()))
    for name, values in measured.items():
        scores[name] = share(map(bool, values)) if name == "edit/copy_baseline" else average(values)
    return scores


def _scene(picture: Image.Image) -> Scene | Unreadable:
    return read_scene(np.asarray(picture.convert("RGB")))


def _why(scene: Scene | Unreadable) -> str:
    return scene.reason if isinstance(scene, Unreadable) else "not what was asked"


def _draws(model: Any, asked: list[Example], seed: int, measured: dict) -> list[Case]:
    steps = [one.steps[0] for one in asked]
    cases = []
    pictures = model.generate([step.text for step in steps], seed=_each(seed, asked))
    for one, step, picture in zip(asked, steps, pictures):
        scene = _scene(picture)
        right = isinstance(scene, Scene) and step.drawn_right(None, scene)
        cases.append(Case(f"t2i/{one.kind}", right, ((picture, f"{step.text}\n[{_why(scene)}]"),)))
    return cases


def _edits(model: Any, asked: list[Example], seed: int, measured: dict) -> list[Case]:
    before = [Image.fromarray(one.row["images"][0]) for one in asked]
    steps = [one.steps[0] for one in asked]
    pictures = model.edit(before, [step.text for step in steps], seed=_each(seed, asked))
    cases = []
    for one, step, shown, picture in zip(asked, steps, before, pictures):
        scene = _scene(picture)
        right = isinstance(scene, Scene) and step.drawn_right(step.given, scene)
        wanted = scene if right else step.scene
        outside = ~changed_mask(step.given, wanted, shown.width)
        error = np.asarray(picture.convert("RGB"), np.float64) - render(wanted, shown.width)
        if outside.any():  # a new background may leave no pixel that has to stay
            measured.setdefault("edit/psnr_outside", []).append(psnr(np.square(error[outside]).mean()))
        measured.setdefault("edit/copy_baseline", []).append(step.drawn_right(step.given, step.given))
        tiles = ((shown, step.text), (picture, f"[{_why(scene)}]"))
        cases.append(Case(f"edit/{one.kind}", right, tiles))
    return cases


def _each(seed: int, asked: list[Example]) -> list[int]:
    """A seed for each: what chance does to one prompt says nothing about the next."""
    return [seed + k for k in range(len(asked))]


def psnr(square_error: float, peak: float = 255.0) -> float:
    """Peak signal to noise ratio in decibels, at most PSNR_MOST."""
    floor = peak**2 / 10 ** (PSNR_MOST / 10)
    return float(10 * np.log10(peak**2 / max(square_error, floor)))


def plain(words: str) -> str:
    """The answer that a reply comes to as it is compared: lower case, no spaces around, no full stop."""
    return final(words).lower().rstrip(".")


def _answers(model: Any, asked: list[Example], seed: int, measured: dict) -> list[Case]:
    shown = [Image.fromarray(one.row["images"][0]) for one in asked]
    steps = [one.steps[0] for one in asked]
    said = model.answer(shown, [step.text for step in steps], max_tokens=ANSWER_TOKENS, seed=seed)
    cases = []
    for one, step, picture, words in zip(asked, steps, shown, said):
        wanted = step.words(step.scene)
        right = plain(words) == plain(wanted)
        note = f"{step.text}\n{words}\n[right: {wanted}]"
        cases.append(Case(f"vqa/{one.kind}", right, ((picture, note),), words))
    return cases


def _writes(model: Any, asked: list[Example], seed: int, measured: dict) -> list[Case]:
    """Questions about a scene told in words; running text is cut after its question and completed."""
    if asked[0].kind == PLAIN:
        texts = [one.row["text"].rpartition("?") for one in asked]
        wanted = [rest for _, _, rest in texts]
        said = model.complete([a + b for a, b, _ in texts], max_tokens=ANSWER_TOKENS, seed=seed)
        said = [words.partition(".")[0] for words in said]  # running text may go on
    else:
        rows = [{"messages": one.row["messages"][:1]} for one in asked]
        wanted = [one.steps[0].words(one.steps[0].scene) for one in asked]
        replies = model.chat_batch(rows, max_tokens=ANSWER_TOKENS, temperature=0.0, seed=seed)
        said = ["<image>" if reply.images else reply.text for reply in replies]
    judged = zip(asked, said, wanted)
    return [
        Case(f"text/{one.kind}", plain(words) == plain(right), said=words) for one, words, right in judged
    ]
