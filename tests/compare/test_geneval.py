"""GenEval's layout: what a caption promises can be read back from its metadata."""

import json

import pytest
from PIL import Image

from data_tools.shapes.captions import KINDS, follows
from data_tools.shapes.rows import example
from unimodal.compare.geneval import TAGS, metadata, spec_of, write_pictures


@pytest.mark.parametrize("kind", KINDS)
def test_metadata_keeps_the_promise(kind):
    others = [example("t2i", "val", 1, i, kind).steps[0].scene for i in range(20)]
    for i in range(20):
        made = example("t2i", "val", 0, i, kind)
        (step,) = made.steps
        again = spec_of(json.loads(json.dumps(metadata(made))))
        assert follows(again, step.scene)
        assert [follows(again, scene) for scene in others] == [follows(step.draw, scene) for scene in others]
    assert metadata(made)["tag"] == TAGS[kind]
    assert metadata(made)["prompt"] == step.text


def scored(said, boxes):
    """The rules of GenEval's scorer on boxes {class: [(colour, (x, y)), ...]}, read from its repository.

    Groups are looked up in order, and `position` names one before its own; `exclude` has a count too many.
    """
    groups = []
    for wanted in said["include"]:
        found = boxes.get(wanted["class"], [])[: wanted["count"]]
        right = len(found) == wanted["count"]
        right = right and all(wanted.get("color") in (None, colour) for colour, _ in found)
        if right and "position" in wanted:
            relation, number = wanted["position"]
            target = groups[number]  # an IndexError if it does not stand before
            axis, sign = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}[relation]
            right = all(sign * (a[axis] - b[axis]) > 0 for _, a in found for _, b in target)
        if not right:
            return False
        groups.append(found)
    return all(len(boxes.get(one["class"], ())) < one["count"] for one in said.get("exclude", ()))


def boxes_of(scene):
    found = {}
    for thing in scene.objects:
        found.setdefault(thing.shape, []).append((thing.colour, (thing.column, thing.row)))
    return found


@pytest.mark.parametrize("kind", ["single", "two", "counting", "colors", "position"])
def test_the_scorers_rules_find_the_picture_right(kind):
    """And its mirror image wrong where a relation was asked, one thing more where things were counted."""
    for made in (example("t2i", "val", 0, i, kind) for i in range(50)):
        spec, scene = made.steps[0].draw, made.steps[0].scene
        if not all(group.shape for group in spec.groups):
            continue  # "two shapes": no class that a detector knows
        said, boxes = metadata(made), boxes_of(scene)
        assert scored(said, boxes)
        if spec.relation:
            turned = {name: [(colour, (-x, -y)) for colour, (x, y) in found] for name, found in boxes.items()}
            assert not scored(said, turned)
        if kind == "counting":
            assert not scored(said, {name: found + found[:1] for name, found in boxes.items()})


def test_position_stands_with_what_is_placed_behind_its_target():
    made = next(
        made
        for made in (example("t2i", "val", 0, i, "position") for i in range(50))
        if made.steps[0].draw.relation
    )
    spec = made.steps[0].draw
    target, placed = metadata(made)["include"]
    assert "position" not in target and placed["position"] == [spec.relation, 0]
    assert (placed["class"], target["class"]) == tuple(group.shape for group in spec.groups)


def test_layout(tmp_path):
    asked = [example("t2i", "val", 0, i, "single") for i in range(2)]
    pictures = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
    for sample in (0, 1):
        write_pictures(tmp_path, asked, pictures, sample)
    names = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*"))
    assert names == [
        f"{prompt:05d}/{name}"
        for prompt in (0, 1)
        for name in ("metadata.jsonl", "samples/0000.png", "samples/0001.png")
    ]
    with Image.open(tmp_path / "00001/samples/0001.png") as picture:
        assert picture.getpixel((0, 0)) == (0, 0, 255)
    with pytest.raises(ValueError, match="zip"):
        write_pictures(tmp_path, asked, pictures[:1], 0)
