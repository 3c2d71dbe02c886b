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


def test_position_points_at_the_other_thing():
    made = next(
        made
        for made in (example("t2i", "val", 0, i, "position") for i in range(50))
        if made.steps[0].draw.relation
    )
    first, second = metadata(made)["include"]
    assert first["position"] == [made.steps[0].draw.relation, 1]
    assert second["class"] == made.steps[0].draw.groups[1].shape


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
