"""Qwen-Image's transformer (Wu et al. 2025) from diffusers as a denoiser.

Latents are packed two by two, positions are rotary around the middle of the picture with the condition's
behind them, and a picture that is to be edited stands behind the drawn one as tokens of a second frame
(Qwen-Image-Edit).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from unimodal.denoisers.denoiser import Conditions, Latents, with_channels
from unimodal.denoisers.from_diffusers import apart, build, kept_reference, packed, take
from unimodal.errors import UserError
from unimodal.images.patches import from_tokens, to_tokens
from unimodal.model.config import Strict

PACKED = 2  # cells of a position along a side


@dataclass(frozen=True, slots=True)
class Ready:
    """Condition (B, S, W) with its mask, references as channels, or as tokens (B, R, 4 C) with their grid.

    Real positions come first, since the transformer counts the condition's positions from its start.
    """

    cond: Tensor
    mask: Tensor
    channels: Tensor | None
    tokens: Tensor | None
    cells: tuple[int, int]
    referenced: Tensor


class QwenImage(nn.Module):
    """See the module's docstring and `unimodal.denoisers.denoiser`."""

    class Options(Strict):
        """What is said of the transformer.

        config  diffusers' arguments, as its config.json has them; the channels are the codec's
        scale   root mean square of the conditions that it was trained with
        """

        config: dict[str, Any] = Field(default_factory=dict)
        scale: float = Field(1.0, gt=0)

    multiple, normalises = PACKED, True

    def __init__(self, channels: int, latents: Latents, options: dict):
        super().__init__()
        said = self.Options.model_validate(options)
        for name in ("guidance_embeds", "use_additional_t_cond"):
            if said.config.get(name):
                raise UserError(
                    f"model.denoiser.options.config: {name} is true, which needs what is not given here; "
                    "expected a Qwen-Image or Qwen-Image-Edit without."
                )
        self.latents, self.scale = latents, said.scale
        inputs = 2 * channels + 1 if latents == "vae_channel" else channels
        self.transformer = build(
            "QwenImageTransformer2DModel",
            said.config,
            patch_size=PACKED,
            in_channels=inputs * PACKED**2,
            out_channels=channels,
        )
        self.condition = self.transformer.config.joint_attention_dim

    def take(self, folder: Path) -> None:
        """Start from the weights of a diffusers folder; channels of a reference begin at zero."""
        take(self.transformer, folder, "img_in.weight")

    def prepare(self, conditions: Conditions) -> Ready:
        """See Denoiser; condition and reference live among the picture's tokens, so no more can be kept."""
        channels, tokens, cells = kept_reference(conditions, self.latents, PACKED)
        return Ready(*packed(conditions), channels, tokens, cells, conditions.referenced)

    def forward(self, noisy: Tensor, t: Tensor, ready: Ready) -> Tensor:
        """See Denoiser."""
        cells = noisy.shape[2:]
        seen = with_channels(noisy, ready.channels) if self.latents == "vae_channel" else noisy
        x = to_tokens(seen, PACKED)

        def run(rows: Tensor, reference: bool) -> Tensor:
            shown, shapes = x[rows], [_frame(cells)]
            if reference:
                shown = torch.cat([shown, ready.tokens[rows].to(shown)], dim=1)
                shapes.append(_frame(ready.cells))
            (said,) = self.transformer(
                hidden_states=shown,
                encoder_hidden_states=ready.cond[rows].to(x.dtype),
                encoder_hidden_states_mask=ready.mask[rows],
                timestep=t[rows],
                img_shapes=[shapes] * len(rows),
                return_dict=False,
            )
            return said[:, : x.shape[1]]

        there = ready.referenced if ready.tokens is not None else torch.zeros_like(ready.referenced)
        return from_tokens(apart(there, run).float(), cells, PACKED)


def _frame(cells: tuple[int, int]) -> tuple[int, int, int]:
    """One frame of packed cells: how many, rows, columns."""
    return 1, cells[0] // PACKED, cells[1] // PACKED
