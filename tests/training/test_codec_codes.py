"""Training codecs with codes: every quantizer overfits, the game resumes exactly, and wrong recipes."""

import logging
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.images.networks import pictures, saved
from tests.images.test_quantizers import KINDS
from tests.training.codecs import built, codec_recipe, total
from unimodal.errors import UserError
from unimodal.images.discrete import DiscreteCodec
from unimodal.images.folder import load_codec
from unimodal.images.losses import absolute_error
from unimodal.images.signal import to_signal
from unimodal.training.codec_trainee import CodecTrainee
from unimodal.training.loop import train

STEPS = 160


@pytest.fixture
def rows(tmp_path):
    """Eight pictures of 16x16: half one colour, half another."""
    lines = []
    for k in range(8):
        pixels = np.zeros((16, 16, 3), np.uint8)
        pixels[:, :8] = (32 * k, 255 - 32 * k, 128)
        pixels[:, 8:] = (255 - 32 * k, 64, 32 * k)
        Image.fromarray(pixels).save(tmp_path / f"{k}.png")
        said = '[{"role": "user", "content": "<image>"}, {"role": "assistant", "content": "so"}]'
        lines.append(f'{{"messages": {said}, "images": ["{k}.png"]}}')
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


recipe = partial(codec_recipe, batch_size=8, measured=8, clutter=0.0)


def build(rows, tmp_path, **model) -> CodecTrainee:
    return built(recipe(rows, tmp_path / "out", **model))


@pytest.mark.parametrize("name", KINDS)
def test_every_quantizer_overfits_eight_pictures(name, rows, tmp_path):
    trainee = build(rows, tmp_path, quantizer=KINDS[name])
    codec, batch = trainee.module, next(trainee.batches(None, 0, 1))
    pixels = to_signal(batch.pictures)
    optimizer = torch.optim.AdamW(codec.parameters(), lr=2e-3)
    with torch.no_grad():
        before = absolute_error(codec.reconstruct(pixels), pixels).mean()
    for _ in range(STEPS):
        optimizer.zero_grad()
        total(trainee, batch).backward()
        optimizer.step()
    for parameter in codec.parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all()
    with torch.no_grad():
        after = absolute_error(codec.eval().reconstruct(pixels), pixels).mean()
    assert after < 0.25 * before
    assert len(codec.encode(pixels).unique()) > 4


@pytest.mark.parametrize("name", ["vq", "fsq-projected", "multi_scale"])
def test_the_loop_trains_a_folder_with_codes(name, rows, tmp_path):
    folder = train(recipe(rows, tmp_path / "out", quantizer=KINDS[name]))
    codec = load_codec(folder)
    assert isinstance(codec, DiscreteCodec) and codec.quantizer.fitted == (name != "fsq-projected")
    with torch.no_grad():
        assert codec.reconstruct(pictures()).shape == (2, 3, 16, 24)
    said = (folder / "recipe.yaml").read_text()
    assert name != "vq" or "reset: 0.02" in said  # the quantizer's defaults are written out


GAME = {"weight": 0.5, "start": 2, "width": 8}


def test_the_game_begins_at_its_step_and_resumes_exactly(rows, tmp_path):
    options = {"quantizer": KINDS["vq"], "adversary": GAME, "loss": {"perceptual": 0.5}}
    steady = {"lr_scheduler_type": "constant"}
    train(recipe(rows, tmp_path / "halves", 3, train_section=steady, **options))
    train(recipe(rows, tmp_path / "halves", 4, train_section=steady | {"resume": "auto"}, **options))
    train(recipe(rows, tmp_path / "whole", 4, train_section=steady, **options))
    resumes = [tmp_path / run / "checkpoints" for run in ("halves", "whole")]
    halves, whole = (load_file(path / "step-000004/resume/weights.safetensors") for path in resumes)
    assert halves.keys() == whole.keys()
    assert all(torch.equal(value, whole[name]) for name, value in halves.items())
    assert whole["discriminator.batches"] == 4
    early = load_file(resumes[0] / "step-000003/resume/optimizer.safetensors")
    assert early["discriminator.conv_in.weight:step"] == 1  # two steps came before the game
    assert load_codec(tmp_path / "whole" / "model").discrete


def test_before_the_game_its_losses_are_zero_and_then_both_sides_learn(rows, tmp_path):
    trainee = build(rows, tmp_path, quantizer=KINDS["fsq"], adversary=GAME | {"start": 1})
    batch = next(trainee.batches(None, 0, 1))
    quiet = trainee.flops(batch)
    first = trainee.losses(batch, torch.Generator())
    assert first.sums["adversarial"] == first.sums["discriminator"] == 0
    second = trainee.losses(batch, torch.Generator())
    assert second.sums["discriminator"] > 0
    assert trainee.flops(batch) > quiet
    second.sums["adversarial"].backward()
    assert all(p.grad is None for p in trainee.discriminator.parameters())
    assert any(p.grad is not None for p in trainee.codec.network.decoder.parameters())
    trainee.module.eval()
    trainee.losses(batch, torch.Generator())
    assert trainee.discriminator.batches == 2  # only training counts


def test_accumulation_puts_off_the_start(rows, tmp_path):
    settings = recipe(
        rows,
        tmp_path,
        quantizer=KINDS["fsq"],
        adversary=GAME,
        train_section={"gradient_accumulation_steps": 3},
    )
    assert settings.model.build(settings).start == 6


def test_the_perceptual_term_says_what_it_is(rows, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        trainee = build(rows, tmp_path, quantizer=KINDS["vq"], loss={"perceptual": 0.5})
    assert "perceptual term: outlines" in caplog.text
    assert "perceptual" in trainee.weights


def test_flops_leave_the_codebook_alone(rows, tmp_path):
    trainee = build(rows, tmp_path, quantizer=KINDS["vq"])
    batch = next(trainee.batches(None, 0, 1))
    assert trainee.flops(batch) == build(rows, tmp_path).flops(batch)
    assert not trainee.codec.quantizer.fitted


def test_a_continuous_codec_gets_codes_and_a_coded_one_goes_on(rows, tmp_path):
    saved("dc", tmp_path / "dc")
    trainee = build(rows, tmp_path, init_from=str(tmp_path / "dc"), quantizer=KINDS["vq"])
    assert trainee.codec.discrete
    continuous = load_codec(tmp_path / "dc")
    with torch.no_grad():
        latents = trainee.codec.unquantized(pictures())
        torch.testing.assert_close(latents, continuous.to_raw(pictures()))
    first = train(recipe(rows, tmp_path / "first", init_from=str(tmp_path / "dc"), quantizer=KINDS["vq"]))
    second = train(
        recipe(rows, tmp_path / "second", init_from=str(first), train_encoder=False, measured=2048)
    )
    before, after = load_codec(first), load_codec(second)
    with torch.no_grad():
        codes = before.encode(pictures())
        assert torch.equal(after.encode(pictures()), codes)  # only the decoder learned
        assert not torch.equal(after.decode(codes, (4, 6)), before.decode(codes, (4, 6)))
    with pytest.raises(UserError, match=r"model\.quantizer is new"):
        build(rows, tmp_path, init_from=str(first), quantizer=KINDS["vq"])


def test_cells_are_joined_before_they_are_quantized(rows, tmp_path):
    saved("dc", tmp_path / "dc")
    trainee = build(rows, tmp_path, init_from=str(tmp_path / "dc"), quantizer=KINDS["vq"], patch=2)
    plain = load_codec(tmp_path / "dc")
    assert (trainee.codec.stride, trainee.codec.channels) == (2 * plain.stride, 4 * plain.channels)
    trainee.codec.save(tmp_path / "joined")
    assert load_codec(tmp_path / "joined").patch == 2
    with pytest.raises(UserError, match=r"model\.patch = 2 is of a new quantizer, and there is none"):
        build(rows, tmp_path, init_from=str(tmp_path / "dc"), patch=2)


def test_a_vqmodel_goes_on(rows, tmp_path):
    saved("vq", tmp_path / "vq")
    folder = train(recipe(rows, tmp_path / "out", init_from=str(tmp_path / "vq")))
    before, after = load_codec(tmp_path / "vq"), load_codec(folder)
    assert not torch.equal(before.network.quantize.embedding.weight, after.network.quantize.embedding.weight)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"quantizer": {"kind": "vqq"}}, r"'model\.quantizer'.*did you mean 'vq'"),
        ({"quantizer": {"kind": "vq", "codez": 3}}, r"'model\.quantizer'.*did you mean 'codes'"),
        ({"quantizer": {"kind": "vq", "codes": 1}}, r"model\.quantizer.*codes = 1"),
        (
            {"quantizer": {"kind": "vq", "codes": 8}, "class_name": "AutoencoderKL", "config": {}},
            "distributions",
        ),
        ({"quantizer": {"kind": "vq", "codes": 8}, "noise": 0.5}, r"model\.noise"),
        (
            {"quantizer": {"kind": "vq", "codes": 8}, "loss": {"evenness": 0.5}},
            r"loss\.evenness = 0\.5.*no such",
        ),
        ({"loss": {"commitment": 0.5}}, r"loss\.commitment = 0\.5.*it has absolute, squared, edge, latents"),
        ({"adversary": {"width": 12}}, "multiple of 8"),
        ({"adversary": {"widht": 8}}, r"did you mean 'model\.adversary\.width'"),
    ],
)
def test_what_does_not_go_together_is_refused(model, message, rows, tmp_path):
    with pytest.raises(UserError, match=message):
        build(rows, tmp_path, **model)
