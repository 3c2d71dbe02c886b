"""Codecs with codes: one protocol for every quantizer, folders, diffusers' VQModel, and what is refused."""

import json
import logging

import diffusers
import pytest
import torch
from torch.nn.functional import adaptive_avg_pool2d

from tests.images.networks import CODED, DC, KL, TINY, pictures, saved
from tests.images.test_quantizers import KINDS
from unimodal.errors import UserError
from unimodal.images.codec import DiffusersCodec
from unimodal.images.discrete import DiscreteCodec
from unimodal.images.folder import load_codec

NETWORK = {"_class_name": "AutoencoderDC"} | DC  # 6 channels at stride 4
CELLS = (4, 6)  # of `pictures()`


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def codec_of(name: str) -> DiscreteCodec:
    """A random network around a quantizer whose codebooks have seen a few pictures."""
    torch.manual_seed(0)
    codec = DiscreteCodec(NETWORK, KINDS[name])
    with torch.no_grad():
        for seed in range(3):
            codec.quantizer(codec.unquantized(pictures(8, seed=seed)))
    return codec.eval()


@pytest.mark.parametrize("name", KINDS)
@torch.no_grad()
def test_codes_are_all_that_decoding_needs(name):
    codec, pixels = codec_of(name), pictures(3)
    codec.measure([pixels])
    codes = codec.encode(pixels)
    assert codec.discrete and codes.dtype == torch.int64
    assert codes.shape == (3, sum(h * w for h, w in codec.maps(CELLS)))
    assert codes.min() >= 0 and codes.max() < codec.vocabulary
    back = codec.decode(codes, CELLS)
    assert back.shape == pixels.shape
    assert torch.equal(back, codec.reconstruct(pixels))
    latents = codec.codes_to_latents(codes, CELLS)
    assert latents.shape == (3, codec.channels, *CELLS)
    torch.testing.assert_close(codec.restore(latents).clamp(-1, 1), back, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(codec.from_raw(codec.to_raw(pixels)).clamp(-1, 1), back, atol=1e-5, rtol=1e-5)
    used = latents.double().std((0, 2, 3), unbiased=False) > 0.1  # a channel may be constant
    assert (latents.double().std((0, 2, 3), unbiased=False)[used] - 1).abs().max() < 1e-3
    assert latents.double().mean((0, 2, 3)).abs().max() < 1e-3
    # A picture alone has the codes that it has in a batch, in any mode.
    assert torch.equal(codec.train().encode(pixels[1:2]), codes[1:2])


@pytest.mark.parametrize("name", KINDS)
@torch.no_grad()
def test_inputs_are_the_sums_of_the_maps_before(name):
    codec, pixels = codec_of(name), pictures(2)
    codec.measure([pixels])
    codes = codec.encode(pixels)
    inputs = codec.inputs(codes, CELLS)
    assert inputs.shape == (*codes.shape, codec.channels)
    total, place = torch.zeros(2, codec.channels, *CELLS), 0
    for number, (rows, columns) in enumerate(codec.maps(CELLS)):
        seen = (total - codec.mean[:, None, None]) / codec.std[:, None, None]
        expected = adaptive_avg_pool2d(seen, (rows, columns)).flatten(2).transpose(1, 2)
        mine = inputs[:, place : place + rows * columns]
        torch.testing.assert_close(mine, expected, atol=1e-4, rtol=1e-4)
        assert torch.equal(codec.next_input(codes[:, :place], CELLS), mine)  # drawing sees what training saw
        total = total + codec.quantizer.term(number, codes[:, place : place + rows * columns], CELLS)
        place += rows * columns
    restored, expected = codec.restore(codec.codes_to_latents(codes, CELLS)), codec.from_raw(total)
    torch.testing.assert_close(restored, expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(codec.decode_latents(codec.codes_to_latents(codes, CELLS)), restored.clamp(-1, 1))


@pytest.mark.parametrize("name", KINDS)
@torch.no_grad()
def test_a_saved_codec_gives_equal_codes(name, tmp_path):
    codec, pixels = codec_of(name), pictures()
    codec.measure([pixels])
    codec.save(tmp_path)
    again = load_codec(tmp_path)
    assert isinstance(again, DiscreteCodec) and again.settings == codec.settings
    codes = codec.encode(pixels)
    assert torch.equal(again.encode(pixels), codes)
    assert torch.equal(again.decode(codes, CELLS), codec.decode(codes, CELLS))
    assert torch.equal(again.codes_to_latents(codes, CELLS), codec.codes_to_latents(codes, CELLS))
    theirs = diffusers.AutoencoderDC.from_pretrained(tmp_path, use_safetensors=True)  # the network is theirs
    latents = codec.unquantized(pixels)
    torch.testing.assert_close(theirs.encode(pixels).latent, latents, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_other_sizes_have_maps_of_their_own():
    codec = codec_of("multi_scale")
    assert codec.maps((8, 8)) == [(2, 2), (4, 4), (8, 8)]
    assert codec.maps((1, 3)) == [(1, 1), (1, 2), (1, 3)]
    for height, width in ((4, 12), (32, 16)):
        pixels = pictures(1, height, width)
        assert codec.reconstruct(pixels).shape == pixels.shape
    with pytest.raises(UserError, match="multiples of 4"):
        codec.encode(pictures(1, 16, 18))


@torch.no_grad()
def test_a_tiny_autoencoder_may_be_the_network(tmp_path):
    codec = DiscreteCodec({"_class_name": "AutoencoderTiny"} | TINY, {"kind": "fsq", "levels": [5, 5]})
    codec.save(tmp_path)
    pixels = pictures()
    assert torch.equal(load_codec(tmp_path).encode(pixels), codec.eval().encode(pixels))


# ---- diffusers' VQModel -------------------------------------------------------------------------


@pytest.mark.parametrize("name", CODED)
@torch.no_grad()
def test_vqmodel_folders_are_codecs(name, tmp_path, caplog):
    network, pixels = saved(name, tmp_path / "from"), pictures()
    with caplog.at_level(logging.WARNING):
        codec = load_codec(tmp_path / "from")
    assert "codec.json" in caplog.text
    assert codec.discrete and codec.vocabulary == 12 and codec.stride == 2
    cells = (8, 12)
    codes = codec.encode(pixels)
    latents = network.encode(pixels).latents
    quantized, _, (_, _, theirs) = network.quantize(latents)
    assert torch.equal(codes.flatten(), theirs)
    expected = network(pixels).sample.clamp(-1, 1)
    torch.testing.assert_close(codec.decode(codes, cells), expected, atol=1e-4, rtol=1e-4)
    factor = network.config.scaling_factor
    torch.testing.assert_close(codec.codes_to_latents(codes, cells), quantized * factor, atol=1e-4, rtol=1e-4)
    codec.measure([pixels])
    codec.save(tmp_path / "to")
    again = load_codec(tmp_path / "to")
    assert torch.equal(again.encode(pixels), codes)
    assert torch.equal(again.std, codec.std)
    diffusers.VQModel.from_pretrained(tmp_path / "to", use_safetensors=True)


# ---- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "quantizer", "message"),
    [
        (NETWORK, None, "AutoencoderDC has no codebook"),
        ({"_class_name": "VQModel"}, {"kind": "vq", "codes": 8}, "VQModel brings its own codebook"),
        ({"_class_name": "AutoencoderKL"} | KL, {"kind": "vq", "codes": 8}, "encodes to distributions"),
        (NETWORK, {"kind": "grouped", "codes": 8, "groups": 4}, "share out 6 latent channels"),
    ],
)
def test_what_does_not_go_together(config, quantizer, message):
    with pytest.raises(UserError, match=message):
        DiscreteCodec(config, quantizer)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quantizer": {"kind": "vq", "codes": 8}}, r"quantizer\.safetensors does not fit"),
        ({"quantizer": {"kind": "vqq"}}, "did you mean 'vq'"),
        ({"quantizer": None}, "quantizer is None; expected a dict"),
        ({"class": "DiscretCodec"}, "expected one of DiffusersCodec, DiscreteCodec"),
    ],
)
def test_wrong_codec_json(tmp_path, changes, message):
    codec_of("vq").save(tmp_path)
    path = tmp_path / "codec.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(UserError, match=message):
        load_codec(tmp_path)


def test_a_quantizer_that_is_missing_or_damaged(tmp_path):
    codec_of("vq").save(tmp_path)
    path = tmp_path / "quantizer.safetensors"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="damaged"):
        load_codec(tmp_path)
    path.unlink()
    with pytest.raises(UserError, match=r"quantizer\.safetensors is missing"):
        load_codec(tmp_path)


def test_continuous_codecs_say_so():
    assert not DiffusersCodec(NETWORK).discrete
