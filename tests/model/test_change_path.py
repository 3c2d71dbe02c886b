"""A model made into one of another path reads and writes as it did, and learns the new way to draw."""

import logging
from copy import deepcopy

import numpy as np
import pytest
import torch

from tests.documents import picture, tokenizer
from tests.images.networks import DC, pictures
from tests.models import tiny_model
from tests.paths.cases import codec_of
from unimodal.data.document import Document, Image, Text, Turn
from unimodal.errors import UserError
from unimodal.images.codec import DiffusersCodec, PixelPatches
from unimodal.images.discrete import DiscreteCodec
from unimodal.images.patches import to_tokens
from unimodal.model.change_path import with_path
from unimodal.model.config import MaskedText
from unimodal.sequence.layout import layout
from unimodal.sequence.pack import pack_sequences


def turned(model, **changes):
    return with_path(model, model.config.model_copy(update={"path_options": {}} | changes))


def said(model):
    """The loss of an answer to a question about two pictures."""
    rng = np.random.default_rng(0)
    asked = (Image(picture(rng), False), Image(picture(rng, 8, 16), False), Text("what is there?"))
    document = Document((Turn("user", asked), Turn("assistant", (Text("a red circle", True),))))
    sequence = layout(document, tokenizer(), model.path, model.multiple, block=model.block)
    with torch.no_grad():
        return float(model(pack_sequences([sequence], len(sequence.ids)), torch.Generator()).text)


@pytest.mark.parametrize(
    ("path", "codec", "changes"),
    [
        ("flow", "pixels", {"path": "per_token"}),
        ("flow", "vq", {"path": "masked"}),
        ("flow", "vq", {"path": "next_token", "path_options": {"size_as_text": False}}),
        ("masked", "multi_scale", {"path": "next_scale"}),
        ("next_scale", "multi_scale", {"path": "flow"}),
        ("flow", "pixels", {"path_options": {"prediction": "x0", "head_depth": 2}}),
    ],
)
def test_what_is_read_and_written_stays(path, codec, changes, caplog):
    model = tiny_model(0, codec_of(codec), path=path)
    before = said(model)
    with caplog.at_level(logging.INFO):
        other = turned(model, **changes)
    assert said(other) == pytest.approx(before, rel=1e-5)
    assert "weights are new, pictures are read as before" in caplog.text
    assert other.config.path == changes.get("path", path)
    assert not other.training
    assert said(tiny_model(0, codec_of(codec), **{"path": path} | changes)) != pytest.approx(before, rel=1e-3)


def test_words_token_by_token_become_words_by_masked_prediction_and_back():
    model = tiny_model(0)
    masked = turned(model, text_objective="masked", masked_text=MaskedText(block=4, forwards=2))
    before = dict(model.named_parameters())
    new = {name for name, _ in masked.named_parameters()} - before.keys()
    assert new == {"text_mask"} and masked.block == 4
    kept = {name: weight for name, weight in masked.named_parameters() if name in before}
    assert all(torch.equal(weight, before[name]) for name, weight in kept.items())
    again = turned(masked, text_objective="next_token", masked_text=MaskedText())
    assert again.text_mask is None and said(again) == said(model)


def test_weights_of_the_same_path_stay_where_they_fit():
    model = tiny_model(0)
    other = turned(model, path_options={"head_depth": 1})
    assert torch.equal(other.path.head.weight, model.path.head.weight)
    assert other.path.head_layers[0].modulation.weight.abs().max() == 0  # new, and begins as nothing


def test_cells_joined_by_the_codec_are_tokens_as_cells_joined_by_the_model():
    network = {"_class_name": "AutoencoderDC"} | DC
    torch.manual_seed(0)
    plain = DiffusersCodec(network).eval()
    codes = DiscreteCodec(network, {"kind": "residual", "codes": 8, "depth": 2}, patch=2).eval()
    codes.network.load_state_dict(plain.network.state_dict())
    pixels = pictures(2)
    with torch.no_grad():
        mine, theirs = to_tokens(codes.unquantized(pixels), 1), to_tokens(plain.to_raw(pixels), 2)
        assert torch.equal(mine, theirs)
        assert torch.equal(codes.from_raw(codes.unquantized(pixels)), plain.from_raw(plain.to_raw(pixels)))
    assert (codes.stride, codes.channels) == (2 * plain.stride, 4 * plain.channels)
    # So a model that reads patches of 2 x 2 cells goes on to codes of such patches.
    model = tiny_model(0, plain, path="flow", patch_size=2)
    config = model.config.model_copy(update={"path": "masked", "path_options": {}, "patch_size": 1})
    other = with_path(model, config, codes)
    torch.testing.assert_close(other.path.embed_clean(theirs[0]), model.path.embed_clean(theirs[0]))
    assert other.multiple == model.multiple


def test_tokens_of_another_size_are_read_by_a_new_layer(caplog):
    model = tiny_model(0)
    with caplog.at_level(logging.INFO):
        other = with_path(model, model.config.model_copy(update={"path": "per_token"}), PixelPatches(2))
    assert other.path.latent_in.in_features == 12
    assert "another size" in caplog.text
    with pytest.raises(UserError, match="says codes, and PixelPatches has none"):
        turned(model, path="masked")


@pytest.mark.parametrize(
    ("path", "codec"), [("next_token", "residual"), ("masked", "residual"), ("next_scale", "multi_scale")]
)
def test_under_another_codec_weights_stay_and_codes_mean_what_it_says(path, codec):
    model = tiny_model(0, codec_of(codec), path=path)
    torch.manual_seed(3)
    with torch.no_grad():
        for weight in model.path.parameters():
            weight += 0.1 * torch.randn_like(weight)
    new = deepcopy(model.codec)
    new.std.mul_(torch.rand(new.channels) + 0.5)
    other, fresh = with_path(model, model.config, new), tiny_model(1, new, path=path)
    weights = dict(model.path.named_parameters())
    assert weights and all(torch.equal(value, weights[name]) for name, value in other.path.named_parameters())
    meanings, before = dict(fresh.path.named_buffers()), dict(model.path.named_buffers())
    assert meanings.keys() == dict(other.path.named_buffers()).keys()
    for name, value in other.path.named_buffers():
        assert torch.equal(value, meanings[name]) and not torch.equal(value, before[name])
