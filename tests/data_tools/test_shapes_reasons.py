"""What replies say first: a plan is the whole picture in words, a reason leads to its answer by itself."""

import re
from collections import Counter

import numpy as np
import pytest

from data_tools.shapes.captions import named
from data_tools.shapes.language import PLACES
from data_tools.shapes.reasons import final
from data_tools.shapes.render import render
from data_tools.shapes.rows import TASKS, example
from data_tools.shapes.scene import BACKGROUNDS, COLOURS, SHAPES, Scene, Thing

THING = re.compile(
    rf"an? (small|large) ({'|'.join(COLOURS)}) ({'|'.join(SHAPES)}) (?:in|at|on) the "
    rf"(top left|top right|bottom left|bottom right|top|left|middle|right|bottom)"
)
NUMBERS = ["zero", "one", "two", "three", "four"]


def read(plan: str) -> tuple[list[Thing], str]:
    things = [Thing(PLACES.index(p), shape, colour, size) for size, colour, shape, p in THING.findall(plan)]
    return things, re.search(rf"on a ({'|'.join(BACKGROUNDS)}) background:?$", plan)[1]


def replies(made):
    return [message["content"] for message in made.row["messages"][1::2]]


@pytest.mark.parametrize("task", ["t2i", "edit", "chat"])
def test_a_plan_is_the_whole_picture_in_words(task):
    drawn = 0
    for i in range(200):
        made = example(task, "train", 8, i)
        pictures = iter(made.row.get("images", ()))
        for step, reply in zip(made.steps, replies(made)):
            if step.given is not None:
                next(pictures)
            if step.draws:
                things, background = read(reply.partition("<image>")[0])
                assert np.array_equal(render(Scene(tuple(things), background)), next(pictures))
                drawn += 1
    assert drawn > 100


def test_a_plan_goes_through_a_caption_in_its_order():
    for i in range(200):
        made = example("t2i", "train", 9, i)
        step = made.steps[0]
        things, _ = read(replies(made)[0].partition("<image>")[0])
        assert tuple(things) == named(step.draw, step.scene)
        shapes = [word for word in re.findall(r"\w+", step.text.lower()) if word in SHAPES]
        assert shapes == [thing.shape for thing in things if thing.shape in shapes][: len(shapes)]


def items(words: str) -> list[str]:
    return [] if words in ("nothing", "nowhere") else re.split(", | and ", words)


def concluded(kind: str, asked: str, why: str) -> str | None:
    """The answer that a reason leads to, from the words alone."""
    asked = (
        re.sub(r"\bto the |\?", "", asked.lower().rpartition(". ")[2])
        .replace("over", "above")
        .replace("under", "below")
    )
    if kind == "count":
        return NUMBERS[len(items(why))]
    if kind == "existence":
        colours, shapes = (re.findall(rf"\b({'|'.join(names)})\b", asked) for names in (COLOURS, SHAPES))
        wanted = (colours or [None])[0] if shapes else None
        return "yes" if (wanted in items(why) if wanted else bool(items(why))) else "no"
    if "more" in asked:
        first, second = (len(items(part)) for part in why.split(" against "))
        return "yes" if first > second else "no"
    one, other = why.split(" and ") if " and " in why else (why, None)
    if "same" in asked:
        return "yes" if one == other else "no"
    if "larger" in asked or "smaller" in asked:
        sizes = ("large", "small") if "larger" in asked else ("small", "large")
        return "yes" if (one, other) == sizes else "no"
    # The last relation word: the things themselves may stand "in the top left".
    relation = re.findall(r"left of|right of|above|below", asked)[-1]
    if other is None:
        return "yes" if why == relation else "no"
    (row, column), (other_row, other_column) = (divmod(PLACES.index(place), 3) for place in (one, other))
    true = {
        "left of": column < other_column,
        "right of": column > other_column,
        "above": row < other_row,
        "below": row > other_row,
    }
    return "yes" if true[relation] else "no"


@pytest.mark.parametrize("task", ["vqa", "text", "chat"])
def test_a_reason_leads_to_its_answer(task):
    checked = Counter()
    for i in range(1200):
        made = example(task, "train", 10, i)
        if "messages" not in made.row:
            continue
        for step, reply in zip(made.steps, replies(made)):
            why, colon, answer = reply.rpartition("<image>")[2].rpartition(": ")
            if step.question and colon:
                assert concluded(step.question.kind, step.text, why) == answer == final(reply)
                checked[step.question.kind] += 1
    assert set(checked) >= {"count", "existence", "relation"} and min(checked.values()) > 20


@pytest.mark.parametrize("task", TASKS)
def test_without_reasons_a_reply_is_its_answer(task):
    for i in range(150):
        full, bare = (example(task, "train", 11, i, reasons=reasons) for reasons in (True, False))
        assert full.steps == bare.steps
        if "messages" not in bare.row:
            continue
        for step, reply in zip(bare.steps, replies(bare)):
            assert (
                reply == f"{step.lead if step.draws else ''}{'<image>' * step.draws}{step.words(step.scene)}"
            )
