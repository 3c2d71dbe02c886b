"""Masked codes: a picture's codes are hidden at random and said again, many at a time.

All positions see each other, and those that are hidden hold a mask embedding; drawing begins with nothing
but masks and fills in a set of codes a forward (Chang et al. 2022, MaskGIT; inside a language model Xie et
al. 2024, Show-o).  Maps of one size share positions, other codes have one each.  Where a map says what those
before it left over, the maps are filled in one after the other, and training asks only for codes
of the first map that is not yet known whole: what is left of an unknown sum cannot be said (Borsos et al.
2023, SoundStorm).
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from unimodal.diffusion.guidance import Guidance
from unimodal.diffusion.solvers import OnStep
from unimodal.images.codec import Codec
from unimodal.images.quantizer import maps_of
from unimodal.model.config import ModelConfig
from unimodal.paths.choose import Choice, choose, guided, ramped, row_gumbel
from unimodal.paths.codes import (
    CodeHead,
    by_position,
    codes_a_position,
    entries_of,
    layout_of,
    require_codes,
)
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
    """inputs (P,) codes, or MASKED; target (P,) codes; times (I,) the share that is masked.

    maps     (P, M) number of the map that each code is of; inputs and target are (P, M), too
    weights  (P, M) what each code counts in the loss; 0 for those that are known, or not asked for
    """

    maps: Tensor
    weights: Tensor


class MaskedPath(nn.Module):
    """See `unimodal.paths.path`.  P positions of M codes, V codes in a codebook, D model width.

    Maps of one size share positions: the M codes of a cell are seen together, and said by a head each.  Of
    other maps every code has a position, M = 1.  `model.times.copies` masks are drawn for one picture.
    """

    entries: Tensor  # (books * V, C)
    CODES: ClassVar[bool] = True
    IDLE: ClassVar[frozenset[str]] = OF_LATENTS | {"sampling.steps"}

    class Options(Choice):
        """Settings of this path alone, besides how a code is chosen.

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
        super().__init__()
        require_codes(config, codec)
        self.options = self.Options.model_validate(config.path_options)
        self.times = config.times
        self.channels, self.vocabulary, self.shares = codec.channels, codec.vocabulary, tuple(codec.shares)
        self.books = 1 if codec.shared else len(self.shares)
        self.nested = codec.nested and len(self.shares) > 1
        self.deep = codes_a_position(self.shares)
        width = config.hidden_size
        self.latent_in = nn.Linear(self.channels, width)
        self.code_in = nn.Embedding(self.books * self.vocabulary, width)
        self.map_in = nn.Embedding(len(self.shares), width) if len(self.shares) > 1 else None
        self.mask = nn.Parameter(torch.zeros(width))
        entries = entries_of(codec)
        self.register_buffer("entries", entries.flatten(0, 1))
        self.heads = nn.ModuleList(CodeHead(width, book) for book in entries)

    def reset_parameters(self) -> None:
        """Start with heads that hold all codes alike."""
        nn.init.normal_(self.mask, std=0.02)
        for head in self.heads:
            head.reset_parameters()

    # ---- training -----------------------------------------------------------------------------

    def target_layout(self, grid: Grid) -> TargetLayout:
        """One hidden step for all codes; those of a coarser map stand where their cells begin."""
        _, where = layout_of(self.shares[:: self.deep], grid)
        steps = np.zeros(len(where), dtype=np.int64)
        return TargetLayout(steps, hidden=True, places=where, copies=self.times.copies)

    def truth(self, codec: Codec, encoded: Tensor, latents: Tensor, grid: Grid) -> Tensor:
        """The codes."""
        return encoded

    def corrupt(self, truths: list[Tensor], grids: list[Grid], generator: torch.Generator) -> MaskedCodes:
        """Mask a random set of each picture's codes, of a size that the schedule says."""
        codes, owner = flatten([by_position(one, self.deep) for one in truths])
        done = torch.rand(len(truths), generator=generator, device=generator.device).tolist()
        schedule = SCHEDULES[self.options.schedule]
        maps = [self._maps(grid).to(generator.device) for grid in grids]
        sets = [
            random_set(len(one), schedule(at), generator, one if self.nested else None)
            for one, at in zip(maps, done)
        ]
        weights = [self._weights(*one) for one in zip(sets, maps, grids)]
        times = torch.stack([chosen.float().mean() for chosen in sets])
        masked, maps, weights = (
            torch.cat([by_position(one, self.deep) for one in parts]).to(codes.device)
            for parts in (sets, maps, weights)
        )
        inputs = codes.masked_fill(masked, MASKED)
        return MaskedCodes(inputs, codes, owner, times.to(codes.device), maps, weights)

    def _weights(self, masked: Tensor, maps: Tensor, grid: Grid) -> Tensor:
        """(P M,) what each code of a picture counts.

        The mean over a picture is the mean over the codes asked for (inverse_ratio), or is scaled so that the
        mean over many pictures is the mean over all codes asked for (even).
        """
        asked = (masked & (maps == maps[masked].min()) if self.nested else masked).float()
        if self.options.weighting == "inverse_ratio":
            return asked / asked.mean()
        return asked / mean_asked(self.options.schedule, self._sizes(grid))

    def embed(self, corrupted: MaskedCodes) -> Tensor:
        """Known codes as themselves, their entries read as a finished picture is; hidden ones as the mask."""
        return self._embed(corrupted.inputs, corrupted.maps)

    def _embed(self, codes: Tensor, maps: Tensor) -> Tensor:
        """Codes (..., P, M) of maps (P, M) to (..., P, D)."""
        number = codes.clamp_min(0) + self._book(maps) * self.vocabulary
        known = (codes != MASKED)[..., None]
        of_map = 0.0 if self.map_in is None else self.map_in(maps)
        said = self.code_in(number) + (of_map if self.books == 1 else 0.0)  # else the code says its map
        each = torch.where(known, said, self.mask + of_map).sum(-2)
        # What the known codes of a cell add up to, if any is known.
        entries = self.latent_in((self.entries[number] * known).sum(-2))
        return each + entries * known.any(-2)

    def embed_clean(self, latents: Tensor) -> Tensor:
        """A finished image is read as latents."""
        return self.latent_in(latents)

    def loss(self, hidden: Tensor, corrupted: MaskedCodes) -> Tensor:
        """(P,) mean cross-entropy of a position's codes, in nats, weighted; 0 of those not asked for."""
        asked, book = corrupted.weights > 0, self._book(corrupted.maps)
        loss = torch.zeros(asked.shape, device=hidden.device)
        for number, head in enumerate(self.heads):
            of = asked & (book == number)
            said = head(hidden[of.nonzero()[:, 0]]).float()
            loss[of] = cross_entropy(said, corrupted.target[of], reduction="none")
        return (loss * corrupted.weights).mean(1)

    def _sizes(self, grid: Grid) -> tuple[int, ...]:
        """Codes of each part of a picture that is filled in before the next."""
        sizes = tuple(rows * columns for rows, columns in maps_of(self.shares, grid))
        return sizes if self.nested else (sum(sizes),)

    def _maps(self, grid: Grid) -> Tensor:
        """(P M,) the number of the map that each code is of, map by map."""
        return torch.from_numpy(layout_of(self.shares, grid)[0])

    def _book(self, maps: Tensor) -> Tensor:
        """The codebook of each map."""
        return maps if self.books > 1 else torch.zeros_like(maps)

    # ---- drawing ------------------------------------------------------------------------------

    def logits(self, hidden: Tensor, maps: Tensor) -> Tensor:
        """What hidden states (B, P, D) say of codes, map by map, of maps (P M,): (B, P M, V)."""
        parts = hidden.repeat(1, self.deep, 1).split(
            torch.bincount(self._book(maps), minlength=self.books).tolist(), dim=1
        )
        return torch.cat([head(part) for head, part in zip(self.heads, parts)], dim=1)

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
        """Codes (B, P M), map by map, a set a forward; `steps` forwards, one a map at least if nested.

        Guidance is of logits, and its interval is of the share that is hidden.
        """
        forwards = self.options.forwards if steps is None else steps
        device = self.mask.device
        maps = self._maps(grid).to(device)
        map_of, total = by_position(maps, self.deep), len(maps)
        codes = torch.full((len(generators), total), MASKED, device=device)
        kind, cells = self.options.order, maps_of(self.shares, grid)
        order = None if kind == "confidence" else order_of(kind, cells, self.nested, generators).to(device)
        sizes, done = self._sizes(grid), 0
        sets = cut(self.options.schedule, total, forwards, sizes)
        for number, count in enumerate(sets, start=1):
            guides = guidance.applies(1 - done / total)
            hidden, nulls = look(self._embed(by_position(codes, self.deep), map_of), guides)
            here = ramped(guidance, (done + count) / total) if self.options.guidance_ramp else guidance
            logits = guided(partial(self.logits, maps=maps), hidden, nulls if guides else {}, here)
            drawn = choose(logits, generators, self.options)
            if order is None:
                sure = self._sureness(logits, drawn, generators, 1 - number / len(sets))
                later = maps > maps[done] if self.nested else maps < 0
                chosen = sure.masked_fill((codes != MASKED) | later, -torch.inf).topk(count).indices
            else:
                chosen = order[:, done : done + count]
            codes = codes.scatter(1, chosen, drawn.gather(1, chosen))
            done += count
            if on_step:
                on_step(number, len(sets))
        return codes

    def _sureness(
        self, logits: Tensor, drawn: Tensor, generators: list[torch.Generator], left: float
    ) -> Tensor:
        """(B, P M) log-probability of the drawn codes, with noise of which a share is `left`."""
        sure = logits.log_softmax(-1).gather(-1, drawn[..., None])[..., 0]
        noise = left * self.options.choice_temperature
        if not noise:
            return sure
        return sure + noise * row_gumbel(generators, sure.shape[1:]).to(sure)

    def decode(self, codec: Codec, finished: Tensor, grid: Grid) -> Tensor:
        """Codes to pixels."""
        return codec.decode(finished, grid)
