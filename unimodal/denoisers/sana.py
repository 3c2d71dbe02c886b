"""Sana's linear-attention transformer (Xie et al. 2024) from diffusers as a denoiser.

It looks at the condition by cross-attention under a mask, so conditions of any length go side by side.  Its
flow is this toolkit's, at noise levels counted as its config says.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field
from torch import Tensor, nn

from unimodal.denoisers.denoiser import Conditions, Latents, as_channels, with_channels
from unimodal.denoisers.from_diffusers import build, no_tokens, take
from unimodal.errors import UserError
from unimodal.model.config import Strict


@dataclass(frozen=True, slots=True)
class Ready:
    """Condition (B, S, W) with its mask (B, S), and references as channels."""

    cond: Tensor
    mask: Tensor
    channels: Tensor | None


class Sana(nn.Module):
    """See the module's docstring and `unimodal.denoisers.denoiser`."""

    class Options(Strict):
        """What is said of the transformer.

        config  diffusers' arguments, as its config.json has them; the channels are the codec's
        scale   root mean square of the conditions that it was trained with
        """

        config: dict[str, Any] = Field(default_factory=dict)
        scale: float = Field(1.0, gt=0)

    normalises = True

    def __init__(self, channels: int, latents: Latents, options: dict):
        super().__init__()
        said = self.Options.model_validate(options)
        no_tokens(latents, "Sana")
        if said.config.get("guidance_embeds"):
            raise UserError(
                "model.denoiser.options.config: guidance_embeds is true, so this Sana is one for few steps; "
                "expected one that was not."
            )
        self.latents, self.scale = latents, said.scale
        inputs = 2 * channels + 1 if latents == "vae_channel" else channels
        self.transformer = build(
            "SanaTransformer2DModel", said.config, in_channels=inputs, out_channels=channels
        )
        config = self.transformer.config
        self.condition, self.multiple = config.caption_channels, config.patch_size

    def take(self, folder: Path) -> None:
        """Start from the weights of a diffusers folder; channels of a reference begin at zero."""
        take(self.transformer, folder, "patch_embed.proj.weight")

    def prepare(self, conditions: Conditions) -> Ready:
        """See Denoiser; keys of the condition do not depend on the noise level, but diffusers keeps none."""
        channels = as_channels(conditions) if self.latents == "vae_channel" else None
        return Ready(conditions.cond * conditions.mask[..., None], conditions.mask, channels)

    def forward(self, noisy: Tensor, t: Tensor, ready: Ready) -> Tensor:
        """See Denoiser."""
        seen = with_channels(noisy, ready.channels) if self.latents == "vae_channel" else noisy
        (said,) = self.transformer(
            hidden_states=seen,
            encoder_hidden_states=ready.cond.to(seen.dtype),
            encoder_attention_mask=ready.mask.to(seen.dtype),
            timestep=1000 * t * self.transformer.config.timestep_scale,
            return_dict=False,
        )
        return said.float()
