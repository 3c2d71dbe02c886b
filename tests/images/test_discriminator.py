"""The game between codec and discriminator: closed forms, who gets which gradient, and the balance."""

import pytest
import torch
from torch import nn

from tests.images.networks import NETWORKS, pictures
from unimodal.errors import UserError
from unimodal.images.autoencoders import build, decode
from unimodal.images.discriminator import PatchDiscriminator, balance, fooling, hinge, last_layer


class Brightness(nn.Module):
    """Calls bright pictures true."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, pixels):
        return self.scale * pixels.mean(1, keepdim=True)


def flat(*levels: float) -> torch.Tensor:
    return torch.tensor(levels)[:, None, None, None].expand(-1, 3, 8, 8).clone()


def test_hinge_and_fooling_in_closed_form():
    judge = Brightness()  # scores are twice the level
    true, false = flat(1.0, 0.25), flat(-1.0, 0.5)
    # Picture 0: 2 and -2 are beyond both margins.  Picture 1: (1 - 0.5) and (1 + 1), halved.
    torch.testing.assert_close(hinge(judge, true, false), torch.tensor([0.0, 1.25]))
    torch.testing.assert_close(fooling(judge, false), torch.tensor([2.0, -1.0]))


def test_each_side_gets_its_own_gradient_only():
    judge = PatchDiscriminator(8)
    restored, pixels = pictures(2, 16, 16).requires_grad_(), pictures(2, 16, 16, seed=1)
    hinge(judge, pixels, restored).sum().backward()
    assert restored.grad is None
    for name, parameter in judge.named_parameters():  # inside both margins the last bias has no pull
        assert parameter.grad.abs().sum() > 0 or name == "conv_out.bias"
    judge.zero_grad()
    fooling(judge, restored).sum().backward()
    assert restored.grad.abs().sum() > 0
    assert all(p.grad is None for p in judge.parameters())
    assert torch.equal(judge(pixels), judge(pixels))


def test_a_score_is_of_a_patch():
    judge, pixels = PatchDiscriminator(8), pictures(1, 64, 64)
    assert judge(pixels).shape == (1, 1, 14, 14)
    assert judge(pictures(1, 16, 16)).shape == (1, 1, 2, 2)
    with pytest.raises(UserError, match="multiple of 8"):
        PatchDiscriminator(12)


def test_balance_is_the_ratio_of_the_pulls():
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    reconstruction, adversarial = (weight * torch.tensor([6.0, 8.0])).sum(), (weight * 0.5).sum() * 2**0.5
    scale = balance(reconstruction, adversarial, weight)
    assert float(scale) == pytest.approx(10 / (1.0 + 1e-4), rel=1e-5)
    assert not scale.requires_grad
    assert float(balance(reconstruction, (weight * 0).sum(), weight)) == pytest.approx(1e4)  # and no more


@pytest.mark.parametrize("name", ["kl", "tiny", "dc", "dc-full"])
def test_the_last_layer_is_the_last(name):
    class_name, arguments, stride = NETWORKS[name]
    network = build({"_class_name": class_name} | arguments).eval()
    layer = last_layer(network)
    latents = torch.randn(1, arguments.get("latent_channels", 4), 16 // stride, 16 // stride)
    out = decode(network, latents)
    with torch.no_grad():
        layer.zero_()
    silent = decode(network, latents)  # all that is left is a bias: the picture is one colour
    assert out.std((2, 3)).max() > 1e-4
    assert silent[..., ::2, ::2].std((2, 3)).max() < 1e-5
