"""Loss terms against closed forms and torch.distributions."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from unimodal.images import losses


def test_errors_of_a_constant_shift():
    pixels = torch.rand(3, 3, 8, 8)
    shift = torch.tensor([0.0, 0.1, -0.5])[:, None, None, None]
    torch.testing.assert_close(losses.absolute_error(pixels + shift, pixels), torch.tensor([0.0, 0.1, 0.5]))
    torch.testing.assert_close(losses.squared_error(pixels + shift, pixels), torch.tensor([0.0, 0.01, 0.25]))
    assert losses.edge_error(pixels + shift, pixels).max() < 1e-6  # a shift has no edges


def test_edge_error_counts_steps_in_both_directions():
    flat = torch.zeros(1, 3, 4, 5)
    step = flat.clone()
    step[..., 2:] = 1.0  # one of four differences along a row, none along a column
    torch.testing.assert_close(losses.edge_error(step, flat), torch.tensor([0.25]))
    torch.testing.assert_close(losses.edge_error(step.mT, flat.mT), torch.tensor([0.25]))


def test_gaussian_kl_is_that_of_torch():
    mean, log_variance = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)
    ours = losses.gaussian_kl(mean, log_variance)
    theirs = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).mean((1, 2, 3))
    torch.testing.assert_close(ours, theirs)


def test_moment_penalty_is_the_kl_of_the_channels_moments():
    latents = torch.randn(6, 4, 5, 5, dtype=torch.float64) * 2 + 0.7
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3), unbiased=False)
    expected = kl_divergence(Normal(mean, std), Normal(0.0, 1.0)).mean()
    torch.testing.assert_close(
        losses.moment_penalty(latents), expected.float().expand(6).double(), atol=1e-5, rtol=1e-5
    )
    unit = (latents - mean[:, None, None]) / std[:, None, None]
    assert losses.moment_penalty(unit).max() < 1e-8


def test_noise_has_the_channels_scale_and_comes_from_the_generator():
    latents = torch.randn(4000, 2, 2, 2) * torch.tensor([1.0, 10.0])[:, None, None]

    def noise(seed: int) -> torch.Tensor:
        return losses.add_noise(latents, 0.3, torch.Generator().manual_seed(seed)) - latents

    assert torch.equal(noise(1), noise(1))
    assert not torch.equal(noise(1), noise(2))
    # The deviation is uniform on [0, 0.3], so the variance is 0.3^2 / 3.
    expected = 0.3 / 3**0.5 * torch.tensor([1.0, 10.0])
    torch.testing.assert_close(noise(1).std((0, 2, 3)), expected, rtol=0.05, atol=0)
    assert losses.add_noise(latents, 0.0) is latents


def test_growing_latents_does_not_shrink_the_noise():
    latents = torch.randn(8, 2, 4, 4)
    small, large = (
        losses.add_noise(scale * latents, 0.2, torch.Generator().manual_seed(0)) / scale for scale in (1, 100)
    )
    torch.testing.assert_close(small, large, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("shift", "expected"), [(2.0, 0.0), (0.2, 20.0), (0.02, 40.0), (0.0, 100.0)])
def test_psnr(shift, expected):
    pixels = torch.rand(2, 3, 8, 8, dtype=torch.float64).float() - 1
    torch.testing.assert_close(
        losses.psnr(pixels + shift, pixels), torch.full((2,), expected), atol=1e-3, rtol=0
    )
