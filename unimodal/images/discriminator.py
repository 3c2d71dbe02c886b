"""A small patch discriminator, and the two losses of its game with a codec.

It says of every patch whether it is of a true picture (Isola et al. 2017, PatchGAN); the hinge loss keeps it
from growing surer than it has to be, and its say is scaled to that of the reconstruction by comparing their
gradients where they enter the codec's last layer (Esser et al. 2021).

Both sides are trained by one backward pass: pictures reach the discriminator's loss without gradient to the
codec, and the codec's loss without gradient to the discriminator.  So it is a part of the trained module like
any other: accumulated, reduced over processes, saved and resumed by the one training loop.
"""

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import leaky_relu, relu

from unimodal.errors import UserError

GROUPS = 8  # of the norms
SLOPE = 0.2
MOST = 1e4  # times that the codec's adversarial loss is scaled up


class PatchDiscriminator(nn.Module):
    """Pictures (B,3,H,W), 16 pixels a side or more -> one score a patch (B,1,h,w); above 0: true.

    width  channels of the first layer, a multiple of 8
    Its layers are named, not numbered: block matrices, which Muon takes, are those with numbers.
    """

    batches: Tensor

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        if width % GROUPS:
            raise UserError(f"a discriminator of width {width}; expected a multiple of {GROUPS}.")
        self.conv_in = nn.Conv2d(3, width, 4, stride=2, padding=1)
        self.conv_middle = nn.Conv2d(width, 2 * width, 4, stride=2, padding=1, bias=False)
        self.norm_middle = nn.GroupNorm(GROUPS, 2 * width)
        self.conv_deep = nn.Conv2d(2 * width, 4 * width, 4, padding=1, bias=False)
        self.norm_deep = nn.GroupNorm(GROUPS, 4 * width)
        self.conv_out = nn.Conv2d(4 * width, 1, 4, padding=1)
        # Batches of training so far; a buffer, so that a resumed run knows whether the game has begun.
        self.register_buffer("batches", torch.tensor(0))

    def forward(self, pixels: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,1,h,w)."""
        x = leaky_relu(self.conv_in(pixels), SLOPE)
        x = leaky_relu(self.norm_middle(self.conv_middle(x)), SLOPE)
        x = leaky_relu(self.norm_deep(self.conv_deep(x)), SLOPE)
        return self.conv_out(x)


def hinge(discriminator: nn.Module, pixels: Tensor, restored: Tensor) -> Tensor:
    """The discriminator's loss on true and restored pictures (B,3,H,W), as (B,); no gradient to either."""
    true, false = discriminator(torch.cat([pixels, restored.detach()])).float().flatten(1).chunk(2)
    return 0.5 * (relu(1 - true) + relu(1 + false)).mean(1)


def fooling(discriminator: nn.Module, restored: Tensor) -> Tensor:
    """The codec's loss, less the more its pictures (B,3,H,W) pass for true, as (B,).

    Gradients reach the pictures, not the discriminator.
    """
    held = {name: p.detach() for name, p in discriminator.named_parameters()}
    return -functional_call(discriminator, held, (restored,)).float().flatten(1).mean(1)


def balance(reconstruction: Tensor, adversarial: Tensor, last: nn.Parameter) -> Tensor:
    """What the adversarial loss is to be multiplied by, so that both pull at `last` alike.

    Ratio of the norms of their gradients at the codec's last layer (Esser et al. 2021, equation 7), without
    gradient itself.
    """
    pulls = [
        torch.autograd.grad(loss, last, retain_graph=True)[0].norm() for loss in (reconstruction, adversarial)
    ]
    return (pulls[0] / (pulls[1] + 1e-4)).clamp(0, MOST).detach()


def last_layer(network: nn.Module) -> nn.Parameter:
    """The weight of the last convolution of an autoencoder's decoder."""
    return [layer.weight for layer in network.decoder.modules() if isinstance(layer, nn.Conv2d)][-1]
