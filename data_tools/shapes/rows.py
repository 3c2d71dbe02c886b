"""Rows of the shapes world with their truth: every one a pure function of (kind, split, seed, number).

`example` gives a row in the format that training reads, together with what a judge has to know about it;
`row` gives the row alone.  Nothing is stored, so a trainer can draw fresh rows for ever.
"""

from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np

from data_tools.shapes import captions, edits, question_words, questions
from data_tools.shapes.conversations import KINDS as CHAT_KINDS
from data_tools.shapes.conversations import converse
from data_tools.shapes.further_questions import ask_further
from data_tools.shapes.language import formal
from data_tools.shapes.reasons import placed, reason, with_reason
from data_tools.shapes.render import CANVAS, render
from data_tools.shapes.scene import MOST, WORLDS, World
from data_tools.shapes.steps import Step
from unimodal.errors import UserError, nearest

IMAGE = "<image>"
TASKS = ("t2i", "edit", "vqa", "text", "chat")
MORE_QUESTIONS = 6  # at most, after the first about the same scene
PLAIN = "plain"  # the kind of text rows that are no conversation
_KINDS: dict[str, dict[str, float]] = {
    "t2i": captions.WEIGHTS,
    "edit": edits.WEIGHTS,
    "vqa": questions.WEIGHTS,
    "text": {**questions.WEIGHTS, PLAIN: 5.0},
    "chat": CHAT_KINDS,
}


@dataclass(frozen=True)
class Example:
    """A row and its truth.  `steps` are the exchanges in order; single-turn tasks have one."""

    row: dict[str, Any]
    task: str
    kind: str
    steps: tuple[Step, ...] = ()


def kinds(task: str) -> tuple[str, ...]:
    """The kinds of examples that a task has."""
    if task not in _KINDS:
        raise UserError(f"shapes: task {task!r}; expected one of {', '.join(TASKS)}{nearest(task, TASKS)}")
    return tuple(_KINDS[task])


def world_of(split: str) -> World:
    """The world of a split: train, val or unseen."""
    if split not in WORLDS:
        known = tuple(WORLDS)
        raise UserError(f"shapes: split {split!r}; expected one of {', '.join(known)}{nearest(split, known)}")
    return WORLDS[split]


def example(
    task: str,
    split: str,
    seed: int,
    i: int,
    kind: str | None = None,
    world: World | None = None,
    canvas: int = CANVAS,
    reasons: bool = True,
) -> Example:
    """The i-th example of a task, a pure function of all its arguments.

    kind    one of `kinds(task)`, then a question comes alone; None: drawn by the task's habits, and
            questions come several about one scene
    world   the pairs that may occur; the split's own if None
    reasons whether replies say first what a picture is going to hold and what an answer follows from
    """
    kinds(task)
    streamed = kind is None
    world = world or world_of(split)
    rng = Random("/".join(map(str, (split, seed, task, *([kind] if kind else []), i))))
    if kind is None:
        names = _KINDS[task]
        if world.keys != world.pairs and task == "chat":  # every row of `unseen` is about a held-out pair
            names = {name: weight for name, weight in names.items() if name not in ("greeting", "refusal")}
        kind = rng.choices(tuple(names), tuple(names.values()))[0]
    if task == "text" and kind == PLAIN:
        return Example({"text": _plain(rng, world, streamed, reasons)}, task, kind)
    if task == "chat":
        steps = converse(rng, world, kind, split)
    elif task == "t2i":
        spec = captions.make_spec(rng, world, kind)
        words = captions.request(rng, captions.caption(rng, spec))
        steps = (Step(words, captions.draw(rng, spec, world), draw=spec),)
    elif task == "edit":
        before, after, edit = edits.make_edit(rng, world, kind)
        steps = (Step(edits.instruction(rng, edit), after, edit=edit, given=before),)
    else:
        steps = (_asked(rng, world, kind, in_words=task == "text"),)
        steps += _further(rng, world, steps[0], task == "text") if streamed else ()
    if rng.random() < 0.1:
        steps = tuple(replace(step, text=formal(step.text)) for step in steps)
    return Example(_row(steps, canvas, reasons), task, kind, steps)


def _asked(rng: Random, world: World, kind: str, in_words: bool) -> Step:
    while True:
        scene, question = questions.make_question(rng, world, kind)
        if not in_words:
            return Step(question_words.ask(rng, question), scene, question=question, given=scene)
        if len(scene.objects) < MOST or kind == "count" or rng.random() < 0.3:  # keep what is told short
            text = f"{question_words.tell(rng, scene, question)} {question_words.ask(rng, question)}"
            return Step(text, scene, question=question, told=True, placed=placed(scene, text))


def _further(rng: Random, world: World, first: Step, in_words: bool) -> tuple[Step, ...]:
    """More questions about the scene of the first.

    A picture or a telling serves several of them in the stream: most of a row's cost is what is asked
    about, and it is answers that teach.
    """
    steps: tuple[Step, ...] = ()
    for _ in range(rng.randrange(MORE_QUESTIONS + 1)):
        more = ask_further(rng, world, first.scene, first.text if in_words else None)
        steps += () if any(step.question == more.question for step in (first, *steps)) else (more,)
    return steps


def _plain(rng: Random, world: World, streamed: bool, reasons: bool) -> str:
    """A scene told in words and facts that follow from it, as running text: one, or in the stream several."""
    kinds = questions.WEIGHTS if streamed else dict.fromkeys(("colour", "count", "existence"), 1.0)
    kind = rng.choices(tuple(kinds), tuple(kinds.values()))[0]
    scene, question = questions.make_question(rng, world, kind)
    told = question_words.tell(rng, scene, question)
    first = Step(told, scene, question=question, told=True)
    asked = [
        first.question,
        *(step.question for step in (_further(rng, world, first, True) if streamed else ())),
    ]
    known = placed(scene, told)
    facts = []
    for question in asked:
        why = reason(question, scene, known) if reasons else None
        found = with_reason(why, questions.answer(question, scene))
        facts.append(f"{question_words.ask(rng, question)} {found}")
    return " ".join([told, ". ".join(facts) + ("." if streamed else "")])


def _row(steps: tuple[Step, ...], canvas: int, reasons: bool) -> dict[str, Any]:
    """Messages and images as a trainer reads them, with the world's own pictures."""
    messages: list[dict[str, str]] = []
    images: list[np.ndarray] = []
    for step in steps:
        if step.given is not None:
            images.append(render(step.given, canvas))
        reply = step.reply_after(step.scene, reasons)
        if step.draws:
            images.append(render(step.scene, canvas))
            reply = f"{step.before(step.scene, reasons)}{IMAGE}{reply}"
        messages.append({"role": "user", "content": asked_text(step)})
        messages.append({"role": "assistant", "content": reply})
    return {"messages": messages, "images": images} if images else {"messages": messages}


def asked_text(step: Step) -> str:
    """What stands in the user's message: the mark of the picture shown, if any, and the words."""
    return f"{IMAGE}{step.text}" if step.given is not None else step.text


def row(task: str, split: str, seed: int, i: int, **options: Any) -> dict[str, Any]:
    """The row of `example` alone; its images are uint8 arrays (H, W, 3)."""
    return example(task, split, seed, i, **options).row
