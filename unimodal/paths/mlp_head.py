"""A small diffusion model of one latent, told by a hidden state which.

What a position holds is drawn by a few residual layers that the noise level and the position's hidden state
modulate (Li et al. 2024, MAR; adaLN, Peebles and Xie 2023), so one hidden state can be asked at as many
noise levels as there is use for, at a fraction of the decoder's cost.

C channels of a latent, D width of the hidden states, W width of the head.
"""

from torch import Tensor, nn
from torch.nn.functional import silu

from unimodal.diffusion.process import beyond_straight_line
from unimodal.paths.adaln import ModulatedLayer, TimeEmbedding


class MlpHead(nn.Module):
    """Velocity of flow matching, for one position at a time."""

    def __init__(self, channels: int, hidden_size: int, width: int, depth: int):
        super().__init__()
        self.latent_in = nn.Linear(channels, width)
        self.hidden_in = nn.Linear(hidden_size, width)
        self.time_in = TimeEmbedding(width)
        self.layers = nn.ModuleList(ModulatedLayer(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, channels)

    def reset_parameters(self) -> None:
        """Start with layers that do nothing and a head that leaves the best straight line."""
        for layer in self.layers:
            layer.reset_parameters()
        for layer in (self.modulation, self.out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, times: Tensor, hidden: Tensor) -> Tensor:
        """Velocity (..., C) of noised latents (..., C) at levels (...), given hidden states (..., D).

        Leading axes broadcast.
        """
        time = self.time_in(times.flatten()).reshape(*times.shape, -1)
        condition = silu(time + self.hidden_in(hidden))
        inside = self.latent_in(x)
        for layer in self.layers:
            inside = layer(inside, condition)
        scale, shift = self.modulation(condition).chunk(2, dim=-1)
        said = self.out(self.norm(inside) * (1 + scale) + shift)
        return beyond_straight_line(said, x, times[..., None])
