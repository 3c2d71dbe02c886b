"""Flux's transformer (Black Forest Labs 2024) from diffusers as a denoiser.

Latents are packed two by two, positions are rotary, and a picture that is to be edited can stand behind the
drawn one as tokens with another first coordinate (FLUX.1 Kontext, 2025).  It takes a condition without a
mask, one pooled vector, here a projection of its mean, and a guidance scale where it was distilled from one.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import pad

from unimodal.denoisers.denoiser import Conditions, Latents, mean_of, with_channels
from unimodal.denoisers.from_diffusers import apart, build, filled, kept_reference, take
from unimodal.images.patches import from_tokens, to_tokens
from unimodal.model.config import Strict
from unimodal.sequence.spans import raster

PACKED = 2  # cells of a position along a side


@dataclass(frozen=True, slots=True)
class Ready:
    """Condition (B, S, W), pooled vector, references as channels, or as tokens (B, R, 4 C) and their grid."""

    cond: Tensor
    pooled: Tensor
    channels: Tensor | None
    tokens: Tensor | None
    cells: tuple[int, int]
    referenced: Tensor


class Flux(nn.Module):
    """See the module's docstring and `unimodal.denoisers.denoiser`."""

    class Options(Strict):
        """What is said of the transformer.

        config    diffusers' arguments, as its config.json has them; the channels are the codec's
        length    positions that every condition is filled up to; null: none is shorter than another
        guidance  told to a transformer that was distilled with guidance (`guidance_embeds`)
        scale     root mean square of the conditions that it was trained with
        """

        config: dict[str, Any] = Field(default_factory=dict)
        length: int | None = Field(None, ge=1)
        guidance: float = Field(3.5, ge=0)
        scale: float = Field(1.0, gt=0)

    multiple, normalises = PACKED, False

    def __init__(self, channels: int, latents: Latents, options: dict):
        super().__init__()
        said = self.Options.model_validate(options)
        self.latents, self.length, self.guidance, self.scale = latents, said.length, said.guidance, said.scale
        inputs = 2 * channels + 1 if latents == "vae_channel" else channels
        self.transformer = build(
            "FluxTransformer2DModel",
            said.config,
            patch_size=1,
            in_channels=inputs * PACKED**2,
            out_channels=channels * PACKED**2,
        )
        config = self.transformer.config
        self.condition = config.joint_attention_dim
        self.pool = nn.Linear(self.condition, config.pooled_projection_dim)

    def take(self, folder: Path) -> None:
        """Start from the weights of a diffusers folder; channels of a reference begin at zero."""
        take(self.transformer, folder, "x_embedder.weight")

    def prepare(self, conditions: Conditions) -> Ready:
        """See Denoiser; condition and reference live among the picture's tokens, so no more can be kept."""
        channels, tokens, cells = kept_reference(conditions, self.latents, PACKED)
        cond = filled(conditions, self.length, "Flux")
        return Ready(cond, self.pool(mean_of(conditions)), channels, tokens, cells, conditions.referenced)

    def forward(self, noisy: Tensor, t: Tensor, ready: Ready) -> Tensor:
        """See Denoiser."""
        cells = noisy.shape[2:]
        seen = with_channels(noisy, ready.channels) if self.latents == "vae_channel" else noisy
        x = to_tokens(seen, PACKED)
        guided = self.transformer.config.guidance_embeds

        def run(rows: Tensor, reference: bool) -> Tensor:
            shown, places = x[rows], _places(cells, 0)
            if reference:
                shown = torch.cat([shown, ready.tokens[rows].to(shown)], dim=1)
                places = torch.cat([places, _places(ready.cells, 1)])
            (said,) = self.transformer(
                hidden_states=shown,
                encoder_hidden_states=ready.cond[rows].to(x.dtype),
                pooled_projections=ready.pooled[rows].to(x.dtype),
                timestep=t[rows],
                img_ids=places.to(x),
                txt_ids=x.new_zeros(ready.cond.shape[1], 3),
                guidance=x.new_full((len(rows),), self.guidance) if guided else None,
                return_dict=False,
            )
            return said[:, : x.shape[1]]

        there = ready.referenced if ready.tokens is not None else torch.zeros_like(ready.referenced)
        return from_tokens(apart(there, run).float(), cells, PACKED)


def _places(cells: tuple[int, int], picture: int) -> Tensor:
    """Which picture, row and column (P, 3) of packed cells."""
    at = torch.from_numpy(raster((cells[0] // PACKED, cells[1] // PACKED)))
    return pad(at, (1, 0), value=picture)
