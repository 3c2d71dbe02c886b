"""The diffusion transformer: what it may see, what it says untrained, that it learns to draw what is told."""

import pytest
import torch

from unimodal.denoisers.denoiser import Conditions, rows_of
from unimodal.denoisers.dit import DiT
from unimodal.diffusion.process import FLOW, velocity, x0_from_velocity
from unimodal.diffusion.solvers import euler
from unimodal.diffusion.times import grid
from unimodal.errors import UserError

OPTIONS = {"width": 32, "depth": 2, "heads": 2, "condition": 12}
KINDS = [
    (attention, latents) for attention in ("joint", "cross") for latents in ("none", "vae_seq", "vae_channel")
]


def build(attention, latents="none", seed=0, channels=3, randomised=True, **more):
    torch.manual_seed(seed)
    model = DiT(channels, latents, OPTIONS | {"attention": attention} | more)
    if randomised:
        for weight in model.parameters():
            torch.nn.init.normal_(weight, 1.0 if weight.dim() == 1 and weight.mean() > 0.4 else 0.0, 0.15)
    return model


def told(rows=3, length=5, referenced=(True, False, True), cells=(4, 6), channels=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(rows, length, dtype=torch.bool)
    for row in range(1, rows):
        mask[row, length - row :] = False
    cond = torch.randn(rows, length, OPTIONS["condition"], generator=generator)
    references = [
        torch.randn(channels, *cells, generator=generator) if there else None for there in referenced
    ]
    return Conditions.of(cond, mask, references)


def noised(rows=3, cells=(4, 6), channels=3, seed=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, channels, *cells, generator=generator), torch.rand(rows, generator=generator)


@pytest.mark.parametrize(("attention", "latents"), KINDS)
def test_untrained_it_says_the_best_straight_line(attention, latents):
    model = build(attention, latents, randomised=False)
    x, t = noised()
    at = t[:, None, None, None]
    expected = (2 * at - 1) / (at**2 + (1 - at) ** 2) * x
    torch.testing.assert_close(model(x, t, model.prepare(told())), expected)


@pytest.mark.parametrize(("attention", "latents"), KINDS)
@pytest.mark.parametrize("patch_size", [1, 2])
def test_a_batch_equals_its_singles(attention, latents, patch_size):
    """Neither padding of the condition nor the neighbours' references are seen."""
    model = build(attention, latents, patch_size=patch_size)
    conditions, (x, t) = told(), noised()
    wild = Conditions(
        torch.where(conditions.mask[..., None], conditions.cond, 50.0),
        conditions.mask,
        torch.where(conditions.referenced[:, None, None, None], conditions.reference, 50.0),
        conditions.referenced,
    )
    together = model(x, t, model.prepare(wild))
    for row in range(3):
        real = conditions.mask[row]
        reference = conditions.reference[row] if conditions.referenced[row] else None
        alone = Conditions.of(conditions.cond[row][real][None], real[real][None], [reference])
        torch.testing.assert_close(
            together[row],
            model(x[row : row + 1], t[row : row + 1], model.prepare(alone))[0],
            atol=1e-4,
            rtol=1e-4,
        )


@pytest.mark.parametrize(("attention", "latents"), KINDS)
def test_what_is_told_matters_and_its_order_does_not(attention, latents):
    model = build(attention, latents)
    conditions, (x, t) = told(length=5), noised()
    full = Conditions(
        conditions.cond, torch.ones_like(conditions.mask), conditions.reference, conditions.referenced
    )
    said = model(x, t, model.prepare(full))
    order = torch.tensor([3, 0, 4, 1, 2])
    turned = Conditions(full.cond[:, order], full.mask, full.reference, full.referenced)
    torch.testing.assert_close(model(x, t, model.prepare(turned)), said, atol=1e-4, rtol=1e-4)
    other = Conditions(full.cond + 1, full.mask, full.reference, full.referenced)
    assert (model(x, t, model.prepare(other)) - said).abs().max() > 1e-3
    edited = Conditions(full.cond, full.mask, full.reference + 1, full.referenced)
    change = (model(x, t, model.prepare(edited)) - said).abs().amax((1, 2, 3))
    assert ((change > 1e-4) == (full.referenced & (latents != "none"))).all()


@pytest.mark.parametrize(("attention", "latents"), KINDS)
def test_gradients_reach_every_weight(attention, latents):
    model = build(attention, latents)
    x, t = noised()
    model(x, t, model.prepare(told())).mul(torch.randn(x.shape)).sum().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None and weight.grad.abs().sum() > 0, name


def test_cross_prepares_the_conditions_keys_once():
    """A solver step does not touch what was projected from the condition."""
    model = build("cross")
    calls = []
    for block in model.blocks:
        block.cross.k_proj.register_forward_hook(lambda *_: calls.append(1))
    ready, (x, t) = model.prepare(told()), noised()
    for _ in range(3):
        model(x, t, ready)
    assert len(calls) == len(model.blocks)


@pytest.mark.parametrize(("attention", "latents"), KINDS)
def test_what_is_prepared_once_serves_several_noise_levels(attention, latents):
    model, conditions, again = build(attention, latents), told(), torch.tensor([2, 0, 0, 1])
    x, t = noised(4)
    said = model(x, t, rows_of(model.prepare(conditions), again))
    for row, of in enumerate(again.tolist()):
        alone = rows_of(model.prepare(conditions), slice(of, of + 1))
        torch.testing.assert_close(
            said[row], model(x[row : row + 1], t[row : row + 1], alone)[0], atol=1e-5, rtol=1e-4
        )


def test_channels_of_another_size_are_refused():
    model = build("joint", "vae_channel")
    ready = model.prepare(told(cells=(2, 2)))
    with pytest.raises(UserError, match="vae_seq for other sizes"):
        model(*noised(), ready)
    model = build("joint", "vae_seq")
    assert model(noised()[0], noised()[1], model.prepare(told(cells=(2, 2)))).shape == (3, 3, 4, 6)


def learn(model, sample, steps, rate=3e-3):
    """Flow matching on what `sample(generator)` gives: clean latents and their conditions."""
    optimizer = torch.optim.AdamW(model.parameters(), rate, betas=(0.9, 0.95), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        clean, conditions = sample(generator)
        eps, t = torch.randn(clean.shape, generator=generator), torch.rand(len(clean), generator=generator)
        noisy = FLOW.noised(clean, eps, t[:, None, None, None])
        said = model(noisy, t, model.prepare(conditions))
        loss = (said - velocity(clean, eps)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def drawn(model, conditions, shape, steps=12):
    ready = model.prepare(conditions)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(9))

    def predict_x0(x, t):
        return x0_from_velocity(x, model(x, t.expand(len(x)), ready), t)

    return euler(predict_x0, noise, grid(steps), FLOW)


@pytest.mark.parametrize("attention", ["joint", "cross"])
def test_it_learns_to_draw_what_is_told(attention):
    """Four conditions, four pictures: each condition draws its own."""
    generator = torch.Generator().manual_seed(3)
    pictures = torch.randn(4, 2, 3, 3, generator=generator)
    words = torch.randn(4, 2, OPTIONS["condition"], generator=generator)
    model = build(attention, channels=2, randomised=False)

    def say(which):
        mask = torch.ones(len(which), 2, dtype=torch.bool)
        return Conditions.of(words[which], mask, [None] * len(which))

    def sample(generator):
        which = torch.randint(4, (16,), generator=generator)
        return pictures[which], say(which)

    learn(model, sample, 250)
    which = torch.arange(4).repeat(3)
    got = drawn(model, say(which), (12, 2, 3, 3))
    nearest = torch.cdist(got.flatten(1), pictures.flatten(1)).argmin(1)
    assert (nearest == which).all()


@pytest.mark.parametrize("latents", ["vae_channel", "vae_seq"])
def test_an_edit_that_changes_nothing_is_not_shifted(latents):
    """Trained to give the reference back, it does so in place: phase correlation peaks at zero."""
    side, channels = 4, 2
    model = build("joint", latents, channels=channels, randomised=False)
    cond = torch.ones(16, 1, OPTIONS["condition"])

    def say(clean):
        mask = torch.ones(len(clean), 1, dtype=torch.bool)
        return Conditions.of(cond[: len(clean)], mask, list(clean))

    def sample(generator):
        clean = torch.randn(16, channels, side, side, generator=generator)
        return clean, say(clean)

    learn(model, sample, 150 if latents == "vae_channel" else 500)
    clean = torch.randn(8, channels, side, side, generator=torch.Generator().manual_seed(77))
    got = drawn(model, say(clean), clean.shape)
    cross = torch.fft.fft2(got) * torch.fft.fft2(clean).conj()
    peaks = torch.fft.ifft2(cross / cross.abs().clamp_min(1e-9)).real.sum(1).flatten(1).argmax(1)
    assert (peaks == 0).all()
