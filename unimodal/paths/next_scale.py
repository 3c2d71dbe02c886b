"""Next-scale prediction: a picture coarse to fine, a whole map of codes at every step.

Visual autoregressive modelling (Tian et al. 2024): all codes of a scale are said at once, from what the
coarser scales add up to, seen at the places of the scale's own cells.  In the one mask rule a scale is a
step, so its positions see each other and everything coarser.  Codes of one scale are drawn independently,
so what binds them together has to be said by a coarser one.

N codes of a picture, its maps one after another; C latent channels.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from unimodal.diffusion.guidance import Guidance
from unimodal.diffusion.solvers import OnStep
from unimodal.errors import UserError
from unimodal.images.codec import Codec
from unimodal.model.config import ModelConfig
from unimodal.paths.choose import Choice, choose, guided, ramped, say_steps_are_fixed
from unimodal.paths.codes import CodeHead, entries_of, layout_of, require_codes
from unimodal.paths.path import OF_LATENTS, Before, Corrupted, Look, flatten
from unimodal.sequence.spans import Grid, TargetLayout


class Truth(NamedTuple):
    """Codes (N,), what the coarser ones add up to at the place of each (N, C), and whose codes they are."""

    codes: Tensor
    inputs: Tensor
    codec: Codec


@dataclass(slots=True)
class Scales(Corrupted):
    """inputs (N, C) what coarser scales add up to, target (N,) codes, `scales` (N,) the scale of each."""

    scales: Tensor


class NextScalePath(nn.Module):
    """See `unimodal.paths.path`."""

    CODES: ClassVar[bool] = True
    IDLE: ClassVar[frozenset[str]] = OF_LATENTS | {"times.copies", "sampling.steps"}

    class Options(Choice):
        """Settings of this path alone, besides how a code is chosen.

        guidance_ramp  guidance grows from none at the coarsest scale to all of it at the finest
        flips          in training up to this share of a picture's codes go astray, and finer ones learn to
                       make up for it (Han et al. 2025, Infinity): mistakes of coarse scales, which no true
                       picture shows, are then mended while drawing.  Above 0 pictures whose coarse scales
                       resemble each other are told apart less
        """

        guidance_ramp: bool = True
        flips: float = Field(0.0, ge=0, lt=1)

    def __init__(self, config: ModelConfig, codec: Codec):
        super().__init__()
        require_codes(config, codec)
        falls = any(a > b for a, b in pairwise(codec.shares))
        if falls or codec.shares[0] == codec.shares[-1]:
            raise UserError(
                f"path next_scale says a picture coarse to fine, and the maps of this codec are "
                f"{list(codec.shares)} of the picture's sides. Expected shares that grow, as those of the "
                "quantizer multi_scale (recipes/codec/multi_scale.yaml); next_token and masked take others."
            )
        self.options = self.Options.model_validate(config.path_options)
        self.shares, self.channels = codec.shares, codec.channels
        width = config.hidden_size
        self.latent_in = nn.Linear(self.channels, width)
        self.scale_in = nn.Embedding(len(self.shares), width)
        self.head = CodeHead(width, entries_of(codec)[0])

    def reset_parameters(self) -> None:
        """Start with a head to which all codes are alike."""
        self.head.reset_parameters()

    def target_layout(self, grid: Grid) -> TargetLayout:
        """A step a scale."""
        scales, where = layout_of(self.shares, grid)
        return TargetLayout(scales, hidden=True, places=where)

    @torch.no_grad()
    def truth(self, codec: Codec, encoded: Tensor, latents: Tensor, grid: Grid) -> list[Truth]:
        """The codes, and what is seen of the coarser ones, computed as `sample` does: in full precision."""
        with torch.autocast(encoded.device.type, enabled=False):
            return [Truth(*one, codec) for one in zip(encoded, codec.inputs(encoded, grid))]

    def corrupt(self, truths: list[Truth], grids: list[Grid], generator: torch.Generator) -> Scales:
        """Every scale is said from the true coarser ones, or with `flips`, in training, from strayed ones.

        The time is 1, a blank sheet, for all.
        """
        if self.options.flips and truths and self.training:
            truths = self._astray(truths, grids, generator)
        target, owner = flatten([truth.codes for truth in truths])
        seen = torch.cat([truth.inputs for truth in truths])
        scales = np.concatenate([layout_of(self.shares, grid)[0] for grid in grids])
        times = torch.ones(len(truths), device=target.device)
        return Scales(seen, target, owner, times, torch.from_numpy(scales).to(target.device))

    @torch.no_grad()
    def _astray(self, truths: list[Truth], grids: list[Grid], generator: torch.Generator) -> list[Truth]:
        """What to say of each picture, and what is seen of it, where a share of what was said is wrong."""
        codec = truths[0].codec
        shares = self.options.flips * torch.rand(len(truths), generator=generator, device=generator.device)
        found = list(truths)
        for grid in dict.fromkeys(grids):
            numbers = [number for number, other in enumerate(grids) if other == grid]
            codes = torch.stack([truths[number].codes for number in numbers])
            with torch.autocast(codes.device.type, enabled=False):
                here = shares[numbers].to(codes.device)
                wanted, said = codec.quantizer.astray(codes, grid, here, generator)
                for number, *one in zip(numbers, wanted, codec.inputs(said, grid)):
                    found[number] = Truth(*one, codec)
        return found

    def embed(self, corrupted: Scales) -> Tensor:
        """What coarser scales add up to, read as a finished picture is, and the scale."""
        return self._embed(corrupted.inputs, corrupted.scales)

    def _embed(self, inputs: Tensor, scales: Tensor) -> Tensor:
        # Nothing is coarser than the first scale: its own embedding is where a picture starts.
        return self.scale_in(scales) + self.latent_in(inputs) * (scales > 0)[:, None]

    def embed_clean(self, latents: Tensor) -> Tensor:
        """A finished picture is read by its latents."""
        return self.latent_in(latents)

    def loss(self, hidden: Tensor, corrupted: Scales) -> Tensor:
        """Cross-entropy of every code, in nats: (N,).  A picture's mean weighs all codes alike (as VAR)."""
        return cross_entropy(self.head(hidden).float(), corrupted.target, reduction="none")

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
        """Codes (B, N), one look a scale."""
        if steps is not None:
            say_steps_are_fixed("next_scale", "a look a scale", steps)
        scales = torch.from_numpy(layout_of(self.shares, grid)[0]).to(self.scale_in.weight.device)
        codes = scales.new_zeros(len(generators), 0)
        last = len(self.shares) - 1
        for number in range(last + 1):
            inputs = codec.next_input(codes, grid)  # (B, n, C)
            at = slice(codes.shape[1], codes.shape[1] + inputs.shape[1])
            hidden, nulls = look(self._embed(inputs, scales[at]), at=at)
            nulls = nulls if guidance.applies(1 - number / (last + 1)) else {}
            here = ramped(guidance, number / last) if self.options.guidance_ramp else guidance
            chosen = choose(guided(self.head, hidden, nulls, here), generators, self.options)
            codes = torch.cat([codes, chosen], 1)
            if on_step:
                on_step(number + 1, last + 1)
        return codes

    def decode(self, codec: Codec, finished: Tensor, grid: Grid) -> Tensor:
        """Codes to pixels."""
        return codec.decode(finished, grid)
