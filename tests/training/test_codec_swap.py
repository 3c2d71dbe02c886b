"""A codec in the place of another: what is refused, what is told, and what a related one is."""

import logging

import pytest
import torch

from tests.images.networks import DC
from tests.models import tiny_model
from tests.paths.cases import QUANTIZERS, codec_of
from unimodal.errors import UserError
from unimodal.images.codec import PixelPatches
from unimodal.images.discrete import DiscreteCodec
from unimodal.training.codec_swap import fitting, likeness, same_codes


def coded(seed: int, **quantizer) -> DiscreteCodec:
    torch.manual_seed(seed)
    return DiscreteCodec({"_class_name": "AutoencoderDC"} | DC, quantizer)


def nudged(codec: DiscreteCodec, by: float) -> DiscreteCodec:
    """The same network after a little training, as it were."""
    torch.manual_seed(5)
    other = coded(0, **QUANTIZERS["vq"])
    other.load_state_dict(codec.state_dict())
    with torch.no_grad():
        for weight in other.parameters():
            weight += by * weight.std().nan_to_num() * torch.randn_like(weight)
    return other


@pytest.mark.parametrize(
    ("codec", "told"),
    [
        (
            coded(0, kind="vq", codes=40),
            "40 codes in a codebook a map, .* but .* 12 codes",
        ),
        (coded(0, kind="residual", codes=12, depth=2), "12 codes in a codebook a map, maps of 1, 1 of"),
        (coded(0, kind="multi_scale", codes=12, scales=[1, 2]), "maps of 0.5, 1 of its side"),
        (PixelPatches(4), "48 channels at stride 4, but"),
    ],
    ids=["more codes", "more maps", "other maps", "no codes"],
)
def test_codes_of_another_kind_are_refused(codec, told):
    model = tiny_model(codec=codec_of("vq"), path="next_token")
    with pytest.raises(UserError, match=told):
        fitting(codec, model)


def test_a_related_codec_is_taken_in_silence_and_another_is_not(caplog):
    model = tiny_model(codec=codec_of("vq"), path="masked")
    near, far = nudged(model.codec, 0.01), coded(1, **QUANTIZERS["vq"])
    assert likeness(model.codec, model.codec) == pytest.approx(1)
    assert likeness(near, model.codec) > 0.95
    with caplog.at_level(logging.WARNING):
        assert fitting(near, model) is near
        assert not caplog.records
        assert fitting(far, model) is far
    assert "is learned anew" in caplog.text


def test_codes_that_mean_others_are_told_though_pictures_are_the_same(caplog):
    """The entries of the codebook in another order: what is encoded and decoded is the same, to the bit."""
    model = tiny_model(codec=codec_of("vq"), path="masked")
    other = nudged(model.codec, 0.0)
    with torch.no_grad():
        book = other.quantizer.books._codebook.embed
        book.copy_(book.flip(1))
    assert likeness(other, model.codec) == pytest.approx(1)
    assert same_codes(other, model.codec) < 0.3
    with caplog.at_level(logging.WARNING):
        fitting(other, model)
    assert "of its codes are those of the model's own" in caplog.text
