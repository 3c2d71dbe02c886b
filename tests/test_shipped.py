"""The shipped model is small, and every verb works on it."""

import pytest

import unimodal
from unimodal.model.folder import SHIPPED

FOLDER = SHIPPED / "shapes-base"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="shapes-base is not in this checkout")


@pytest.fixture(scope="module")
def model():
    return unimodal.load("shapes-base")


def test_it_is_small(model):
    assert model.size <= 16_000_000
    assert sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file()) <= 32_000_000


def test_draws_on_its_own_decision_and_at_its_own_size(model):
    reply = model.chat([{"role": "user", "content": "draw a red circle"}], seed=1)
    assert [image.size for image in reply.images] == [(64, 64)]


def test_answers_in_words(model):
    picture = model.generate("draw a red circle", seed=3)[0]
    assert model.answer(picture, "what color is the background?") in {"white", "black", "gray", "beige"}


def test_says_politely_what_it_knows(model):
    reply = model.chat([{"role": "user", "content": "who is the president of france?"}])
    assert not reply.images
    assert "shapes" in reply.text
