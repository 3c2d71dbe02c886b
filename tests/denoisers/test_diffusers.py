"""diffusers' transformers behind their adapters, against diffusers' own pipelines on the same inputs."""

import diffusers
import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit as edit
from PIL import Image

from unimodal.denoisers import DENOISERS, load_denoiser
from unimodal.denoisers.denoiser import Conditions, rows_of
from unimodal.denoisers.from_diffusers import apart
from unimodal.diffusion.guidance import Guidance, combine
from unimodal.diffusion.process import FLOW, x0_from_velocity
from unimodal.diffusion.solvers import euler
from unimodal.diffusion.times import grid
from unimodal.errors import UserError
from unimodal.images.patches import from_tokens, to_tokens

CONDITION, CHANNELS, CELLS = 12, 4, (8, 12)
ROTARY = {"attention_head_dim": 16, "num_attention_heads": 2, "axes_dims_rope": (4, 6, 6)}
CONFIGS = {
    "sd3": {
        "sample_size": 8,
        "patch_size": 2,
        "num_layers": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 4,
        "joint_attention_dim": CONDITION,
        "caption_projection_dim": 32,
        "pooled_projection_dim": 16,
        "pos_embed_max_size": 12,
        "qk_norm": "rms_norm",
    },
    "sana": {
        "sample_size": 8,
        "patch_size": 1,
        "num_layers": 2,
        "num_attention_heads": 4,
        "attention_head_dim": 8,
        "num_cross_attention_heads": 4,
        "cross_attention_head_dim": 8,
        "cross_attention_dim": 32,
        "caption_channels": CONDITION,
    },
    "flux": ROTARY
    | {
        "num_layers": 1,
        "num_single_layers": 1,
        "joint_attention_dim": CONDITION,
        "pooled_projection_dim": 16,
        "guidance_embeds": True,
    },
    "qwen_image": ROTARY | {"num_layers": 2, "joint_attention_dim": CONDITION},
}
MASKLESS, TOKENLESS = ("sd3", "flux"), ("sd3", "sana")
SHIFT = 3.0


def randomised(model):
    generator = torch.Generator().manual_seed(1)
    for name, weight in model.named_parameters():
        centre = 1.0 if weight.dim() == 1 and "norm" in name and "bias" not in name else 0.0
        torch.nn.init.normal_(weight, centre, 0.15, generator=generator)
    return model.eval()


def build(kind, latents="none", **options):
    return randomised(load_denoiser(kind)(CHANNELS, latents, {"config": CONFIGS[kind]} | options))


def told(rows=2, length=5, ragged=False, references=None):
    cond = torch.randn(rows, length, CONDITION, generator=torch.Generator().manual_seed(1))
    mask = torch.ones(rows, length, dtype=torch.bool)
    if ragged:
        for row in range(rows):
            mask[row, :row] = False
    return Conditions.of(cond, mask, references or [None] * rows)


def noised(rows=2, cells=(4, 6)):
    generator = torch.Generator().manual_seed(2)
    return torch.randn(rows, CHANNELS, *cells, generator=generator), torch.rand(rows, generator=generator)


def test_every_transformer_of_diffusers_is_tried():
    assert set(CONFIGS) == set(DENOISERS) - {"dit"}


TEXT = ("vae", "text_encoder", "tokenizer")


def pipeline_of(name, parts, model):
    """A pipeline with nothing in it but transformer and scheduler."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=SHIFT)
    pipeline = getattr(diffusers, name)(
        transformer=model.transformer, scheduler=scheduler, **dict.fromkeys((*TEXT, *parts))
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def asked_of_all(conditions, ready, steps):
    """What every pipeline takes, the second half of the conditions being negative."""
    cond, negative = conditions.cond.chunk(2)
    common = {
        "num_inference_steps": steps,
        "sigmas": np.linspace(1, 1 / steps, steps).tolist(),
        "output_type": "latent",
        "prompt_embeds": cond,
        "negative_prompt_embeds": negative,
    }
    if hasattr(ready, "pooled"):
        common["pooled_prompt_embeds"], common["negative_pooled_prompt_embeds"] = ready.pooled.chunk(2)
    return common


def theirs(kind, model, conditions, ready, noise, steps, scale):
    """Latents that the pipeline makes of `noise`."""
    mask, negative_mask = conditions.mask.long().chunk(2)
    special = {}
    if kind == "sd3":
        more = ("text_encoder_2", "tokenizer_2", "text_encoder_3", "tokenizer_3")
        pipeline = pipeline_of("StableDiffusion3Pipeline", more, model)
        special = {"latents": noise, "guidance_scale": scale}
    elif kind == "sana":
        pipeline = pipeline_of("SanaPipeline", (), model)
        special = {
            "latents": noise,
            "guidance_scale": scale,
            "use_resolution_binning": False,
            "negative_prompt": None,
        }
        special |= {"prompt_attention_mask": mask, "negative_prompt_attention_mask": negative_mask}
    elif kind == "flux":
        pipeline = pipeline_of("FluxPipeline", ("text_encoder_2", "tokenizer_2"), model)
        special = {"guidance_scale": model.guidance, "true_cfg_scale": scale}
    else:
        pipeline = pipeline_of("QwenImagePipeline", (), model)
        special = {"true_cfg_scale": scale, "prompt_embeds_mask": mask}
        special["negative_prompt_embeds_mask"] = negative_mask
    if kind in ("flux", "qwen_image"):
        special["latents"] = to_tokens(noise, 2)
    common = asked_of_all(conditions, ready, steps)
    images = pipeline(**size_of(pipeline), **common, **special).images
    return from_tokens(images, CELLS, 2) if kind in ("flux", "qwen_image") else images


def size_of(pipeline):
    return {side: cells * pipeline.vae_scale_factor for side, cells in zip(("height", "width"), CELLS)}


def ours(model, ready, noise, steps, scale):
    """Euler from noise to latents, the second half of what is ready being negative."""

    def predict_x0(x, t):
        full, null = model(x.repeat(2, 1, 1, 1), t.expand(2 * len(x)), ready).chunk(2)
        return x0_from_velocity(x, combine(full, {"text": null}, Guidance(scale)), t)

    found = euler(predict_x0, noise, grid(steps, SHIFT), FLOW)
    assert (found - noise).abs().max() > 0.1
    return found


@torch.no_grad()
@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_sampling_gives_the_pipelines_numbers(kind, scale):
    """The whole way from noise to latents, shifted noise levels and guidance included."""
    if kind == "qwen_image" and scale != 1:
        pytest.skip(
            "its pipeline brings guided velocities back to the plain ones' size, position by position"
        )
    model, conditions, steps = build(kind), told(rows=4), 5
    noise = torch.randn(2, CHANNELS, *CELLS, generator=torch.Generator().manual_seed(5))
    ready = model.prepare(conditions)
    found = ours(model, ready, noise, steps, scale)
    expected = theirs(kind, model, conditions, ready, noise, steps, scale)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


OTHER = (4, 6)  # cells of the picture that is edited


@torch.no_grad()
@pytest.mark.parametrize(("kind", "scale"), [("flux", 1.0), ("flux", 4.0), ("qwen_image", 1.0)])
def test_editing_gives_the_edit_pipelines_numbers(monkeypatch, kind, scale):
    """FLUX.1 Kontext and Qwen-Image-Edit, whose reference stands behind the drawn picture as tokens.

    Both pipelines bring a reference to about a megapixel and encode it; here they get its latents instead.
    """
    steps, one = 5, torch.randn(CHANNELS, *OTHER, generator=torch.Generator().manual_seed(6))
    model, conditions = build(kind, "vae_seq"), told(rows=4, references=[one] * 4)
    noise = torch.randn(2, CHANNELS, *CELLS, generator=torch.Generator().manual_seed(5))
    ready = model.prepare(conditions)
    special = {"latents": to_tokens(noise, 2), "true_cfg_scale": scale}
    if kind == "flux":
        pipeline = pipeline_of("FluxKontextPipeline", ("text_encoder_2", "tokenizer_2"), model)
        pipeline.latent_channels = CHANNELS
        size = size_of(pipeline)
        special |= {"image": one[None], "guidance_scale": model.guidance}
        special |= {"max_area": size["height"] * size["width"]}
    else:
        pipeline = pipeline_of("QwenImageEditPipeline", ("processor",), model)
        size, cell = size_of(pipeline), pipeline.vae_scale_factor
        monkeypatch.setattr(edit, "calculate_dimensions", lambda *_: (OTHER[1] * cell, OTHER[0] * cell, None))
        monkeypatch.setattr(pipeline, "_encode_vae_image", lambda image, generator: one[None, :, None])
        mask, _ = conditions.mask.long().chunk(2)
        special |= {"image": Image.new("RGB", (96, 64)), "prompt_embeds_mask": mask}
    images = pipeline(**size, **asked_of_all(conditions, ready, steps), **special).images
    torch.testing.assert_close(
        ours(model, ready, noise, steps, scale), from_tokens(images, CELLS, 2), atol=1e-3, rtol=1e-3
    )


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_batch_equals_its_singles_wherever_the_padding_is(kind):
    model = build(kind, **({"length": 7} if kind in MASKLESS else {}))
    conditions, (x, t) = told(rows=3, ragged=True), noised(3)
    wild = torch.where(conditions.mask[..., None], conditions.cond, 50.0)
    mixed = Conditions(wild, conditions.mask, None, conditions.referenced)
    together = model(x, t, model.prepare(mixed))
    for row in range(3):
        real = conditions.mask[row]
        alone = Conditions.of(conditions.cond[row][real][None], real[real][None], [None])
        said = model(x[row : row + 1], t[row : row + 1], model.prepare(alone))
        torch.testing.assert_close(together[row], said[0], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("latents", ["vae_channel", "vae_seq"])
def test_a_reference_counts_only_where_there_is_one(kind, latents):
    if latents == "vae_seq" and kind in TOKENLESS:
        with pytest.raises(UserError, match=r"Set model\.reference=vlm, .* or model\.reference=vae_channel"):
            build(kind, latents)
        return
    model, (x, t) = build(kind, latents), noised()
    mixed = model(x, t, model.prepare(told(references=[None, torch.randn(CHANNELS, 4, 6)])))
    none = model(x, t, model.prepare(told()))
    torch.testing.assert_close(mixed[0], none[0], atol=1e-4, rtol=1e-3)
    assert (mixed[1] - none[1]).abs().max() > 1e-3


@pytest.mark.parametrize("kind", CONFIGS)
def test_pretrained_weights_are_taken_and_new_channels_begin_at_zero(tmp_path, kind):
    plain, wider = build(kind), build(kind, "vae_channel")
    before, (x, t) = build(kind), noised()
    randomised(plain.transformer)
    plain.transformer.save_pretrained(tmp_path)
    for model in (before, wider):
        torch.nn.init.zeros_(next(model.transformer.parameters()))
        model.take(tmp_path)
        if hasattr(model, "pool"):
            model.pool.load_state_dict(plain.pool.state_dict())
    said = plain(x, t, plain.prepare(told()))
    torch.testing.assert_close(before(x, t, before.prepare(told())), said)
    references = [torch.randn(CHANNELS, 4, 6), None]
    again = wider(x, t, wider.prepare(told(references=references)))
    torch.testing.assert_close(again, said, atol=1e-5, rtol=1e-4)
    other = load_denoiser(kind)(CHANNELS, "none", {"config": CONFIGS[kind] | {"num_layers": 3}})
    with pytest.raises(UserError, match="does not fit model"):
        other.take(tmp_path)
    with pytest.raises(UserError, match="cannot be read as a"):
        plain.take(tmp_path / "gone")


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_config_that_is_none_is_a_sentence(kind):
    with pytest.raises(UserError, match="does not describe a"):
        load_denoiser(kind)(CHANNELS, "none", {"config": {"depth": 3}})


@pytest.mark.parametrize("kind", MASKLESS)
def test_without_a_mask_lengths_must_be_told(kind):
    with pytest.raises(UserError, match=r"takes no mask: set model\.denoiser\.options\.length"):
        build(kind).prepare(told(ragged=True))
    with pytest.raises(UserError, match=r"has 5 positions, model\.denoiser\.options\.length is only 4"):
        build(kind, length=4).prepare(told())


def test_what_a_transformer_cannot_do_is_a_sentence():
    model = build("sd3")
    with pytest.raises(UserError, match="larger than the 24"):
        model(*noised(cells=(8, 26)), model.prepare(told()))
    for kind, wrong in (("sana", "guidance_embeds"), ("qwen_image", "use_additional_t_cond")):
        with pytest.raises(UserError, match=wrong):
            load_denoiser(kind)(CHANNELS, "none", {"config": CONFIGS[kind] | {wrong: True}})


def test_rows_computed_apart_come_back_in_order():
    for there in ([True, False, True, False], [True] * 4, [False] * 4):
        got = apart(torch.tensor(there), lambda rows, kind: rows * 10 + kind)
        assert got.tolist() == [10 * row + kind for row, kind in enumerate(there)]


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "latents"),
    [(kind, latents) for kind in CONFIGS for latents in ("none", "vae_channel")]
    + [(kind, "vae_seq") for kind in CONFIGS if kind not in TOKENLESS],
)
def test_what_is_prepared_once_serves_several_noise_levels(kind, latents):
    model, references = build(kind, latents), [torch.randn(CHANNELS, 4, 6), None]
    again = torch.tensor([0, 1, 1, 0])
    conditions, (x, t) = told(references=references), noised(4)
    found = model(x, t, rows_of(model.prepare(conditions), again))
    repeated = Conditions.of(conditions.cond[again], conditions.mask[again], [references[n] for n in again])
    torch.testing.assert_close(found, model(x, t, model.prepare(repeated)))
