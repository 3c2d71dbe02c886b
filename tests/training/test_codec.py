"""Training a codec: its pictures, its losses, and the one loop around them."""

from functools import partial
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image

from tests.images.networks import DC, pictures, saved
from tests.training.codecs import NETWORKS, built, codec_recipe, total
from unimodal.errors import UserError
from unimodal.images.anchor import Anchor
from unimodal.images.codec import PixelPatches
from unimodal.images.folder import load_codec
from unimodal.images.signal import to_signal
from unimodal.training.codec import CodecTrainee, cut
from unimodal.training.loop import train


@pytest.fixture
def rows(tmp_path):
    """Ten rows, each a picture of one colour; every fifth row is text alone."""
    lines = []
    for k in range(10):
        Image.new("RGB", (24, 20), (25 * k, 255 - 25 * k, 128)).save(tmp_path / f"{k}.png")
        lines.append(f'{{"messages": [{{"role": "user", "content": "picture {k}"}}, ')
        content = '"<image>"}], "images": ["%d.png"]}' % k if k % 5 else '"none"}]}'  # noqa: UP031
        lines[-1] += '{"role": "assistant", "content": ' + content
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


recipe = partial(codec_recipe, batch_size=4, measured=16, clutter=0.3)


def build(rows, tmp_path, **model) -> CodecTrainee:
    return built(recipe(rows, tmp_path / "out", **model))


@pytest.mark.parametrize("class_name", NETWORKS)
def test_overfitting_one_batch_lowers_the_loss(class_name, rows, tmp_path):
    trainee = build(rows, tmp_path, class_name=class_name, noise=0.05)
    batch = next(trainee.batches(None, 0, 1))
    optimizer = torch.optim.AdamW(trainee.module.parameters(), lr=3e-3)
    before = total(trainee, batch).item()
    for _ in range(60):
        optimizer.zero_grad()
        total(trainee, batch).backward()
        optimizer.step()
    assert total(trainee, batch).item() < 0.6 * before


def test_batches_go_on_where_they_stopped_and_shards_share_the_numbers(rows, tmp_path):
    trainee = build(rows, tmp_path)
    alone = list(islice(trainee.batches(None, 0, 1), 6))
    again = list(islice(trainee.batches(alone[2].state, 0, 1), 3))
    for a, b in zip(alone[3:], again):
        assert a.sample_ids == b.sample_ids
        assert np.array_equal(a.pictures, b.pictures)
    shards = [list(islice(trainee.batches(None, rank, 2), 3)) for rank in (0, 1)]
    ids = [i for shard in shards for batch in shard for i in batch.sample_ids]
    assert len(set(ids)) > 4
    assert {i for b in alone[:4] for i in b.sample_ids} <= set(ids)
    assert not {i for b in shards[0] for i in b.sample_ids if "clutter" in i} & {
        i for b in shards[1] for i in b.sample_ids if "clutter" in i
    }


def test_rows_without_pictures_are_passed_over(rows, tmp_path):
    trainee = build(rows, tmp_path, clutter=0.0)
    ids = {i for batch in islice(trainee.batches(None, 0, 1), 20) for i in batch.sample_ids}
    assert {int(i.rsplit(":", 1)[1]) for i in ids} == {2, 3, 4, 5, 7, 8, 9, 10}  # lines 1 and 6 are text


def test_a_mixture_without_any_picture_is_an_error(tmp_path):
    path = tmp_path / "text.jsonl"
    path.write_text('{"text": "no picture here"}\n', encoding="utf-8")
    trainee = build(path, tmp_path, clutter=0.0)
    with pytest.raises(UserError, match="hold no picture"):
        next(trainee.batches(None, 0, 1))


def test_a_cut_is_a_part_of_the_picture_and_small_ones_are_scaled_up():
    picture = np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)
    part = cut(picture, 16, np.random.default_rng(0))
    windows = np.lib.stride_tricks.sliding_window_view(picture, (16, 16, 3))[:, :, 0]
    assert (windows == part).all((2, 3, 4)).any()
    assert np.array_equal(cut(picture[:16, :16], 16, np.random.default_rng(0)), picture[:16, :16])
    assert cut(picture[:5, :9], 16, np.random.default_rng(0)).shape == (16, 16, 3)


def test_signal_and_back():
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    signal = to_signal(pixels)
    assert signal.min() == -1
    assert signal.max() == 1
    back = ((signal + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    assert np.array_equal(back, pixels)


@pytest.mark.parametrize("class_name", NETWORKS)
def test_the_loop_trains_a_codec_folder(class_name, rows, tmp_path):
    folder = train(recipe(rows, tmp_path / "out", class_name=class_name))
    codec = load_codec(folder)
    assert (codec.std != 1).all()
    assert (folder / "recipe.yaml").is_file()
    with torch.no_grad():
        assert codec.decode(codec.encode(pictures())).shape == (2, 3, 16, 24)


def test_saved_latents_are_normalised_over_fresh_pictures(rows, tmp_path):
    trainee = build(rows, tmp_path)
    (tmp_path / "codec").mkdir()
    trainee.save(tmp_path / "codec", trainee.module)
    codec = load_codec(tmp_path / "codec")
    with torch.no_grad():
        latents = torch.cat([codec.encode(batch) for batch in trainee._fresh("cpu")])
    assert latents.mean((0, 2, 3)).abs().max() < 1e-3
    assert (latents.std((0, 2, 3), unbiased=False) - 1).abs().max() < 1e-3


def test_training_only_the_decoder_leaves_latents_alone(rows, tmp_path):
    before = load_codec(train(recipe(rows, tmp_path / "first")))
    settings = {"init_from": str(tmp_path / "first/model"), "train_encoder": False}
    with pytest.raises(UserError, match=r"model\.measured changes nothing here"):
        train(recipe(rows, tmp_path / "second", **settings))
    after = load_codec(train(recipe(rows, tmp_path / "second", **settings, measured=2048)))
    pixels = pictures()
    with torch.no_grad():
        latents = before.encode(pixels)
        assert torch.equal(after.encode(pixels), latents)
        assert not torch.equal(after.decode(latents), before.decode(latents))


def test_an_anchor_keeps_the_latents_of_pictures_that_were_known(rows, tmp_path):
    first = str(train(recipe(rows, tmp_path / "first", steps=60)))
    before, pixels = load_codec(first), pictures()
    moved = {}
    for name, model in {
        "free": {},
        "held": {"loss": {"anchor": 100.0}, "anchor_psnr": 0.0, "measured": 2048},
        "unknown": {"loss": {"anchor": 100.0}, "anchor_psnr": 99.0, "measured": 2048},
    }.items():
        after = load_codec(train(recipe(rows, tmp_path / name, init_from=first, steps=30, **model)))
        with torch.no_grad():
            moved[name] = float((after.to_raw(pixels) - before.to_raw(pixels)).square().mean())
        same = torch.equal(after.mean, before.mean) and torch.equal(after.std, before.std)
        assert same == (name != "free")
    assert moved["held"] < 0.2 * min(moved["free"], moved["unknown"])


def test_an_anchor_needs_a_codec_to_go_on_from(rows, tmp_path):
    with pytest.raises(UserError, match=r"model\.loss\.anchor = 1\.0, but this codec has no such term"):
        build(rows, tmp_path, loss={"anchor": 1.0})
    with pytest.raises(
        UserError, match=r"model\.anchor_psnr changes nothing here: it is for model\.loss\.anchor"
    ):
        build(rows, tmp_path, anchor_psnr=20.0)


def test_an_anchor_measures_in_deviations_of_the_channel():
    codec = PixelPatches(8)
    pixels = pictures(2, 16, 16)
    codec.measure([pixels])
    anchor = Anchor(codec, 30.0)
    assert torch.equal(anchor(codec.to_raw(pixels), pixels), torch.zeros(2))
    moved = codec.to_raw(pixels) + 3 * codec.std[:, None, None]
    assert torch.allclose(anchor(moved, pixels), torch.full((2,), 9.0))


def test_samples_show_originals_over_reconstructions(rows, tmp_path):
    trainee = build(rows, tmp_path)
    sheet = trainee.samples(3)
    assert sheet.size == (8 * 16, 4 * 16)
    assert np.array_equal(np.asarray(sheet), np.asarray(trainee.samples(3)))
    assert not np.array_equal(np.asarray(sheet), np.asarray(trainee.samples(4)))


def test_flops_are_three_forwards_of_every_picture(rows, tmp_path):
    trainee = build(rows, tmp_path, config=DC | {"encoder_layers_per_block": (1, 1, 1)})
    flops = trainee.flops(next(trainee.batches(None, 0, 1)))
    counted = 0

    def count(layer, inputs, output):
        nonlocal counted
        counted += 2 * layer.weight[0].numel() * output[0].numel()

    for layer in trainee.module.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(count)
    with torch.no_grad():
        trainee.module.decode(trainee.module.encode(pictures(1, 16, 16)))
    assert flops == 3 * 4 * counted


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"image_size": 18}, r"image_size = 18 is no multiple .* 4"),
        ({"train_encoder": False}, "set model.init_from"),
        ({"fold": 2}, "in_channels = 12"),
        ({"config": {"latent_chanels": 4}}, "did you mean 'latent_channels'"),
    ],
)
def test_what_does_not_go_together_is_refused(model, message, rows, tmp_path):
    with pytest.raises(UserError, match=message):
        build(rows, tmp_path, **model)


def test_init_from_brings_its_own_network(rows, tmp_path):
    saved("dc", tmp_path / "codec")
    assert build(rows, tmp_path, init_from=str(tmp_path / "codec")).module.channels == 6
    with pytest.raises(UserError, match=r"model\.config and model\.init_from exclude"):
        build(rows, tmp_path, init_from=str(tmp_path / "codec"), config=DC)
    PixelPatches(8).save(tmp_path / "pixels")
    with pytest.raises(UserError, match="nothing to train"):
        build(rows, tmp_path, init_from=str(tmp_path / "pixels"))
