"""Flow matching on whole-image latents inside the transformer.

The noised image is one hidden span whose positions see each other and everything before; the model says
its velocity (Transfusion, Zhou et al. 2024; with flow matching as in BAGEL and Show-o2).  The noise
level is added to the embeddings and modulates the output head (adaLN, Peebles and Xie 2023).

An edit leaves most of a picture as it was.  With `model.reference: cells` a share of what is said, number by
number, is the cell of the picture before (as a pointer network copies words: See et al. 2017, equation 9), so
that copying is exact as soon as the model knows where to.
"""

from typing import ClassVar, Literal

import numpy as np
import torch
from einops import rearrange, repeat
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import silu

from unimodal.diffusion.guidance import Guidance, combine
from unimodal.diffusion.process import FLOW, beyond_straight_line, velocity, x0_from_velocity
from unimodal.diffusion.solvers import SOLVERS, OnStep
from unimodal.diffusion.times import grid as time_grid
from unimodal.diffusion.times import logit_normal
from unimodal.images.codec import Codec
from unimodal.images.patches import from_tokens
from unimodal.model.config import ModelConfig, Strict
from unimodal.paths.adaln import ModulatedLayer, TimeEmbedding
from unimodal.paths.path import Before, Corrupted, Look, flatten, row_noise
from unimodal.sequence.spans import Grid, TargetLayout

COPIED = -3.0  # logit of the share that is copied to begin with, 0.05
LEAST_TIME = 0.05  # below it an error of x0 weighs no more: as an error of velocity it would have no bound


class FlowPath(nn.Module):
    """See `unimodal.paths.path`.  C = latent channels x patch^2 per position, D = model width."""

    CODES: ClassVar[bool] = False
    IDLE: ClassVar[frozenset[str]] = frozenset()

    class Options(Strict):
        """Settings of this path alone, besides `model.times` and `model.sampling`.

        prediction  what the head says: `velocity`, or `x0`, the picture itself (Li and He 2025: it lies where
                    pictures are, noise does not); the loss is the velocity's either way
        head_depth  modulated residual layers between the decoder and the head, position by position
        """

        prediction: Literal["velocity", "x0"] = "velocity"
        head_depth: int = Field(0, ge=0)

    def __init__(self, config: ModelConfig, codec: Codec):
        super().__init__()
        self.options = self.Options.model_validate(config.path_options)
        self.times, self.sampling, self.patch_size = config.times, config.sampling, config.patch_size
        width = config.hidden_size
        self.channels = codec.channels * config.patch_size**2
        self.latent_in = nn.Linear(self.channels, width)
        self.time_in = TimeEmbedding(width)
        self.head_layers = nn.ModuleList(ModulatedLayer(width) for _ in range(self.options.head_depth))
        self.head_norm = nn.LayerNorm(width, eps=config.rms_norm_eps, elementwise_affine=False)
        self.head_modulation = nn.Linear(width, 2 * width)
        self.head = nn.Linear(width, self.channels)
        self.copied = nn.Linear(width, self.channels) if config.reference == "cells" else None

    def reset_parameters(self) -> None:
        """Start with a head that says zero: the best straight line, or of x0 the mean picture."""
        for layer in self.head_layers:
            layer.reset_parameters()
        for layer in (self.head_modulation, self.head):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        if self.copied is not None:
            nn.init.zeros_(self.copied.weight)
            nn.init.constant_(self.copied.bias, COPIED)

    def target_layout(self, grid: Grid) -> TargetLayout:
        """One step for the whole image, hidden: later positions look at the clean copy, if there are any."""
        steps = np.zeros(grid[0] * grid[1], dtype=np.int64)
        return TargetLayout(steps, hidden=True, copies=self.times.copies)

    def truth(self, codec: Codec, encoded: Tensor, latents: Tensor, grid: Grid) -> Tensor:
        """The latents themselves."""
        return latents

    def corrupt(self, truths: list[Tensor], grids: list[Grid], generator: torch.Generator) -> Corrupted:
        """One noise level an image; the model sees x_t and must say eps - x0."""
        latents, owner = flatten(truths)
        t = logit_normal(len(truths), generator, self.times.mean, self.times.std, self.times.shift)
        eps = torch.randn(latents.shape, generator=generator, device=generator.device)
        t, eps = t.to(latents.device), eps.to(latents)
        return Corrupted(FLOW.noised(latents, eps, t[owner][:, None]), velocity(latents, eps), owner, t)

    def embed(self, corrupted: Corrupted) -> Tensor:
        """Project latents and add the embedded noise level of their image."""
        return self._embed(corrupted.inputs, corrupted.times, corrupted.owner)

    def _embed(self, inputs: Tensor, times: Tensor, owner: Tensor) -> Tensor:
        return self.latent_in(inputs) + self.time_in(times)[owner]

    def embed_clean(self, latents: Tensor) -> Tensor:
        """A finished image is read at noise level 0."""
        return self.latent_in(latents) + self.time_in(latents.new_zeros(1))

    def velocity(
        self,
        hidden: Tensor,
        inputs: Tensor,
        times: Tensor,
        owner: Tensor,
        before: Before | None = None,
        least: float = 0.0,
    ) -> Tensor:
        """Predicted velocity (P, C) from hidden states (P, D) and the noised latents (P, C).

        times  (I,) above 0, where a picture x0 that is said stands for the velocity (x_t - x0) / t
        least  time below which a copied x0 counts as if it were there: in training, where it may be wrong
        """
        condition = silu(self.time_in(times))
        for layer in self.head_layers:
            hidden = layer(hidden, condition, owner)
        scale, shift = self.head_modulation(condition).chunk(2, dim=-1)
        said = self.head(self.head_norm(hidden) * (1 + scale[owner]) + shift[owner])
        t = times[owner][:, None]
        if self.options.prediction == "x0":
            said = (inputs - said.float()) / t
        else:
            said = beyond_straight_line(said, inputs, t)
        if self.copied is None or before is None:
            return said
        share = self.copied(hidden).float().sigmoid() * before.known
        return said.lerp((inputs - before.latents) / t.clamp_min(least), share)

    def loss(self, hidden: Tensor, corrupted: Corrupted) -> Tensor:
        """Squared error of the velocity, mean over channels: (P,)."""
        seen = (corrupted.inputs, corrupted.times, corrupted.owner, corrupted.before)
        said = self.velocity(hidden, *seen, least=LEAST_TIME)
        error = said - corrupted.target
        if self.options.prediction == "x0":
            t = corrupted.times[corrupted.owner][:, None]
            error = error * (t / t.clamp_min(LEAST_TIME))
        return error.square().mean(-1)

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
        """Solve from noise to latents (B, P, C); branches are combined in velocity."""
        batch, positions = len(generators), grid[0] * grid[1]
        noise = row_noise(generators, (positions, self.channels), self.head.weight.device)
        owner = repeat(torch.arange(batch, device=noise.device), "b -> (b p)", p=positions)

        # Of the full branch, then of the nulls: there are two at most.
        shown = [None] * 3 if before is None else before.chunk(len(before.known) // (batch * positions))

        def predict_x0(x: Tensor, t: Tensor) -> Tensor:
            times = t.to(x).expand(batch)
            flat_x = rearrange(x, "b p c -> (b p) c")
            embeds = rearrange(self._embed(flat_x, times, owner), "(b p) d -> b p d", b=batch)
            full, nulls = look(embeds, guidance.applies(float(t)))

            def say(hidden: Tensor, shown: Before | None) -> Tensor:
                flat = self.velocity(rearrange(hidden, "b p d -> (b p) d"), flat_x, times, owner, shown)
                return rearrange(flat, "(b p) c -> b p c", b=batch)

            others = {kind: say(hidden, shown[n]) for n, (kind, hidden) in enumerate(nulls.items(), 1)}
            v = combine(say(full, shown[0]), others, guidance)
            return x0_from_velocity(x, v, t.to(x))

        times = time_grid(self.sampling.steps if steps is None else steps, self.sampling.shift)
        return SOLVERS[self.sampling.solver](predict_x0, noise, times, FLOW, on_step)

    def decode(self, codec: Codec, finished: Tensor, grid: Grid) -> Tensor:
        """Latents to pixels."""
        cells = (grid[0] * self.patch_size, grid[1] * self.patch_size)
        return codec.decode_latents(from_tokens(finished, cells, self.patch_size))
