"""RMSNorm against PyTorch's own, values and gradients."""

import pytest
import torch

from unimodal.model.norm import RMSNorm


@pytest.mark.parametrize("shape", [(5, 32), (2, 3, 4, 16)])
def test_equals_torch(shape):
    ours, theirs = RMSNorm(shape[-1], 1e-6), torch.nn.RMSNorm(shape[-1], 1e-6)
    weight = torch.rand(shape[-1])
    ours.weight.data.copy_(weight)
    theirs.weight.data.copy_(weight)
    x = torch.randn(shape, requires_grad=True)
    direction = torch.randn(shape)
    torch.testing.assert_close(ours(x), theirs(x))
    for got, expected in zip(
        torch.autograd.grad((ours(x) * direction).sum(), (x, ours.weight)),
        torch.autograd.grad((theirs(x) * direction).sum(), (x, theirs.weight)),
    ):
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_autocast_hands_on_the_lower_precision():
    norm = RMSNorm(16, 1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        assert norm(torch.randn(4, 16)).dtype == torch.bfloat16
    assert norm(torch.randn(4, 16)).dtype == torch.float32
