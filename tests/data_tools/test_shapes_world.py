"""Scenes, pictures, language and rows of the shapes world, against checks written from the words alone."""

import json
import random
import re
from collections import Counter, defaultdict

import numpy as np
import pytest
from PIL import Image

from data_tools import LIVE
from data_tools.shapes import captions, edits, questions
from data_tools.shapes.build import make_shapes
from data_tools.shapes.language import Group
from data_tools.shapes.novel import make_novel, novel_example, read_novel
from data_tools.shapes.reasons import final
from data_tools.shapes.render import changed_mask, mask, render
from data_tools.shapes.rows import TASKS, example, kinds, row
from data_tools.shapes.scene import (
    ALL_PAIRS,
    BACKGROUNDS,
    COLOURS,
    HELD_OUT,
    SEEN,
    SHAPES,
    WORLDS,
    Scene,
    Thing,
    has_held_out,
    random_scene,
)
from unimodal.errors import UserError

TRAIN, UNSEEN = WORLDS["train"], WORLDS["unseen"]


def text_of(made: dict) -> str:
    return made.get("text") or " ".join(message["content"] for message in made["messages"])


def test_scenes_are_canonical_values():
    one, two = Thing(0, "circle", "red", "small"), Thing(8, "star", "blue", "large")
    assert Scene((two, one), "white") == Scene((one, two), "white")
    assert len({Scene((two, one), "white"), Scene((one, two), "white")}) == 1
    with pytest.raises(ValueError, match="one cell"):
        Scene((one, Thing(0, "star", "red", "small")), "white")


def test_held_out_pairs_leave_every_colour_and_shape_seen():
    assert len(HELD_OUT) * 8 == len(ALL_PAIRS)
    for k, names in ((0, COLOURS), (1, SHAPES)):
        seen = Counter(pair[k] for pair in SEEN)
        assert set(seen) == set(names)
        assert min(seen.values()) >= 6


def test_picture_has_thing_at_cell_centre_on_background():
    for cell in range(9):
        pixels = render(Scene((Thing(cell, "circle", "red", "large"),), "white"))
        assert pixels.shape == (64, 64, 3)
        assert pixels.dtype == np.uint8
        inked = np.argwhere((pixels != 255).any(-1))
        centre = (inked.min(0) + inked.max(0)) / 2
        assert np.abs(centre - 31.5 - 24 * np.array([cell // 3 - 1, cell % 3 - 1])).max() <= 0.5
        middle = np.round(centre).astype(int)
        assert tuple(pixels[tuple(middle)]) == COLOURS["red"]


def test_coverage_equals_closed_forms():
    side = 16
    for size, radius in (("large", 0.46 * side), ("small", 0.3 * side)):
        assert mask("circle", size).sum() == pytest.approx(np.pi * (0.96 * radius) ** 2, rel=0.03)
        assert mask("square", size).sum() == pytest.approx((2 * 0.86 * radius) ** 2, rel=0.03)
        assert mask("diamond", size).sum() == pytest.approx(2 * radius * 0.74 * radius, rel=0.05)


def test_neighbours_do_not_touch():
    """A picture of two neighbours is the two pictures side by side, also where their tiles share a rim."""
    for shape in SHAPES:
        for one, other in ((3, 4), (1, 4)):
            things = [Thing(cell, shape, "red", "large") for cell in (one, other)]
            apart = [render(Scene((thing,), "white")) for thing in things]
            assert (render(Scene(tuple(things), "white")) == np.minimum(*apart)).all()


@pytest.mark.parametrize("canvas", [32, 48, 64, 80, 128])
def test_every_canvas_has_the_same_picture_in_all_cells(canvas):
    def ink(cell):
        pixels = render(Scene((Thing(cell, "heart", "pink", "large"),), "black"), canvas)
        return int((pixels != 16).any(-1).sum())

    assert len({ink(cell) for cell in range(9)}) == 1


def test_canvas_that_is_no_multiple_of_16_is_refused():
    with pytest.raises(UserError, match="multiple of 16"):
        render(Scene((), "white"), 50)


@pytest.mark.parametrize("split", ["train", "val", "unseen"])
@pytest.mark.parametrize("task", TASKS)
def test_held_out_pairs_occur_in_unseen_alone(task, split):
    for i in range(400):
        made = example(task, split, 7, i)
        words = text_of(made.row).lower()
        scenes = [scene for step in made.steps for scene in (step.scene, step.given) if scene]
        told = any(re.search(rf"\b{c} {s}(es|s)?\b", words) for c, s in HELD_OUT)
        if split == "unseen":
            assert told or any(map(has_held_out, scenes)), words
        else:
            assert not told, words
            assert not any(map(has_held_out, scenes)), words


@pytest.mark.parametrize("task", TASKS)
def test_rows_are_well_formed_and_pure(task):
    for i in range(200):
        made = row(task, "train", 3, i)
        again = row(task, "train", 3, i)
        assert text_of(made) == text_of(again)
        for one, other in zip(made.get("images", []), again.get("images", [])):
            assert one.dtype == np.uint8
            assert (one == other).all()
        assert text_of(made).count("<image>") == len(made.get("images", []))
        if "messages" in made:
            roles = [message["role"] for message in made["messages"]]
            assert roles == ["user", "assistant"] * (len(roles) // 2)
            assert all(message["content"] for message in made["messages"])
        if task == "t2i":
            assert made["messages"][1]["content"].endswith(" background:<image>")
        if task == "edit":
            assert made["messages"][0]["content"].startswith("<image>")


def test_streams_differ_by_split_seed_and_number():
    texts = [
        text_of(row("t2i", split, seed, i)) + str(row("t2i", split, seed, i)["images"][0].sum())
        for split in ("train", "val")
        for seed in (0, 1)
        for i in range(50)
    ]
    assert len(set(texts)) > 0.97 * len(texts)


def counted(words: str) -> int:
    """How many things a caption speaks of, by its articles and numbers."""
    numbers = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4}
    words = re.sub(r"on an? \w+ background|a picture of", "", words.lower())
    return sum(numbers.get(word, 0) for word in re.findall(r"\w+", words))


@pytest.mark.parametrize("kind", captions.KINDS)
def test_captions_are_followed_by_their_own_pictures_and_say_how_many(kind):
    rng = random.Random(kind)
    for world in (TRAIN, UNSEEN):
        for _ in range(300):
            spec = captions.make_spec(rng, world, kind)
            scene = captions.draw(rng, spec, world)
            assert captions.follows(spec, scene)
            assert counted(captions.caption(rng, spec)) == len(scene.objects)
            more = Thing(scene.free()[0], "circle", "red", "small")
            assert not captions.follows(spec, Scene((*scene.objects, more), scene.background))


def test_follows_judges_binding_relation_and_background():
    red, blue = Group("circle", "red"), Group("square", "blue")
    spec = captions.Spec((red, blue), "left of", "black")
    good = Scene((Thing(3, "circle", "red", "small"), Thing(5, "square", "blue", "large")), "black")
    assert captions.follows(spec, good)
    swapped = Scene((Thing(3, "circle", "blue", "small"), Thing(5, "square", "red", "large")), "black")
    mirrored = Scene((Thing(5, "circle", "red", "small"), Thing(3, "square", "blue", "large")), "black")
    for bad in (swapped, mirrored, Scene(good.objects, "white"), Scene(good.objects[:1], "black")):
        assert not captions.follows(spec, bad)


@pytest.mark.parametrize("kind", edits.KINDS)
def test_edits_change_what_they_say_and_nothing_else(kind):
    rng = random.Random(kind)
    for world in (TRAIN, UNSEEN):
        for _ in range(300):
            before, after, edit = edits.make_edit(rng, world, kind)
            assert edits.edit_followed(edit, before, after)
            assert not edits.edit_followed(edit, before, before)
            same = set(before.objects) & set(after.objects)
            gone, new = len(before.objects) - len(same), len(after.objects) - len(same)
            expected = {"add": (0, 1), "remove": (1, 0), "swap": (2, 2), "background": (0, 0)}
            assert (gone, new) == expected.get(kind, (1, 1))
            assert (before.background != after.background) == (kind == "background")
            assert 1 <= len(after.objects) <= 4
            spoiled = Scene(after.objects, "gray" if after.background != "gray" else "white")
            assert not edits.edit_followed(edit, before, spoiled)
            words = edits.instruction(rng, edit)
            assert "None" not in words
            assert "{" not in words


def test_ambiguous_edits_are_not_applied():
    twins = Scene((Thing(0, "star", "red", "small"), Thing(1, "star", "blue", "small")), "white")
    assert edits.apply(edits.Edit("recolour", Group("star"), "pink"), twins) is None
    assert edits.apply(edits.Edit("move", Group("star", "red"), 1), twins) is None


def test_pixels_outside_the_changed_mask_are_the_same():
    rng = random.Random(1)
    for _ in range(300):
        before, after, _ = edits.make_edit(rng, TRAIN, rng.choice(list(edits.KINDS)))
        differ = (render(before) != render(after)).any(-1)
        touched = changed_mask(before, after)
        assert differ.any()
        assert not (differ & ~touched).any()
        if before.background == after.background:
            assert touched.mean() < 0.35


NUMBER = {"zero": 0, "one": 1, "two": 2, "three": 3, "four": 4}


def answer_from_told_words(told: str, asked: str) -> str | None:
    """Read a told scene again with regular expressions and answer questions about it."""
    things = []
    pattern = (
        rf"(a|an|two|three|four) (?:(small|large) )?({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})(?:es|s)?\b"
    )
    for many, size, colour, shape in re.findall(pattern, told):
        things += [{"size": size, "colour": colour, "shape": shape}] * NUMBER.get(many, 1)

    def fitting(words: str) -> list[dict]:
        found = things
        for name, values in (("colour", COLOURS), ("shape", SHAPES), ("size", ("small", "large"))):
            for value in values:
                if re.search(rf"\b{value}(es|s)?\b", words):
                    found = [thing for thing in found if thing[name] == value]
        return found

    if match := re.match(r"how many (.*) (?:are there|do you see)", asked):
        return list(NUMBER)[len(fitting(match[1]))]
    if match := re.match(r"(?:is there|do you see) (.*)\?", asked):
        return "yes" if fitting(match[1]) else "no"
    if match := re.match(r"(?:what color is|which color does) the (.*?)(?: have)?\?", asked):
        return fitting(match[1])[0]["colour"]
    return None


def test_told_questions_are_answerable_from_the_words_alone():
    checked = 0
    for kind in ("count", "existence", "colour"):
        for i in range(300):
            made = example("text", "train", 5, i, kind=kind)
            words = made.row["messages"][0]["content"].lower()
            told, asked = words.split(". ", 1)
            if " in the " in asked or " at the " in asked or " on the " in asked or " it" in asked:
                continue
            assert answer_from_told_words(told, asked) == final(made.row["messages"][1]["content"]), words
            checked += 1
    assert checked > 600


@pytest.mark.parametrize("task", ["vqa", "text"])
def test_answers_are_balanced(task):
    answers = defaultdict(Counter)
    for kind in questions.KINDS:
        for i in range(600):
            made = example(task, "train", 1, i, kind=kind)
            answers[kind][final(made.row["messages"][1]["content"])] += 1
    for kind in ("existence", "relation", "comparison"):
        assert 0.43 < answers[kind]["yes"] / 600 < 0.57, kind
    for kind, least in (("count", 5), ("colour", 8), ("shape", 8), ("position", 9), ("background", 4)):
        assert len(answers[kind]) == least
        assert max(answers[kind].values()) < 1.6 * 600 / least, kind


def test_refusals_of_val_are_phrases_never_trained_on():
    def asked(split):
        return {
            made.row["messages"][0]["content"].lower().rstrip(".?!")
            for i in range(1500)
            if len((made := example("chat", split, 0, i, kind="refusal")).steps) == 1
        }

    train, val = asked("train"), asked("val")
    assert len(train) > 300
    assert len(val - train) > 0.9 * len(val)
    assert any("horse" in words for words in train)


def test_base_world_never_says_the_novel_word():
    for task in TASKS:
        for i in range(300):
            assert "moon" not in text_of(row(task, "train", 2, i)).lower()
    told = sum("moon" in text_of(novel_example("t2i", "train", 0, i).row).lower() for i in range(100))
    assert told == 100


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_rows_about_the_novel_word(task):
    rows = [novel_example(task, "train", 0, i).row for i in range(200)]
    assert sum("moon" in text_of(made).lower() for made in rows) > (40 if task == "chat" else 100)


def test_novel_pictures_are_read_back():
    for i in range(100):
        step = novel_example("t2i", "train", 0, i).steps[0]
        assert read_novel(render(step.scene)) == step.scene


def test_live_source_is_endless_and_named():
    source = LIVE["shapes"](split="val", seed=4, tasks={"edit": 1.0})
    assert source.length is None
    where, made = source.row(10**9)
    assert where == "shapes/val:1000000000"
    assert len(made["images"]) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "test"}, "expected one of train, val, unseen"),
        ({"tasks": {"edits": 1.0}}, "did you mean 'edit'"),
        ({"tasks": {"edit": -1.0}}, "at least 0"),
        ({"tasks": {}}, "no task has a weight"),
        ({"size": 20}, "multiple of 16"),
    ],
)
def test_live_source_refuses_nonsense(options, message):
    with pytest.raises(UserError, match=message):
        LIVE["shapes"](**options)


def test_files_hold_the_live_rows(tmp_path):
    out = tmp_path / "shapes"
    assert make_shapes(out, 40, seed=5) == {"train": 40, "val": 4, "unseen": 4}
    source = LIVE["shapes"](split="train", seed=5)
    lines = (out / "train.jsonl").read_text().splitlines()
    assert len(lines) == 40
    for i, line in enumerate(lines):
        written, live = json.loads(line), source.row(i)[1]
        assert text_of(written) == text_of(live)
        for path, pixels in zip(written.get("images", []), live.get("images", []), strict=True):
            assert (np.asarray(Image.open(out / path)) == pixels).all()
    with pytest.raises(UserError, match="not empty"):
        make_shapes(out, 1)
    make_novel(tmp_path / "novel", 5)
    assert len((tmp_path / "novel" / "train.jsonl").read_text().splitlines()) == 5


def test_every_kind_can_be_asked_for():
    for task in TASKS:
        for kind in kinds(task):
            assert example(task, "train", 0, 0, kind=kind).kind == kind
    assert set(BACKGROUNDS) == {random_scene(random.Random(i), TRAIN).background for i in range(60)}
