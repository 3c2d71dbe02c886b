"""Masked codes: a picture's codes are hidden at random and said again, many at a time.

All positions see each other, and those that are hidden hold a mask embedding; drawing begins with nothing
but masks and fills in a set of codes a forward (Chang et al. 2022, MaskGIT; inside a language model Xie et
al. 2024, Show-o).  What is hidden, and filled in, is a position: a cell with several codes is hidden with all
of them, and says them one after another (see `unimodal.paths.cells`).  Where a map says what coarser ones
left over, the maps are filled in one after the other, and training asks only for codes of the first map that
is not yet known whole: what is left of an unknown sum cannot be said (Borsos et al. 2023, SoundStorm).
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from unimodal.diffusion.guidance import Guidance
from unimodal.diffusion.solvers import OnStep
from unimodal.images.codec import Codec
from unimodal.images.quantizer import Cells, maps_of
from unimodal.model.config import ModelConfig
from unimodal.paths.cells import CellsPath
from unimodal.paths.choose import ramped, row_gumbel
from unimodal.paths.path import OF_LATENTS, Before, Corrupted, Look, flatten
from unimodal.paths.sets import (
    SCHEDULES,
    cut,
    mean_asked,
    order_of,
    random_set,
)
from unimodal.sequence.spans import Grid, TargetLayout

MASKED = -1


@dataclass(slots=True)
class MaskedCodes(Corrupted):
    """inputs (P, M) codes, or MASKED; target (P, M) codes; times (I,) the share that is masked.

    maps     (P,) number of the map that each position is of
    weights  (P,) what each position counts in the loss; 0 for those that are known, or not asked for
    """

    maps: Tensor
    weights: Tensor


class MaskedPath(CellsPath):
    """See `unimodal.paths.path`.  `model.times.copies` masks are drawn for one picture."""

    options: "MaskedPath.Options"
    IDLE: ClassVar[frozenset[str]] = OF_LATENTS | {"sampling.steps"}

    class Options(CellsPath.Options):
        """Settings of this path alone, besides those of all that say cells.

        schedule            shares of codes that training hides and sampling leaves hidden
        order               which codes come first: `halton`, spread evenly; `random`; `confidence`, the
                            surest of what was drawn, which leans towards what is common
        forwards            that a picture takes, if the caller does not say; one a map at least where maps
                            are filled in one after the other
        choice_temperature  of the order by confidence: Gumbel noise that falls to 0 in a straight line
        guidance_ramp       guidance grows with the share that is known, to all of it in the last forward
        weighting           `even`: every masked code weighs the same (MaskGIT); `inverse_ratio`: every
                            picture does, however many of its codes are masked (as LLaDA and MMaDA)
        """

        schedule: Literal["cosine", "arccos", "linear"] = "cosine"
        order: Literal["halton", "random", "confidence"] = "halton"
        forwards: int = Field(12, ge=1)
        choice_temperature: float = Field(4.5, ge=0)
        guidance_ramp: bool = False
        weighting: Literal["even", "inverse_ratio"] = "even"

        @model_validator(mode="after")
        def _of_use(self) -> "MaskedPath.Options":
            if self.order != "confidence" and "choice_temperature" in self.model_fields_set:
                raise ValueError(f"choice_temperature is of order confidence; {self.order} has no choice")
            return self

    def __init__(self, config: ModelConfig, codec: Codec):
        super().__init__(config, codec)
        self.times = config.times
        self.nested = codec.nested and len(self.shares) > self.deep
        self.mask = nn.Parameter(torch.zeros(config.hidden_size))

    def reset_parameters(self) -> None:
        """Start with heads that hold all codes alike."""
        nn.init.normal_(self.mask, std=0.02)
        super().reset_parameters()

    # ---- training -----------------------------------------------------------------------------

    def target_layout(self, grid: Grid) -> TargetLayout:
        """One hidden step for all codes; those of a coarser map stand where their cells begin."""
        _, where = self.places(grid)
        steps = np.zeros(len(where), dtype=np.int64)
        return TargetLayout(steps, hidden=True, places=where.numpy(), copies=self.times.copies)

    def corrupt(self, truths: list[Tensor], grids: list[Grid], generator: torch.Generator) -> MaskedCodes:
        """Mask a random set of each picture's positions, of a size that the schedule says."""
        codes, owner = flatten(truths)
        done = torch.rand(len(truths), generator=generator, device=generator.device).tolist()
        schedule = SCHEDULES[self.options.schedule]
        maps = [self.places(grid)[0].to(generator.device) for grid in grids]
        sets = [
            random_set(len(one), schedule(at), generator, one if self.nested else None)
            for one, at in zip(maps, done)
        ]
        weights = [self._weights(*one) for one in zip(sets, maps, grids)]
        times = torch.stack([chosen.float().mean() for chosen in sets])
        masked, times, maps, weights = (
            part.to(codes.device) for part in (torch.cat(sets), times, torch.cat(maps), torch.cat(weights))
        )
        return MaskedCodes(codes.masked_fill(masked[:, None], MASKED), codes, owner, times, maps, weights)

    def _weights(self, masked: Tensor, maps: Tensor, grid: Grid) -> Tensor:
        """(P,) what each position of a picture counts.

        The mean over a picture is the mean over the positions asked for (inverse_ratio), or is scaled so that
        the mean over many pictures is the mean over all positions asked for (even).
        """
        asked = (masked & (maps == maps[masked].min()) if self.nested else masked).float()
        if self.options.weighting == "inverse_ratio":
            return asked / asked.mean()
        return asked / mean_asked(self.options.schedule, self._sizes(grid))

    def embed(self, corrupted: MaskedCodes) -> Tensor:
        """Known codes, what they add up to read as a finished picture is; hidden ones as the mask."""
        return self._embed(corrupted.inputs, corrupted.maps)

    def _embed(self, codes: Tensor, maps: Tensor) -> Tensor:
        """Codes (..., P, M) of maps (P,) to (..., P, D)."""
        hidden = codes[..., :1] == MASKED
        known = self.known(self.symbols(codes.clamp_min(0)))
        return self.on(torch.where(hidden, self.mask, known), maps)

    def loss(self, hidden: Tensor, corrupted: MaskedCodes) -> Tensor:
        """(P,) mean cross-entropy of a position's codes, in nats, weighted; 0 of those not asked for."""
        asked = corrupted.weights > 0
        loss = torch.zeros(len(hidden), device=hidden.device)
        loss[asked] = self.costs(hidden[asked], corrupted.target[asked]) * corrupted.weights[asked]
        return loss

    def _cells(self, grid: Grid) -> list[Cells]:
        """Rows and columns of the positions of each map."""
        return maps_of(self.shares[:: self.deep], grid)

    def _sizes(self, grid: Grid) -> tuple[int, ...]:
        """Positions of each part of a picture that is filled in before the next."""
        sizes = tuple(rows * columns for rows, columns in self._cells(grid))
        return sizes if self.nested else (sum(sizes),)

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
        """Codes (B, P, M), a set of positions a forward; `steps` forwards, one a map at least if nested.

        Guidance is of logits, and its interval is of the share that is hidden.
        """
        forwards = self.options.forwards if steps is None else steps
        device = self.mask.device
        maps = self.places(grid)[0].to(device)
        total = len(maps)
        codes = torch.full((len(generators), total, self.deep), MASKED, device=device)
        kind, cells = self.options.order, self._cells(grid)
        order = None if kind == "confidence" else order_of(kind, cells, self.nested, generators).to(device)
        sets, done = cut(self.options.schedule, total, forwards, self._sizes(grid)), 0
        for number, count in enumerate(sets, start=1):
            guides = guidance.applies(1 - done / total)
            hidden, nulls = look(self._embed(codes, maps), guides)
            here = ramped(guidance, (done + count) / total) if self.options.guidance_ramp else guidance
            drawn, sure = self.draw(hidden, nulls if guides else {}, here, generators, self.options)
            if order is None:
                sure = self._noisy(sure, generators, 1 - number / len(sets))
                later = maps > maps[done] if self.nested else maps < 0
                chosen = sure.masked_fill((codes[..., 0] != MASKED) | later, -torch.inf).topk(count).indices
            else:
                chosen = order[:, done : done + count]
            chosen = chosen[..., None].expand(-1, -1, self.deep)
            codes = codes.scatter(1, chosen, drawn.gather(1, chosen))
            done += count
            if on_step:
                on_step(number, len(sets))
        return codes

    def _noisy(self, sure: Tensor, generators: list[torch.Generator], left: float) -> Tensor:
        """Log-probabilities (B, P) of what was drawn, with noise of which a share is `left`."""
        noise = left * self.options.choice_temperature
        return sure + noise * row_gumbel(generators, sure.shape[1:]).to(sure) if noise else sure
