"""What is rarely asked: no tokens, no steps, no words, a photo, a broken character."""

import numpy as np
import pytest
import torch
from PIL import Image as PILImage

from tests.documents import picture, tokenizer
from tests.models import tiny, tiny_model
from unimodal.data.document import Document, Image, Text, Turn
from unimodal.data.pictures import fit
from unimodal.data.rows import parse_row
from unimodal.errors import UserError
from unimodal.generation.converse import Converser, Piece
from unimodal.generation.preview import draw_documents
from unimodal.generation.settings import Settings, seeds_of


def test_a_photo_is_read_as_training_reads_it(monkeypatch):
    model, photo = tiny(), picture(np.random.default_rng(0), 300, 400)
    row = {"messages": [{"role": "user", "content": "<image>two"}], "images": [PILImage.fromarray(photo)]}
    seen = model._document(row).images[0].pixels
    trained = fit(parse_row(row, "row", open_turn=True), model.model.multiple, size=model.config.image_size)
    assert seen.shape == (8, 8, 3) and np.array_equal(seen, trained.images[0].pixels)
    assert model.edit(row["images"][0], "two", steps=1)[0].size == (8, 8)


def test_a_row_that_is_a_picture_alone_is_drawn_on_the_sheet():
    document = Document((Turn("assistant", (Image(picture(np.random.default_rng(0)), trained=True),)),))
    [(drawn, caption)] = draw_documents(tiny_model(), tokenizer(), [document], seed=0)
    assert drawn.size == (8, 8) and caption == ""


def test_nothing_may_be_asked_for_and_steps_not_left_out():
    model = tiny()
    assert model.answer(PILImage.fromarray(picture(np.random.default_rng(0))), "two", max_tokens=0) == ""
    with pytest.raises(UserError, match="at least 1 step, not 0"):
        model.generate("two", steps=0)


def test_seeds_of_numpy_are_seeds():
    assert seeds_of(np.int64(3), 2) == [3, 3]
    assert seeds_of(np.arange(2), 2, 2) == [0, 1, 1, 2]


@pytest.mark.parametrize("then", ["end", "picture", "limit"])
def test_a_character_that_is_cut_off_is_said_where_it_stands(then, monkeypatch):
    """The first byte of two, and then the end, a picture, or no more tokens."""
    words, model = tokenizer(), tiny_model()
    half = words.encode("é")[0]
    assert words.bytes_of(half) == "é".encode()[:1]
    told = iter([half, words.image_start if then == "picture" else words.im_end, words.im_end])
    settings = Settings(max_tokens=1 if then == "limit" else 9, steps=1)
    document = Document((Turn("user", (Text("two"),)),))
    speaker = Converser(model, words, [document], settings)
    monkeypatch.setattr(speaker, "_next", lambda *_: torch.tensor([[next(told)]]))
    events = [event for _, event in speaker.run([0])]
    assert [event.text for event in events if isinstance(event, Piece)] == ["�"]
    assert isinstance(events[0], Piece) and len(events) == (2 if then == "picture" else 1)
