"""Further questions about a scene, checked by reading the told words again with regular expressions."""

import re
from collections import Counter

import pytest

from data_tools.shapes.language import PLACES
from data_tools.shapes.questions import KINDS
from data_tools.shapes.reasons import final
from data_tools.shapes.rows import example
from data_tools.shapes.scene import COLOURS, SHAPES
from tests.data_tools.test_shapes_world import NUMBER, answer_from_told_words

COLUMN, ROW = {"left": 0, "right": 2}, {"top": 0, "bottom": 2}
PLACE = r"(?: (?:in|at|on) the ((?:top |bottom )?(?:left|right)|top|bottom|middle))?"


def things_of(told: str) -> list[dict]:
    colours, shapes = "|".join(COLOURS), "|".join(SHAPES)
    pattern = rf"(a|an|two|three|four) (?:small |large )?({colours}) ({shapes})(?:es|s)?\b{PLACE}"
    found = []
    for many, colour, shape, place in re.findall(pattern, told):
        words = place.split()
        column = next((COLUMN[word] for word in words if word in COLUMN), 1)
        row = next((ROW[word] for word in words if word in ROW), 1)
        thing = {"colour": colour, "shape": shape, "column": column, "row": row, "told": bool(place)}
        found += [thing] * NUMBER.get(many, 1)
    return found


def fitting(words: str, things: list[dict]) -> list[dict]:
    for name, values in (("colour", COLOURS), ("shape", SHAPES)):
        named = [value for value in values if re.search(rf"\b{value}(es|s)?\b", words)]
        things = [thing for thing in things if not named or thing[name] in named]
    return things


def by_hand(told: str, asked: str) -> str | None:
    things = things_of(told)
    if match := re.match(r"is (.*) (left of|right of|above|below|over|under) (.*)\?", asked):
        first, second = fitting(match[1], things), fitting(match[3], things)
        if len(first) > 1 or len(second) > 1 or not (first[0]["told"] and second[0]["told"]):
            return None
        axis = "column" if " of" in match[2] else "row"
        low, high = first[0][axis], second[0][axis]
        return "yes" if (low < high if match[2] in ("left of", "above", "over") else low > high) else "no"
    if match := re.match(r"are there more (.*) than (.*)\?", asked):
        return "yes" if len(fitting(match[1], things)) > len(fitting(match[2], things)) else "no"
    if match := re.match(r"(?:are|do) (.*) and (.*?) (?:have )?the same (color|shape)\?", asked):
        name = "colour" if match[3] == "color" else "shape"
        first, second = (fitting(words, things)[0][name] for words in (match[1], match[2]))
        return "yes" if first == second else "no"
    if match := re.match(r"(?:what|which) (colors|shapes) (?:are|do) the (.*?)(?: have)?\?", asked):
        name, order = ("colour", list(COLOURS)) if match[1] == "colors" else ("shape", list(SHAPES))
        found = {thing[name] for thing in fitting(match[2], things)}
        return in_words(sorted(found, key=order.index))
    if match := re.match(r"which are more, the (.*) or the (.*)\?", asked):
        first, second = (len(fitting(words, things)) for words in match.groups())
        return match[1] if first > second else match[2] if second > first else "neither"
    if match := re.match(r"(?:where is|how does) (.*) (?:from|stand to) (.*)\?", asked):
        (one,), (other,) = (fitting(words, things) for words in match.groups())
        up = {-1: "above", 1: "below", 0: ""}[sign(one["row"] - other["row"])]
        aside = {-1: "left", 1: "right", 0: ""}[sign(one["column"] - other["column"])]
        return " and ".join(word for word in (up, aside) if word)
    if match := re.match(r"(?:where|in which places) are (?:the )?(.*)\?", asked):
        cells = sorted(3 * thing["row"] + thing["column"] for thing in fitting(match[1], things))
        return in_words([PLACES[cell] for cell in cells])
    return answer_from_told_words(told, asked)


def sign(number: int) -> int:
    return (number > 0) - (number < 0)


def in_words(values: list[str]) -> str:
    *others, last = values or ["nothing"]
    return f"{', '.join(others)} and {last}" if others else last


def test_what_is_told_answers_every_further_question():
    checked = Counter()
    for i in range(1500):
        made = example("text", "train", 6, i)
        if "messages" not in made.row:
            continue
        words = [message["content"].lower().rstrip(".") for message in made.row["messages"]]
        told = words[0].split(". ", 1)[0]
        for step, asked, right in zip(made.steps[1:], words[2::2], words[3::2]):
            placed = re.search(r"shape (in|at|on) the|(in|at|on) the (top|bottom|left|right|middle)", asked)
            got = None if placed or step.question.kind not in KINDS else by_hand(told, asked)
            if got is not None:
                assert got == final(right), (words[0], asked)
                checked[step.question.kind] += 1
    closed = {"comparison", "relation", "count", "existence", "colour"}
    assert set(checked) >= closed | {"colours", "shapes", "most", "direction", "places"}
    assert min(checked.values()) > 15


def test_further_questions_compare_both_ways():
    answers = {"relation": Counter(), "comparison": Counter()}
    for i in range(800):
        for step in example("vqa", "train", 6, i).steps[1:]:
            if step.question.kind in answers:
                answers[step.question.kind][step.words(step.scene)] += 1
    for kind, found in answers.items():
        assert found["yes"] + found["no"] == found.total() > 150, kind
        assert 0.3 < found["yes"] / found.total() < 0.7, kind


@pytest.mark.parametrize("task", ["vqa", "text"])
def test_a_list_says_everything_row_by_row(task):
    for i in range(200):
        made = example(task, "train", 6, i, kind="list")
        (step,) = made.steps
        asked, said = (message["content"].lower().rstrip(".") for message in made.row["messages"])
        listed = [(3 * t["row"] + t["column"], t["colour"], t["shape"]) for t in things_of(said)]
        assert listed == [(t.cell, t.colour, t.shape) for t in step.scene.objects]
        assert re.findall(r"small|large", said) == [t.size for t in step.scene.objects]
        assert said.endswith(f"on a {step.scene.background} background")
        if task == "text":  # all of it was told
            assert sorted(re.findall(r"\w+", said)) == sorted(re.findall(r"\w+", told_of(asked)))


def told_of(asked: str) -> str:
    return re.sub(r"^there (is|are) ", "", asked.split(". ", 1)[0])
