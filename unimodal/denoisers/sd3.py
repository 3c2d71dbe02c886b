"""Stable Diffusion 3's transformer (MM-DiT, Esser et al. 2024) from diffusers as a denoiser.

It takes a condition without a mask, and beside it one pooled vector, which here is a projection of the
condition's mean.  Its flow is this toolkit's, at noise levels counted in thousandths.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field
from torch import Tensor, nn

from unimodal.denoisers.denoiser import Conditions, Latents, as_channels, mean_of, with_channels
from unimodal.denoisers.from_diffusers import build, filled, no_tokens, take
from unimodal.errors import UserError
from unimodal.model.config import Strict

NAME = "Stable Diffusion 3"


@dataclass(frozen=True, slots=True)
class Ready:
    """Condition (B, S, W) and pooled vector as the transformer takes them, and references as channels."""

    cond: Tensor
    pooled: Tensor
    channels: Tensor | None


class SD3(nn.Module):
    """See the module's docstring and `unimodal.denoisers.denoiser`."""

    class Options(Strict):
        """What is said of the transformer.

        config  diffusers' arguments, as its config.json has them; the channels are the codec's
        length  positions that every condition is filled up to; null: none is shorter than another
        scale   root mean square of the conditions that it was trained with
        """

        config: dict[str, Any] = Field(default_factory=dict)
        length: int | None = Field(None, ge=1)
        scale: float = Field(1.0, gt=0)

    normalises = False

    def __init__(self, channels: int, latents: Latents, options: dict):
        super().__init__()
        said = self.Options.model_validate(options)
        no_tokens(latents, NAME)
        self.latents, self.length, self.scale = latents, said.length, said.scale
        inputs = 2 * channels + 1 if latents == "vae_channel" else channels
        self.transformer = build(
            "SD3Transformer2DModel", said.config, in_channels=inputs, out_channels=channels
        )
        config = self.transformer.config
        self.condition, self.multiple = config.joint_attention_dim, config.patch_size
        self.pool = nn.Linear(self.condition, config.pooled_projection_dim)

    def take(self, folder: Path) -> None:
        """Start from the weights of a diffusers folder; channels of a reference begin at zero."""
        take(self.transformer, folder, "pos_embed.proj.weight")

    def prepare(self, conditions: Conditions) -> Ready:
        """See Denoiser; every layer modulates the condition by the noise level, so no more can be kept."""
        cond = filled(conditions, self.length, NAME)
        channels = as_channels(conditions) if self.latents == "vae_channel" else None
        return Ready(cond, self.pool(mean_of(conditions)), channels)

    def forward(self, noisy: Tensor, t: Tensor, ready: Ready) -> Tensor:
        """See Denoiser."""
        most = self.transformer.config.pos_embed_max_size * self.multiple
        if max(noisy.shape[2:]) > most:
            raise UserError(
                f"a picture of {tuple(noisy.shape[2:])} latent cells is larger than the {most} that this "
                "transformer has positions for."
            )
        seen = with_channels(noisy, ready.channels) if self.latents == "vae_channel" else noisy
        (said,) = self.transformer(
            hidden_states=seen,
            encoder_hidden_states=ready.cond.to(seen.dtype),
            pooled_projections=ready.pooled.to(seen.dtype),
            timestep=1000 * t,
            return_dict=False,
        )
        return said.float()
