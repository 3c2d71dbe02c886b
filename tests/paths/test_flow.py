"""The flow path's head against what least squares finds."""

import torch

from tests.models import tiny_model
from unimodal.diffusion.process import FLOW, velocity


def test_an_untrained_head_says_the_best_straight_line():
    """For latents of unit variance; its residual has the size that the head's output is scaled by."""
    path = tiny_model().path
    path.reset_parameters()
    generator = torch.Generator().manual_seed(0)
    count = 20_000
    x0, eps = torch.randn(2, count, path.channels, generator=generator)
    for t in (0.02, 0.3, 0.5, 0.8, 1.0):
        times, owner = torch.tensor([t]), torch.zeros(count, dtype=torch.long)
        x, v = FLOW.noised(x0, eps, t), velocity(x0, eps)
        said = path.velocity(torch.randn(count, path.head.in_features), x, times, owner)
        slope = (x * v).sum() / (x * x).sum()
        torch.testing.assert_close(said, slope * x, atol=0.05, rtol=0)
        left = (v - said).square().mean()
        torch.testing.assert_close(left, torch.tensor(1 / (t**2 + (1 - t) ** 2)), atol=0.05, rtol=0)
