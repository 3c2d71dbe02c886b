"""Parts of a head that says a velocity: a noise level as a vector, layers that it modulates, and what is left
to say of a velocity.

Adaptive layer norm (adaLN-zero, Peebles and Xie 2023) lets a condition scale, shift and gate a residual
layer.  A head says only what the best straight line through the noised latents leaves open (Karras et al.
2022, section 5, for flow matching).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

TIME_WIDTH = 256


class TimeEmbedding(nn.Module):
    """Sinusoids of the noise level through a two-layer MLP: (I,) to (I, D)."""

    def __init__(self, width: int):
        super().__init__()
        self.linear_in = nn.Linear(TIME_WIDTH, width)
        self.linear_out = nn.Linear(width, width)

    def forward(self, times: Tensor) -> Tensor:
        """Levels in [0, 1] are spread over 1,000, the range such sinusoids are made for."""
        half = TIME_WIDTH // 2
        rates = torch.exp(-math.log(10_000) * torch.arange(half, device=times.device) / half)
        angles = 1000 * times.float()[:, None] * rates
        return self.linear_out(silu(self.linear_in(torch.cat([angles.cos(), angles.sin()], dim=-1))))


class ModulatedLayer(nn.Module):
    """x + gate MLP(scale norm(x) + shift), the three of them from the condition."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(width, 3 * width)
        self.up = nn.Linear(width, width)
        self.down = nn.Linear(width, width)

    def reset_parameters(self) -> None:
        """Start as a layer that does nothing."""
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor, owner: Tensor | None = None) -> Tensor:
        """(..., W) to (..., W), under conditions (..., W).

        owner  (P,) where x is (P, W) and the conditions are (I, W): the condition of each position
        """
        modulation = self.modulation(condition)
        if owner is not None:
            modulation = modulation[owner]
        scale, shift, gate = modulation.chunk(3, dim=-1)
        return x + gate * self.down(silu(self.up(self.norm(x) * (1 + scale) + shift)))
