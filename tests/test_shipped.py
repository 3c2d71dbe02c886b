"""The shipped model does what the README promises, judged by the oracle."""

import numpy as np
import pytest

import unimodal
from data_tools.shapes.oracle import read_scene
from unimodal.model.folder import SHIPPED

FOLDER = SHIPPED / "shapes-base"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="shapes-base is not in this checkout")


@pytest.fixture(scope="module")
def model():
    return unimodal.load("shapes-base")


def scene(picture):
    return read_scene(np.asarray(picture))


def things(picture):
    return sorted((thing.colour, thing.shape) for thing in scene(picture).objects)


def test_it_is_small(model):
    assert model.size <= 16_000_000
    assert sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file()) <= 32_000_000


def test_draws_what_is_asked(model):
    prompts = ["draw a red circle", "a blue square on a black background", "draw a yellow star"]
    pictures = model.generate(prompts, seed=3)
    assert [things(p) for p in pictures] == [[("red", "circle")], [("blue", "square")], [("yellow", "star")]]
    assert scene(pictures[1]).background == "black"


def test_edits_and_leaves_the_rest(model):
    before = model.generate("draw a red circle", seed=3)[0]
    after = model.edit(before, "make the circle green", seed=3)[0]
    assert things(after) == [("green", "circle")]
    assert scene(after).objects[0].cell == scene(before).objects[0].cell


def test_answers_about_pictures_and_about_words(model):
    picture = model.generate("draw a red circle", seed=3)[0]
    assert model.answer([picture] * 2, ["what color is the circle?", "is there a star?"]) == ["red", "no"]
    said = model.chat([{"role": "user", "content": "there is a blue heart. what shape is it?"}])
    assert said.text == "heart"


def test_says_politely_what_it_knows(model):
    reply = model.chat([{"role": "user", "content": "who is the president of france?"}])
    assert not reply.images
    assert "shapes" in reply.text


def test_a_conversation_draws_changes_and_tells(model):
    messages, images = [], []
    for said in ("draw a red circle", "now make the circle blue", "what color is the circle?"):
        messages.append({"role": "user", "content": said})
        reply = model.chat(messages, images, seed=1)
        parts = [
            {"type": "text", "text": p} if isinstance(p, str) else {"type": "image"} for p in reply.parts
        ]
        messages.append({"role": "assistant", "content": parts})
        images += reply.images
    assert things(images[-1]) == [("blue", "circle")]
    assert reply.text == "blue"
