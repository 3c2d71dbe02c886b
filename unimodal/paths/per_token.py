"""Latents a position at a time, each drawn by a small diffusion model.

The decoder says what a position should hold, as a hidden state, and an MLP draws a latent from it; so
latents are drawn one after another, or in sets, without a codebook (Li et al. 2024, MAR; Fan et al. 2024,
Fluid; UniFluid, Fan et al. 2025).  In random order all positions of a picture see each other and those
that are not known yet hold a mask embedding; in raster order each sees those before it, kept in the cache.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from einops import rearrange, repeat
from pydantic import Field, model_validator
from torch import Tensor, nn

from unimodal.data.document import Drop
from unimodal.diffusion.guidance import Guidance, combine
from unimodal.diffusion.process import FLOW, velocity, x0_from_velocity
from unimodal.diffusion.solvers import SOLVERS, OnStep
from unimodal.diffusion.times import grid as time_grid
from unimodal.diffusion.times import logit_normal
from unimodal.images.codec import Codec
from unimodal.images.patches import from_tokens
from unimodal.model.config import ModelConfig, Strict
from unimodal.paths.choose import ramped
from unimodal.paths.mlp_head import MlpHead
from unimodal.paths.path import Before, Corrupted, Look, flatten, row_noise
from unimodal.paths.sets import counts, random_orders, random_set
from unimodal.sequence.spans import Grid, TargetLayout


@dataclass(slots=True)
class PartlyKnown(Corrupted):
    """inputs (P, C) latents that are shown; target (P, C) latents; times (I,) share that is to be said.

    shown   (P,) bool, where there is a latent to show
    asked   (P,) bool, where the latent is to be said
    levels  (P, K) noise levels at which it is
    noise   (P, K, C)
    """

    shown: Tensor
    asked: Tensor
    levels: Tensor
    noise: Tensor


class PerTokenPath(nn.Module):
    """See `unimodal.paths.path`.  P positions of a picture, C = latent channels x patch^2, D model width.

    `model.times` and the steps, solver and shift of `model.sampling` are those of the small diffusion.
    """

    CODES: ClassVar[bool] = False

    class Options(Strict):
        """Settings of this path alone.

        order          `random` sets of positions, or `raster`, one by one
        forwards       how many sets a picture takes, by the cosine schedule, in random order
        mask_std       training hides a share of the picture in random order: normal around 1,
        mask_min       cut at mask_min and 1
        noises         K, noise levels at which each hidden state is asked in training
        temperature    scales the noise that a latent is drawn from
        guidance_ramp  guidance grows with the share that is known, to all of it in the last set
        head_width     of the small diffusion's layers
        head_depth     their number
        """

        order: Literal["random", "raster"] = "random"
        forwards: int = Field(16, ge=1)
        mask_std: float = Field(0.25, gt=0)
        mask_min: float = Field(0.7, ge=0, le=1)
        noises: int = Field(4, ge=1)
        temperature: float = Field(1.0, ge=0)
        guidance_ramp: bool = True
        head_width: int = Field(256, ge=1)
        head_depth: int = Field(3, ge=1)

        @model_validator(mode="after")
        def _of_use(self) -> "PerTokenPath.Options":
            useless = {"forwards", "mask_std", "mask_min"} & self.model_fields_set
            if self.order == "raster" and useless:
                raise ValueError(
                    f"{', '.join(sorted(useless))}: of order random; raster hides nothing and takes a "
                    "forward a position"
                )
            return self

    def __init__(self, config: ModelConfig, codec: Codec):
        super().__init__()
        self.options = self.Options.model_validate(config.path_options)
        self.IDLE = frozenset({"times.copies"} if self.raster else ())
        self.times, self.sampling, self.patch_size = config.times, config.sampling, config.patch_size
        width = config.hidden_size
        self.channels = codec.channels * config.patch_size**2
        self.latent_in = nn.Linear(self.channels, width)
        self.unknown = nn.Parameter(torch.zeros(width))
        self.head = MlpHead(self.channels, width, self.options.head_width, self.options.head_depth)

    @property
    def raster(self) -> bool:
        """Whether positions are written one by one."""
        return self.options.order == "raster"

    def reset_parameters(self) -> None:
        """See MlpHead."""
        nn.init.normal_(self.unknown, std=0.02)
        self.head.reset_parameters()

    # ---- training -----------------------------------------------------------------------------

    def target_layout(self, grid: Grid) -> TargetLayout:
        """Hidden: one step for all, or a step a position.

        Random order has `model.times.copies` masks a picture; copies of a raster would all be the same.
        """
        positions = grid[0] * grid[1]
        if self.raster:
            return TargetLayout(np.arange(positions), hidden=True)
        return TargetLayout(np.zeros(positions, dtype=np.int64), hidden=True, copies=self.times.copies)

    def truth(self, codec: Codec, encoded: Tensor, latents: Tensor, grid: Grid) -> Tensor:
        """The latents themselves."""
        return latents

    def corrupt(self, truths: list[Tensor], grids: list[Grid], generator: torch.Generator) -> PartlyKnown:
        """Hide a random set of each picture, or show each position the one before it; draw noise for all."""
        latents, owner = flatten(truths)
        if self.raster:
            before = torch.cat([torch.cat([torch.zeros_like(t[:1]), t[:-1]]) for t in truths])
            shown = torch.cat([torch.arange(len(t)) > 0 for t in truths]).to(latents.device)
            asked, times = torch.ones_like(shown), latents.new_ones(len(truths))
        else:
            shares = self._shares(len(truths), generator)
            sets = [random_set(len(t), share, generator) for t, share in zip(truths, shares)]
            asked = torch.cat(sets).to(latents.device)
            shown, before = ~asked, latents.masked_fill(asked[:, None], 0)
            times = torch.stack([chosen.float().mean() for chosen in sets]).to(latents)
        shape = len(latents), self.options.noises
        t = self.times
        levels = logit_normal(shape[0] * shape[1], generator, t.mean, t.std, t.shift).view(shape)
        noise = torch.randn(*shape, self.channels, generator=generator, device=generator.device)
        return PartlyKnown(
            before, latents, owner, times, shown, asked, levels.to(latents.device), noise.to(latents)
        )

    def _shares(self, count: int, generator: torch.Generator) -> list[float]:
        """Shares to hide: normal around 1, cut at mask_min and 1, by inverting its distribution."""
        std, least = self.options.mask_std, self.options.mask_min
        uniform = torch.rand(count, generator=generator, device=generator.device, dtype=torch.float64)
        low = torch.special.ndtr(torch.tensor((least - 1) / std, dtype=torch.float64))
        shares = 1 + std * torch.special.ndtri(low + (0.5 - low) * uniform)
        return shares.clamp(least, 1).tolist()

    def embed(self, corrupted: PartlyKnown) -> Tensor:
        """Latents where there are any to show, the mask embedding elsewhere."""
        return self._embed(corrupted.inputs, corrupted.shown)

    def _embed(self, latents: Tensor, shown: Tensor) -> Tensor:
        return torch.where(shown[..., None], self.latent_in(latents), self.unknown)

    def embed_clean(self, latents: Tensor) -> Tensor:
        """A finished image is read as a latent that is shown."""
        return self.latent_in(latents)

    def loss(self, hidden: Tensor, corrupted: PartlyKnown) -> Tensor:
        """Squared error of the velocity (P,), mean over channels and noise levels; 0 where nothing is asked.

        Scaled so that the mean over a picture is that over the positions asked for.
        """
        asked = corrupted.asked
        target, noise = corrupted.target[asked][:, None], corrupted.noise[asked]
        levels = corrupted.levels[asked]
        said = self.head(FLOW.noised(target, noise, levels[..., None]), levels, hidden[asked][:, None])
        loss = torch.zeros(len(hidden), device=hidden.device)
        loss[asked] = (said - velocity(target, noise)).square().mean((1, 2))
        return loss / corrupted.times[corrupted.owner]

    # ---- drawing ------------------------------------------------------------------------------

    def sample(
        self,
        look: Look,
        codec: Codec,
        grid: Grid,
        generators: list[torch.Generator],
        guidance: Guidance,
        steps: int | None = None,
        on_step: OnStep | None = None,
        before: Before | None = None,
    ) -> Tensor:
        """Latents (B, P, C), a set of positions a forward; `steps` are those of the small diffusion.

        Guidance is of velocity, and its interval is of the share that is not known.
        """
        batch, positions, device = len(generators), grid[0] * grid[1], self.unknown.device
        latents = torch.zeros(batch, positions, self.channels, device=device)
        known = torch.zeros(batch, positions, dtype=torch.bool, device=device)
        sets, done = self._sets(positions, generators), 0
        for number, at in enumerate(sets, start=1):
            guides = guidance.applies(1 - done / positions)
            hidden, nulls = self._look(look, latents, known, at, guides)
            done += at.shape[1]
            here = ramped(guidance, done / positions) if self.options.guidance_ramp else guidance
            noise = self.options.temperature * row_noise(generators, (at.shape[1], self.channels), device)
            taken = self.sampling.steps if steps is None else steps
            drawn = self._solve(hidden, nulls if guides else {}, noise, here, taken)
            latents = latents.scatter(1, _wide(at, self.channels), drawn.to(latents))
            known = known.scatter(1, at, True)
            if on_step:
                on_step(number, len(sets))
        return latents

    def _sets(self, positions: int, generators: list[torch.Generator]) -> list[Tensor]:
        """The positions (B, n) that are written together, set after set."""
        device = self.unknown.device
        if self.raster:
            return list(torch.arange(positions, device=device).expand(len(generators), -1).split(1, dim=1))
        order = random_orders(generators, positions).to(device)
        return list(order.split(counts("cosine", positions, self.options.forwards), dim=1))

    def _look(
        self, look: Look, latents: Tensor, known: Tensor, at: Tensor, guides: bool
    ) -> tuple[Tensor, dict[Drop, Tensor]]:
        """Hidden states (B, n, D) at positions (B, n), given the latents (B, P, C) that are known."""
        if self.raster:
            here = int(at[0, 0])
            before = slice(max(here - 1, 0), max(here, 1))  # of the first: itself, which is not known
            embeds = self._embed(latents[:, before], known[:, before])
            return look(embeds, guides, slice(here, here + 1))
        full, nulls = look(self._embed(latents, known), guides)
        index = _wide(at, full.shape[-1])
        return full.gather(1, index), {kind: hidden.gather(1, index) for kind, hidden in nulls.items()}

    def _solve(
        self, full: Tensor, nulls: dict[Drop, Tensor], noise: Tensor, guidance: Guidance, steps: int
    ) -> Tensor:
        """Latents (B, n, C) from noise, given hidden states (B, n, D) of each branch."""
        hidden = torch.cat([full, *nulls.values()])

        def predict_x0(x: Tensor, t: Tensor) -> Tensor:
            t = t.to(x)
            every = repeat(x, "b n c -> (branch b) n c", branch=1 + len(nulls))
            said = rearrange(
                self.head(every, t[None, None], hidden), "(branch b) n c -> branch b n c", b=len(x)
            )
            return x0_from_velocity(x, combine(said[0], dict(zip(nulls, said[1:])), guidance), t)

        times = time_grid(steps, self.sampling.shift)
        return SOLVERS[self.sampling.solver](predict_x0, noise, times, FLOW)

    def decode(self, codec: Codec, finished: Tensor, grid: Grid) -> Tensor:
        """Latents to pixels."""
        cells = (grid[0] * self.patch_size, grid[1] * self.patch_size)
        return codec.decode_latents(from_tokens(finished, cells, self.patch_size))


def _wide(at: Tensor, channels: int) -> Tensor:
    """An index (B, n) of positions, for all of their channels: (B, n, C)."""
    return repeat(at, "b n -> b n c", c=channels)
