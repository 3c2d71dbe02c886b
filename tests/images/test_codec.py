"""Codecs against diffusers' own encode and decode, their folders, and what they refuse."""

import json
import logging
import shutil
import subprocess
import sys

import diffusers
import pytest
import torch
from safetensors.torch import load_file

from tests.images.networks import DC, NETWORKS, pictures, saved
from unimodal.errors import UserError
from unimodal.images.codec import Codec, DiffusersCodec, PixelPatches
from unimodal.images.folder import SHIPPED, load_codec
from unimodal.images.losses import psnr

pytestmark = pytest.mark.usefixtures("_one_thread")


@pytest.fixture
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def reference_scale(config: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """Shift and factor with which diffusers' pipelines feed latents to their generators."""
    scale = config.get("scaling_factor") or 1.0
    if config.get("latents_mean"):
        std = torch.tensor(config["latents_std"])
        return torch.tensor(config["latents_mean"])[:, None, None], scale / std[:, None, None]
    return torch.tensor(config.get("shift_factor") or 0.0), torch.tensor(scale)


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_latents_and_pictures_are_those_of_diffusers(name, tmp_path, caplog):
    network, pixels = saved(name, tmp_path), pictures()
    with caplog.at_level(logging.WARNING):
        codec = load_codec(tmp_path)
    assert "codec.json" in caplog.text  # the scale was chosen for the user, who is told
    out = network.encode(pixels)
    raw = out.latent_dist.mode() if hasattr(out, "latent_dist") else getattr(out, "latents", None)
    raw = out.latent if raw is None else raw
    shift, factor = reference_scale(network.config)
    latents = codec.encode(pixels)
    torch.testing.assert_close(latents, (raw - shift) * factor, atol=1e-5, rtol=1e-5)
    assert (codec.stride, codec.channels) == (NETWORKS[name][2], raw.shape[1])
    assert latents.shape == (2, codec.channels, 16 // codec.stride, 24 // codec.stride)
    expected = network.decode(raw).sample.clamp(-1, 1)
    torch.testing.assert_close(codec.decode(latents), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["kl", "asymmetric", "tiny", "dc", "dc-attention"])
@torch.no_grad()
def test_saved_codec_loads_to_the_same_and_in_diffusers(name, tmp_path):
    network, pixels = saved(name, tmp_path / "from"), pictures(8)
    codec = load_codec(tmp_path / "from")
    codec.measure([pixels])
    codec.save(tmp_path / "to")
    again = load_codec(tmp_path / "to")
    latents = codec.encode(pixels)
    assert torch.equal(again.encode(pixels), latents)
    assert torch.equal(again.decode(latents), codec.decode(latents))
    theirs = getattr(diffusers, NETWORKS[name][0]).from_pretrained(tmp_path / "to", use_safetensors=True)
    assert theirs.config.latent_channels == network.config.latent_channels
    assert all(torch.equal(a, b) for a, b in zip(theirs.state_dict().values(), network.state_dict().values()))


def test_sharded_weights_load(tmp_path):
    network = saved("dc", tmp_path / "whole")
    network.save_pretrained(tmp_path / "sharded", max_shard_size="10KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    whole, sharded = load_codec(tmp_path / "whole"), load_codec(tmp_path / "sharded")
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), sharded.state_dict().values()))


@pytest.mark.parametrize(
    "codec", [lambda: DiffusersCodec({"_class_name": "AutoencoderDC"} | DC), PixelPatches]
)
@torch.no_grad()
def test_measured_latents_have_mean_0_and_deviation_1(codec):
    torch.manual_seed(0)
    codec: Codec = codec()
    batches = [pictures(5, seed=1), pictures(3, seed=2) * 0.5]  # batches of unequal size weigh by pictures
    codec.measure(batches)
    latents = torch.cat([codec.encode(batch) for batch in batches]).double()
    assert latents.mean((0, 2, 3)).abs().max() < 1e-4
    assert (latents.std((0, 2, 3), unbiased=False) - 1).abs().max() < 1e-4


def test_a_channel_that_never_changes_is_not_divided_by_zero():
    codec = PixelPatches(8)
    codec.measure([torch.full((2, 3, 16, 16), 0.25)])
    assert torch.equal(codec.encode(torch.full((1, 3, 16, 16), 0.25)), torch.zeros(1, 192, 2, 2))


@torch.no_grad()
def test_pixel_patches_are_exact_and_hold_the_pixels_of_their_square(tmp_path):
    codec, pixels = PixelPatches(8), pictures(2, 16, 24)
    latents = codec.encode(pixels)
    assert torch.equal(codec.decode(latents), pixels)
    square = pixels[1, :, 8:16, 16:24]
    assert torch.equal(latents[1, :, 1, 2].sort().values, square.flatten().sort().values)
    codec.measure([pixels])
    codec.save(tmp_path)
    again = load_codec(tmp_path)
    assert torch.equal(again.encode(pixels), codec.encode(pixels))
    torch.testing.assert_close(again.decode(again.encode(pixels)), pixels, atol=1e-6, rtol=0)


@torch.no_grad()
def test_folding_is_the_network_on_rearranged_pixels(tmp_path):
    torch.manual_seed(0)
    config = {"_class_name": "AutoencoderDC"} | DC | {"in_channels": 12}
    codec, pixels = DiffusersCodec(config, fold=2).eval(), pictures()
    codec.save(tmp_path)
    assert codec.stride == 8
    network = diffusers.AutoencoderDC.from_pretrained(tmp_path)
    folded = torch.stack([pixels[:, c, i::2, j::2] for c in range(3) for i in (0, 1) for j in (0, 1)], 1)
    latents = network.encode(folded).latent
    torch.testing.assert_close(codec.encode(pixels), latents, atol=1e-5, rtol=1e-5)
    assert load_codec(tmp_path).fold == 2
    restored, expected = codec.restore(latents), network.decode(latents).sample
    torch.testing.assert_close(restored[:, 1, 1::2, 0::2], expected[:, 4 + 2], atol=1e-5, rtol=1e-5)


def test_sides_must_fit_the_stride():
    with pytest.raises(UserError, match=r"16x20 .*stride 8.*multiples of 8"):
        PixelPatches(8).encode(pictures(1, 16, 20))


def test_the_plain_network_needs_no_diffusers(tmp_path):
    saved("dc", tmp_path)
    code = f"import sys; from unimodal.images.folder import load_codec; load_codec({str(tmp_path)!r}); "
    code += "sys.exit(any(name in sys.modules for name in ('diffusers', 'transformers', 'peft')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- what is refused ----------------------------------------------------------------------------


def edit_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_missing_folder(tmp_path):
    with pytest.raises(UserError, match=r"no codec folder .*nowhere.*unimodal train"):
        load_codec(tmp_path / "nowhere")


def test_folder_of_a_pipeline_names_the_inner_one(tmp_path):
    saved("kl", tmp_path / "vae")
    with pytest.raises(UserError, match=r"no config\.json.*Did you mean .*vae"):
        load_codec(tmp_path)


@pytest.mark.parametrize("name", ["my models/codec", "owner/na:me", "owner/" + "n" * 100])
def test_a_name_that_no_hub_has_is_a_missing_codec(name):
    with pytest.raises(UserError, match=r"there is no codec folder '.*'"):
        load_codec(name)


def test_a_hub_id_asks_for_the_files_of_one_folder(monkeypatch, tmp_path):
    from fnmatch import fnmatch

    files = ["config.json", "diffusion_pytorch_model.safetensors", "codec.json", "model_index.json"]
    others = ["vae/config.json", "unet/diffusion_pytorch_model.safetensors", "model.ckpt"]
    asked = []

    def fetch(name, allow_patterns, ignore_patterns):
        asked.extend(
            file
            for file in files + others
            if any(fnmatch(file, p) for p in allow_patterns)
            and not any(fnmatch(file, p) for p in ignore_patterns)
        )
        (tmp_path / "model_index.json").write_text("{}")
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    with pytest.raises(UserError, match=r"It is a whole pipeline: .*vae/"):
        load_codec("owner/pipeline")
    assert asked == files


def test_pickled_weights_are_not_read(tmp_path):
    network = saved("kl", tmp_path)
    (tmp_path / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(UserError, match=r"no weights: expected diffusion_pytorch_model\.safetensors"):
        load_codec(tmp_path)
    torch.save(network.state_dict(), tmp_path / "diffusion_pytorch_model.bin")
    with pytest.raises(UserError, match=r"only as diffusion_pytorch_model\.bin, a pickle"):
        load_codec(tmp_path)


@pytest.mark.parametrize("found", ["AutoencoderKl", "AutoencoderOobleck", None])
def test_unknown_class(tmp_path, found):
    saved("kl", tmp_path)
    edit_json(tmp_path / "config.json", _class_name=found)
    with pytest.raises(UserError, match=rf"config\.json: .*{found}.*AutoencoderDC"):
        load_codec(tmp_path)


def test_weights_of_another_network(tmp_path):
    saved("dc", tmp_path)
    edit_json(tmp_path / "config.json", latent_channels=12)
    with pytest.raises(UserError, match=r"do not fit its config\.json"):
        load_codec(tmp_path)


def test_damaged_weights(tmp_path):
    saved("dc", tmp_path)
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="damaged"):
        load_codec(tmp_path)


def test_missing_weight(tmp_path):
    from safetensors.torch import save_file

    saved("dc", tmp_path)
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    del weights["encoder.conv_out.bias"]
    save_file(weights, path)
    with pytest.raises(UserError, match=r"encoder\.conv_out\.bias"):
        load_codec(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": [0.0]}, "mean must be 6 numbers"),
        ({"std": [1.0, 1, 1, 1, 1, 0.0]}, "above 0"),
        ({"std": None}, "std is None"),
        ({"class": "Pixels"}, "class is 'Pixels'"),
        ({"fold": 2}, "in_channels = 12"),
    ],
)
def test_wrong_codec_json(tmp_path, changes, message):
    saved("dc", tmp_path)
    load_codec(tmp_path).save(tmp_path)
    edit_json(tmp_path / "codec.json", **changes)
    with pytest.raises(UserError, match=message):
        load_codec(tmp_path)


def test_broken_json(tmp_path):
    saved("dc", tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read as JSON"):
        load_codec(tmp_path)


def test_shard_outside_the_folder(tmp_path):
    saved("dc", tmp_path / "codec")
    weights = tmp_path / "codec" / "diffusion_pytorch_model.safetensors"
    shutil.move(weights, tmp_path / "other.safetensors")
    index = {"weight_map": {"encoder.conv_out.bias": "../other.safetensors"}}
    weights.with_suffix(".safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="in the same folder"):
        load_codec(tmp_path / "codec")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latent_channels": 7}, "latent_channels = 7 does not divide"),
        ({"encoder_layers_per_block": (1, 0, 1)}, "only the first stage"),
        ({"decoder_block_out_channels": (12, 12, 20)}, "no multiple of the next"),
        ({"decoder_layers_per_block": (1, 1)}, "one length"),
    ],
)
def test_impossible_widths(changes, message):
    with pytest.raises(UserError, match=message):
        DiffusersCodec({"_class_name": "AutoencoderDC"} | DC | changes)


@pytest.mark.parametrize("name", ["shapes-residual", "shapes-multi-scale"])
def test_a_shipped_codec_is_opened_by_its_name(name):
    codec, continuous = load_codec(name), load_codec("shapes-base")
    assert codec.discrete and all(weight.dtype == torch.float32 for weight in codec.parameters())
    pixels = continuous.reconstruct(pictures(2, 64, 64))
    assert psnr(codec.decode(codec.encode(pixels), (4, 4)), pixels).min() > 15


def test_a_shipped_model_lends_its_codec_by_name():
    by_name, by_folder = load_codec("shapes-base"), load_codec(SHIPPED / "shapes-base" / "codec")
    assert all(map(torch.equal, by_name.state_dict().values(), by_folder.state_dict().values()))
