"""A small diffusion transformer (DiT, Peebles and Xie 2023) under a condition of any length.

Noise level and mean condition shift, scale and gate every branch, and every gate starts at zero (adaLN-zero).
The condition joins the picture in one attention, with weights of its own (`joint`: MM-DiT, Esser et al.
2024), or is looked at in a second one (`cross`: PixArt-alpha, Chen et al. 2023).  A picture that is to be
edited comes as tokens behind those of the drawn one, at the same places, or as more channels of it.

B rows, P positions of the picture, R of the reference, S of the condition, D width, N heads, H head width.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import silu

from unimodal.attention.door import Plan, attend
from unimodal.connectors.encoder import Attention, plan_of
from unimodal.denoisers.denoiser import Conditions, Latents, as_channels, mean_of, with_channels
from unimodal.diffusion.process import beyond_straight_line
from unimodal.images.patches import from_tokens, to_tokens
from unimodal.model.config import Strict
from unimodal.model.norm import RMSNorm
from unimodal.model.places import Places
from unimodal.paths.flow import TimeEmbedding
from unimodal.sequence.spans import raster

EPS = 1e-6


@dataclass(frozen=True, slots=True)
class Ready:
    """Conditions as the transformer takes them.

    cond, mask        (B, S, D) and (B, S)
    mean              (B, D) mean of the real positions, projected
    tokens, there     (B, R, D) and (B, R) of a reference that comes as tokens
    channels          (B, C + 1, h, w) of one that comes as channels; the last says whether there is one
    keys              of `cross`: every block's keys and values of the condition
    """

    cond: Tensor
    mask: Tensor
    mean: Tensor
    tokens: Tensor | None = None
    there: Tensor | None = None
    channels: Tensor | None = None
    keys: tuple[tuple[Tensor, Tensor], ...] = ()


def modulated(norm: nn.Module, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Normalised (B, T, D), scaled and shifted by (B, D)."""
    return norm(x) * (1 + scale[:, None]) + shift[:, None]


class Stream(nn.Module):
    """The weights of one block for one kind of position: what comes before attention, and what comes after.

    ends  the positions are looked at once more and never read again: no queries, and nothing comes after
    """

    def __init__(self, width: int, heads: int, ends: bool = False):
        super().__init__()
        self.heads, self.ends = heads, ends
        self.modulation = nn.Linear(width, (2 if ends else 6) * width)
        self.norm = nn.LayerNorm(width, EPS, elementwise_affine=False)
        self.k_proj, self.v_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.k_norm = RMSNorm(width // heads, EPS)
        if not ends:
            self.q_proj, self.o_proj = nn.Linear(width, width), nn.Linear(width, width)
            self.q_norm = RMSNorm(width // heads, EPS)
            self.mlp_norm = nn.LayerNorm(width, EPS, elementwise_affine=False)
            self.mlp = nn.Sequential(
                nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width)
            )

    def before(self, x: Tensor, signal: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Keys, values and (if nothing ends here) queries (B, T, N, H), and the modulations `after` needs."""
        shift, scale, *rest = self.modulation(signal).chunk(2 if self.ends else 6, dim=-1)
        y = modulated(self.norm, x, shift, scale)
        projections = [self.k_proj, self.v_proj] + ([] if self.ends else [self.q_proj])
        k, v, *q = (rearrange(proj(y), "b t (n h) -> b t n h", n=self.heads) for proj in projections)
        return [self.k_norm(k), v, *(self.q_norm(one) for one in q)], rest

    def attended(self, x: Tensor, found: Tensor, rest: list[Tensor]) -> Tensor:
        """Add what attention found (B, T, N, H)."""
        return x + rest[0][:, None] * self.o_proj(rearrange(found, "b t n h -> b t (n h)"))

    def after(self, x: Tensor, rest: list[Tensor]) -> Tensor:
        """Add the MLP."""
        _, shift, scale, gate = rest
        return x + gate[:, None] * self.mlp(modulated(self.mlp_norm, x, shift, scale))


class JointBlock(nn.Module):
    """Picture and condition in one attention; `last` reads nothing more from the condition."""

    def __init__(self, width: int, heads: int, last: bool):
        super().__init__()
        self.picture, self.told = Stream(width, heads), Stream(width, heads, ends=last)

    def forward(self, x: Tensor, cond: Tensor, signal: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:
        """(B, P + R, D) and (B, S, D) to the same."""
        (k, v, q), rest = self.picture.before(x, signal)
        (k_cond, v_cond, *q_cond), rest_cond = self.told.before(cond, signal)
        k, v, q = torch.cat([k, k_cond], 1), torch.cat([v, v_cond], 1), torch.cat([q, *q_cond], 1)
        found = attend(q, k, v, plan)
        found, found_cond = found[:, : x.shape[1]], found[:, x.shape[1] :]
        x = self.picture.after(self.picture.attended(x, found, rest), rest)
        if not self.told.ends:
            cond = self.told.after(self.told.attended(cond, found_cond, rest_cond), rest_cond)
        return x, cond


class CrossBlock(nn.Module):
    """The picture looks at itself, then at the condition, which stays what it is."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.picture, self.cross = Stream(width, heads), Attention(width, heads)

    def forward(
        self, x: Tensor, keys: tuple[Tensor, Tensor], signal: Tensor, plan: Plan, across: Plan
    ) -> Tensor:
        """(B, P + R, D) to the same; `keys` of the condition."""
        (k, v, q), rest = self.picture.before(x, signal)
        x = self.picture.attended(x, attend(q, k, v, plan), rest)
        x = x + self.cross(x, keys, across)
        return self.picture.after(x, rest)


class DiT(nn.Module):
    """See the module's docstring and `unimodal.denoisers.denoiser`."""

    class Options(Strict):
        """Its shape: latent cells of a position along a side, layers, heads, and the width of conditions."""

        patch_size: int = Field(1, ge=1)
        width: int = Field(256, ge=1)
        depth: int = Field(8, ge=1)
        heads: int = Field(4, ge=1)
        attention: Literal["joint", "cross"] = "joint"
        condition: int = Field(256, ge=1)

        @model_validator(mode="after")
        def _heads(self) -> "DiT.Options":
            if self.width % self.heads:
                raise ValueError(f"width {self.width} must be a multiple of heads {self.heads}")
            return self

    scale, normalises = 1.0, False

    def __init__(self, channels: int, latents: Latents, options: dict):
        super().__init__()
        said = self.Options.model_validate(options)
        width, self.latents, self.joint = said.width, latents, said.attention == "joint"
        self.condition, self.multiple, self.channels = said.condition, said.patch_size, channels
        cell = said.patch_size**2
        seen = 2 * channels + 1 if latents == "vae_channel" else channels
        self.latent_in = nn.Linear(seen * cell, width)
        self.places = Places(width)
        self.time_in = TimeEmbedding(width)
        self.cond_in, self.mean_in = nn.Linear(said.condition, width), nn.Linear(said.condition, width)
        if latents == "vae_seq":
            self.reference_in = nn.Linear(channels * cell, width)
            self.is_reference = nn.Parameter(torch.zeros(width))
        if self.joint:
            blocks = (JointBlock(width, said.heads, n == said.depth - 1) for n in range(said.depth))
        else:
            blocks = (CrossBlock(width, said.heads) for _ in range(said.depth))
        self.blocks = nn.ModuleList(blocks)
        self.head_norm = nn.LayerNorm(width, EPS, elementwise_affine=False)
        self.head_modulation = nn.Linear(width, 2 * width)
        self.head = nn.Linear(width, channels * cell)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start with blocks that add nothing, and a head that leaves the best straight line."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        zero = [block.picture.modulation for block in self.blocks]
        zero += [block.told.modulation if self.joint else block.cross.o_proj for block in self.blocks]
        for layer in (*zero, self.head_modulation, self.head):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def prepare(self, conditions: Conditions) -> Ready:
        """See Denoiser.

        In `cross` the condition's keys and values are the same at all noise levels, so here they are computed
        once.  In `joint` every layer modulates the condition by the noise level, and a reference's tokens
        live among the picture's: neither could be kept exactly, so only their first projections are.
        """
        cond = self.cond_in(conditions.cond)
        mean = self.mean_in(mean_of(conditions))
        keys = () if self.joint else tuple(block.cross.keys(cond) for block in self.blocks)
        ready = Ready(cond, conditions.mask, mean, keys=keys)
        if conditions.reference is None or self.latents == "none":
            return ready
        if self.latents == "vae_channel":
            return Ready(cond, conditions.mask, mean, channels=as_channels(conditions), keys=keys)
        tokens = self.reference_in(to_tokens(conditions.reference, self.multiple)) + self.is_reference
        tokens = self._placed(tokens, conditions.reference.shape[2:])
        there = conditions.referenced[:, None].expand(-1, tokens.shape[1])
        return Ready(cond, conditions.mask, mean, tokens, there, keys=keys)

    def forward(self, noisy: Tensor, t: Tensor, ready: Ready) -> Tensor:
        """See Denoiser."""
        cells = noisy.shape[2:]
        seen = with_channels(noisy, ready.channels) if self.latents == "vae_channel" else noisy
        x = self.latent_in(to_tokens(seen, self.multiple))
        x = self._placed(x, cells)  # (B, P, D)
        positions = x.shape[1]
        mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        if ready.tokens is not None:
            x, mask = torch.cat([x, ready.tokens.to(x.dtype)], dim=1), torch.cat([mask, ready.there], dim=1)
        signal = silu(self.time_in(t) + ready.mean)  # (B, D)
        if self.joint:
            cond, both = ready.cond, torch.cat([mask, ready.mask], dim=1)
            plan, last = plan_of(both), plan_of(mask, both)
            for block in self.blocks:
                x, cond = block(x, cond, signal, last if block.told.ends else plan)
        else:
            plan, across = plan_of(mask), plan_of(mask, ready.mask)
            for block, keys in zip(self.blocks, ready.keys):
                x = block(x, keys, signal, plan, across)
        shift, scale = self.head_modulation(signal).chunk(2, dim=-1)
        said = self.head(modulated(self.head_norm, x[:, :positions], shift, scale))
        return beyond_straight_line(from_tokens(said, cells, self.multiple), noisy, t[:, None, None, None])

    def _placed(self, tokens: Tensor, cells: tuple[int, int]) -> Tensor:
        """Tokens (B, n, D) told their row and column; those of a reference lie over those of the picture."""
        at = torch.from_numpy(raster((cells[0] // self.multiple, cells[1] // self.multiple)))
        position = nn.functional.pad(at, (1, 0)).to(tokens.device)[None]  # order, row, column
        return self.places(tokens, position, torch.ones_like(position[..., 0], dtype=torch.bool))
