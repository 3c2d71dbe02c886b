"""Latents a position at a time: what is hidden, what each asks of its small diffusion, and that latents come
out as often as they should."""

import numpy as np
import pytest
import torch

from tests.models import tiny_model
from tests.paths.toy import Gray, energy_from_two_modes
from unimodal.diffusion.guidance import Guidance
from unimodal.paths.per_token import PerTokenPath

PLAIN = Guidance()
SMALL = {"head_width": 24, "head_depth": 2}


def path_of(**options) -> PerTokenPath:
    """A path on gray pixels, C = 1, with random weights."""
    return tiny_model(0, Gray(), path="per_token", path_options=SMALL | options).path


def truths(count, positions, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return list(torch.randn(count, positions, 1, generator=generator))


def generators(count):
    return [torch.Generator().manual_seed(row) for row in range(count)]


# ---- training -------------------------------------------------------------------------------------


def test_random_order_hides_as_much_as_the_truncated_normal_says():
    path = path_of()
    seen = path.corrupt(truths(800, 100), [(10, 10)] * 800, torch.Generator().manual_seed(0))
    normal = np.random.default_rng(0).normal(1, 0.25, 100_000)
    wanted = np.sort(normal[(normal >= 0.7) & (normal <= 1)])
    found = np.sort(seen.times.numpy())
    assert np.abs(found - np.quantile(wanted, (np.arange(800) + 0.5) / 800)).max() < 0.03
    hidden = seen.asked.float().reshape(800, 100)
    torch.testing.assert_close(hidden.mean(1), seen.times)
    assert (hidden.mean(0) - hidden.mean()).abs().max() < 0.07  # all places alike


@torch.no_grad()
def test_random_order_shows_what_is_known_and_a_mask_elsewhere():
    path = path_of(mask_min=0, mask_std=1)
    seen = path.corrupt(truths(20, 6), [(2, 3)] * 20, torch.Generator().manual_seed(0))
    assert torch.equal(seen.shown, ~seen.asked)
    assert 0 < seen.shown.sum() < len(seen.shown)
    embeds = path.embed(seen)
    torch.testing.assert_close(embeds[seen.shown], path.embed_clean(seen.target[seen.shown]))
    torch.testing.assert_close(embeds[seen.asked], path.unknown.expand(int(seen.asked.sum()), -1))
    assert (seen.inputs[seen.asked] == 0).all()
    layout = path.target_layout((2, 3))
    assert layout.hidden and layout.steps.tolist() == [0] * 6


@torch.no_grad()
def test_raster_order_shows_the_one_before():
    path = path_of(order="raster")
    two = [*truths(1, 6), *truths(1, 3, seed=1)]
    seen = path.corrupt(two, [(2, 3), (3, 1)], torch.Generator())
    embeds = path.embed(seen)
    for truth, found in zip(two, embeds.split([6, 3])):
        torch.testing.assert_close(found[0], path.unknown)
        torch.testing.assert_close(found[1:], path.embed_clean(truth[:-1]))
    assert seen.asked.all()
    layout = path.target_layout((2, 3))
    assert layout.hidden and layout.steps.tolist() == list(range(6))


@pytest.mark.parametrize("order", ["random", "raster"])
@torch.no_grad()
def test_each_hidden_state_is_asked_at_several_noise_levels(order):
    """The loss against its definition, one position and one noise level at a time."""
    path = path_of(order=order, noises=3)
    seen = path.corrupt(truths(4, 6), [(2, 3)] * 4, torch.Generator().manual_seed(0))
    hidden = torch.randn(24, path.unknown.numel())
    found = path.loss(hidden, seen)
    assert seen.levels.shape == (24, 3)
    assert len(seen.levels.unique()) == 72
    for picture in range(4):
        errors = []
        for p in range(6 * picture, 6 * picture + 6):
            if not seen.asked[p]:
                assert found[p] == 0
                continue
            for t, eps in zip(seen.levels[p], seen.noise[p]):
                x0 = seen.target[p]
                said = path.head((1 - t) * x0 + t * eps, t, hidden[p])
                errors.append((said - (eps - x0)).square().mean())
        torch.testing.assert_close(found[6 * picture : 6 * picture + 6].mean(), torch.stack(errors).mean())


def test_settings_of_one_order_are_refused_in_the_other():
    with pytest.raises(ValueError, match="of order random"):
        path_of(order="raster", forwards=8)
    with pytest.raises(ValueError, match="mask_mean"):
        path_of(mask_mean=1.0)


# ---- drawing --------------------------------------------------------------------------------------


class PointMass(torch.nn.Module):
    """A head whose hidden states say the latent itself, with no doubt: the velocity is (x - latent) / t."""

    def forward(self, x, times, hidden):
        return (x - hidden[..., :1]) / times[..., None]


class Watcher:
    """Looks that say latent 1 with the text and latent 0 without it, and note what they were asked."""

    def __init__(self, path):
        path.head, self.path, self.known, self.guided, self.at = PointMass(), path, [], [], []

    def __call__(self, embeds, guided=True, at=None):
        self.known.append((embeds != self.path.unknown).any(-1))
        self.guided.append(guided)
        self.at.append(at)
        return torch.ones_like(embeds), {"text": torch.zeros_like(embeds)}

    @torch.inference_mode()
    def sample(self, grid, rows=1, guidance=PLAIN):
        return self.path.sample(self, None, grid, generators(rows), guidance, 3)[..., 0]


def test_a_set_a_forward_and_what_was_drawn_is_shown():
    watcher = Watcher(path_of(forwards=4))
    torch.testing.assert_close(watcher.sample((4, 4), rows=2), torch.ones(2, 16))
    known = torch.stack(watcher.known).sum(-1)
    # floor(16 cos(pi k / 8)) are left after k forwards: 14, 11, 6, 0.
    assert known.tolist() == [[0, 0], [2, 2], [5, 5], [10, 10]]
    assert (watcher.known[1][0] != watcher.known[1][1]).any()  # an order a row
    assert watcher.at == [None] * 4


def test_raster_order_looks_at_each_position_once():
    watcher = Watcher(path_of(order="raster"))
    torch.testing.assert_close(watcher.sample((2, 2)), torch.ones(1, 4))
    assert watcher.at == [slice(i, i + 1) for i in range(4)]
    assert torch.cat(watcher.known, 1).tolist() == [[False, True, True, True]]


@pytest.mark.parametrize("ramp", [False, True])
def test_guidance_grows_along_its_ramp(ramp):
    """Latents are null + scale (full - null) = scale."""
    watcher = Watcher(path_of(order="raster", guidance_ramp=ramp))
    found = watcher.sample((2, 2), guidance=Guidance(3.0))
    wanted = [[1.5, 2.0, 2.5, 3.0]] if ramp else [[3.0] * 4]
    torch.testing.assert_close(found, torch.tensor(wanted))


def test_guidance_keeps_to_its_interval():
    """Of the share that is not known, before each set."""
    watcher = Watcher(path_of(order="raster", guidance_ramp=False))
    found = watcher.sample((2, 2), guidance=Guidance(3.0, interval=(0.25, 0.75)))
    torch.testing.assert_close(found, torch.tensor([[1.0, 3.0, 3.0, 1.0]]))
    assert watcher.guided == [False, True, True, False]


@torch.no_grad()
def test_temperature_scales_the_spread():
    """An untrained head is that of latents with mean 0 and deviation 1, which its flow gives back."""
    found = {}
    for temperature in (1.0, 0.5):
        path = path_of(temperature=temperature, forwards=2)
        path.reset_parameters()

        def look(embeds, guided=True, at=None):
            return embeds, {}

        found[temperature] = path.sample(look, None, (20, 20), generators(4), PLAIN, 64)
    torch.testing.assert_close(found[0.5], 0.5 * found[1.0])
    assert found[1.0].mean().item() == pytest.approx(0, abs=0.06)
    assert found[1.0].std().item() == pytest.approx(1, abs=0.06)


# ---- the right distribution -----------------------------------------------------------------------


@pytest.mark.parametrize("order", ["random", "raster"])
def test_latents_come_out_as_often_as_they_should(order):
    """Two pixels, one drawn after the other: see `energy_from_two_modes`."""
    options = {"order": order, "head_width": 64, "head_depth": 2}
    if order == "random":
        options |= {"mask_min": 0.0, "mask_std": 1.0, "forwards": 2}
    found, apart = energy_from_two_modes(path="per_token", path_options=options)
    assert found < 0.02
    assert apart > 0.1
