"""Words without a language model: every token and its place can be read off, and a text encoder learns."""

import numpy as np
import pytest
import torch
from PIL import Image as PILImage

import unimodal
from tests.documents import picture, tokenizer
from tests.external.make import external, external_model
from tests.models import tiny_model
from unimodal.connectors.connector import Appended
from unimodal.data.document import Document, Image, Text, Turn
from unimodal.errors import UserError
from unimodal.external.folder import noted, save_external
from unimodal.images.codec import PixelPatches
from unimodal.model.folder import save_model
from unimodal.readers.tokens import TokensReader
from unimodal.sequence.tokenizer import train_tokenizer


def reader():
    return TokensReader(tokenizer())


def said(*turns):
    roles = ["user", "assistant"] * len(turns)
    return Document(tuple(Turn(role, (Text(text),)) for role, text in zip(roles, turns)))


def model(connector="hidden", **changes):
    return external_model(connector, reader=reader(), **{"reference": "vae_seq"} | changes)


def test_every_token_can_be_read_off_and_no_two_places_are_alike():
    asked = [said("a red circle"), said("two", "yes", "make it green")]
    hidden, mask = reader().read(asked, [0])
    vocabulary = len(tokenizer())
    encode, start, end = tokenizer().encode, tokenizer().im_start, tokenizer().im_end
    expected = [
        [*encode("a red circle"), end],
        [
            *encode("two"),
            *(start, *encode("assistant\n"), *encode("yes")),
            *(start, *encode("user\n"), *encode("make it green")),
            end,
        ],
    ]
    for row, ids in enumerate(expected):
        real = hidden[row, mask[row], 0]
        assert real[:, :vocabulary].argmax(-1).tolist() == ids
        places = real[:, vocabulary:]
        apart = torch.cdist(places, places) + torch.eye(len(ids))
        assert apart.min() > 1e-3


def test_order_counts_and_a_batch_equals_its_singles():
    connector = model().connector
    asked = [said("red circle blue"), said("blue circle red"), said("two")]
    together, mask = connector(*reader().read(asked, [0]))
    for row, prompt in enumerate(asked):
        alone, _ = connector(*reader().read([prompt], [0]))
        torch.testing.assert_close(together[row][mask[row]], alone[0], atol=1e-5, rtol=1e-4)
    assert (together[0] - together[1]).abs().max() > 1e-3


@pytest.mark.parametrize("connector", ["hidden", "qformer"])
def test_it_draws_edits_and_learns(connector):
    loaded = external(connector, reader=reader(), reference="vae_seq")
    one, two = (np.asarray(loaded.generate(words, seed=1)[0]).astype(int) for words in ("a circle", "two"))
    assert np.abs(one - two).max() > 1
    image = PILImage.fromarray(picture(np.random.default_rng(0)))
    assert loaded.edit(image, "make it green")[0].size == (8, 8)
    pictures = [picture(np.random.default_rng(seed)) for seed in range(2)]
    losses = loaded.model.train()([said("two"), said("a")], pictures, torch.Generator().manual_seed(0))
    losses.image.backward()
    table = next(loaded.model.connector.parameters())
    assert table.grad is not None and losses.image.isfinite()


def test_what_it_cannot_do_is_a_sentence():
    with pytest.raises(UserError, match=r"Set model\.reference to vae_seq or vae_channel"):
        model(reference="dual")
    with pytest.raises(UserError, match="connector hidden or qformer"):
        model("queries").read([said("two")])
    with pytest.raises(UserError, match="sees no pictures"):
        reader().see([picture(np.random.default_rng(0))])
    with pytest.raises(UserError, match="cannot answer"):
        external("hidden", reader=reader(), reference="vae_seq").complete("two")
    appended = Appended(1, True, lambda prompt, mask: torch.zeros(1, 1, 1))
    with pytest.raises(UserError, match="nothing would be read behind"):
        reader().read([said("two")], [0], appended)


def test_pictures_of_a_prompt_are_passed_over():
    rng = np.random.default_rng(0)
    shown = Document((Turn("user", (Image(picture(rng)), Text("two"))),))
    assert torch.equal(reader().read([shown], [0])[0], reader().read([said("two")], [0])[0])


def test_it_is_known_by_its_tokenizer_and_not_by_weights(tmp_path):
    save_model(tmp_path / "base", tiny_model(codec=PixelPatches(4)), tokenizer())
    note, _ = noted("tokens", str(tmp_path / "base"))
    fresh = model()
    fresh.config = fresh.config.model_copy(update={"reader": note})
    save_external(tmp_path / "model", fresh)
    before = unimodal.load(tmp_path / "model").generate("two", seed=1)[0]
    save_model(tmp_path / "base", tiny_model(7, codec=PixelPatches(4)), tokenizer())
    after = unimodal.load(tmp_path / "model").generate("two", seed=1)[0]
    assert np.array_equal(np.asarray(before), np.asarray(after))
    train_tokenizer(["other words than before"] * 4, 320).save(tmp_path / "base")
    with pytest.raises(UserError, match="has other weights"):
        unimodal.load(tmp_path / "model")
