"""Next-token prediction: a picture is a sentence of codes, said row by row.

The codes join the vocabulary's space with an embedding and a head of their own; every row ends with a symbol
that says so, whatever its length, and the size stands before the picture as text, so that any size and shape
can be said (Chameleon; Emu3, Wang et al. 2024; LlamaGen, Sun et al. 2024; Janus).  Position i sees what
position i - 1 says, and stands where what it says does; a cell of several codes is said by one position, code
by code (see `unimodal.paths.cells`).  Maps of different sizes are said one after another.  Nothing is left
out: any distribution over pictures can be learned.

P positions of M codes each: cells and the ends of rows, of all maps.
"""

from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from unimodal.diffusion.guidance import Guidance
from unimodal.diffusion.solvers import OnStep
from unimodal.images.codec import Codec
from unimodal.model.config import ModelConfig
from unimodal.paths.cells import NOTHING, CellsPath
from unimodal.paths.choose import say_steps_are_fixed
from unimodal.paths.path import OF_LATENTS, Before, Corrupted, Look, flatten
from unimodal.sequence.spans import Grid, TargetLayout


@dataclass(slots=True)
class Sentences(Corrupted):
    """inputs (P, M) symbols; target (P, M) codes, V for the end of a row, or NOTHING; maps (P,)."""

    maps: Tensor


class NextTokenPath(CellsPath):
    """See `unimodal.paths.path`.  Symbols are the codes of each codebook, then end of row, then start."""

    options: "NextTokenPath.Options"

    class Options(CellsPath.Options):
        """Settings of this path alone, besides those of all that say cells.

        size_as_text  whether rows and columns stand before every picture, as `8x12`
        flips         in training up to this share of the codes that are read go astray, and what follows is
                      said as if they had not: so a mistake of drawing, which no true picture shows, leads to
                      none of the next.  With it `model.times.copies` counts, each with mistakes of its own.
        """

        size_as_text: bool = True
        flips: float = Field(0.0, ge=0, lt=1)

    def __init__(self, config: ModelConfig, codec: Codec):
        super().__init__(config, codec, symbols=2, ends=1)
        self.times = config.times
        self.IDLE = OF_LATENTS | {"sampling.steps"} | (set() if self.options.flips else {"times.copies"})
        self.end = self.books * self.vocabulary
        self.start = self.end + 1

    def target_layout(self, grid: Grid) -> TargetLayout:
        """A step a position; the end of a row stands one column beyond it."""
        _, where = self.places(grid, extra=1)
        said = f"{grid[0]}x{grid[1]}" if self.options.size_as_text else ""
        copies = self.times.copies if self.options.flips else 1
        return TargetLayout(
            np.arange(len(where)), hidden=True, places=where.numpy(), copies=copies, said=said
        )

    def corrupt(self, truths: list[Tensor], grids: list[Grid], generator: torch.Generator) -> Sentences:
        """Every symbol is said from those before it, or with `flips`, in training, from strayed ones.

        The time is 1, a blank sheet, for all.
        """
        seen, said, maps = [], [], []
        for codes, grid in zip(truths, grids):
            number, code_at = self._order(grid, codes.device)
            symbols = codes.new_full((len(number), self.deep), self.end)
            symbols[code_at] = self.symbols(self._astray(codes, generator))
            target = codes.new_full(symbols.shape, NOTHING)
            target[:, 0] = self.vocabulary
            target[code_at] = codes
            said.append(target)
            seen.append(torch.cat([symbols.new_full((1, self.deep), self.start), symbols[:-1]]))
            maps.append(number)
        target, owner = flatten(said)
        times = torch.ones(len(truths), device=target.device)
        return Sentences(torch.cat(seen), target, owner, times, torch.cat(maps))

    def _astray(self, codes: Tensor, generator: torch.Generator) -> Tensor:
        """Codes (P, M) of which a random share is other ones."""
        if not (self.options.flips and self.training):
            return codes
        device = generator.device
        share = self.options.flips * torch.rand((), generator=generator, device=device)
        off = torch.rand(codes.shape, generator=generator, device=device) < share
        other = torch.randint(self.vocabulary, codes.shape, generator=generator, device=device)
        return torch.where(off.to(codes.device), other.to(codes.device), codes)

    def _order(self, grid: Grid, device: torch.device) -> tuple[Tensor, Tensor]:
        """The map (P,) of every position, and which of them say codes."""
        maps, where = self.places(grid, extra=1)
        code_at = (where[:, 1] < grid[1]).nonzero()[:, 0]  # beyond the last column are the ends of rows
        return maps.to(device), code_at.to(device)

    def embed(self, corrupted: Sentences) -> Tensor:
        """The symbols before, and the map that is gone on with."""
        return self.on(self.known(corrupted.inputs), corrupted.maps)

    def loss(self, hidden: Tensor, corrupted: Sentences) -> Tensor:
        """Cross-entropy of every symbol, row ends included, in nats, over M: (P,)."""
        return self.costs(hidden, corrupted.target)

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
        """Codes (B, positions without row ends, M), a look each.

        Only codes are legal, and rows end where the picture does, so the end of a row is known before it is
        reached and is looked at together with the next code.  Without the size as text the model itself
        learns of it with the first row's end.
        """
        if steps is not None:
            say_steps_are_fixed("next_token", "a look a position", steps)
        maps, code_at = self._order(grid, self.entries.device)
        # seen[:, i] is what position i sees: the symbols of position i - 1.
        seen = maps.new_full((len(generators), len(maps) + 1, self.deep), self.end)
        seen[:, 0] = self.start
        begin, codes = 0, []
        for done, i in enumerate(code_at.tolist()):
            at = slice(begin, i + 1)
            hidden, nulls = look(self.on(self.known(seen[:, at]), maps[at]), at=at)
            nulls = nulls if guidance.applies(1 - done / len(code_at)) else {}
            last = {kind: states[:, -1:] for kind, states in nulls.items()}
            drawn, _ = self.draw(hidden[:, -1:], last, guidance, generators, self.options)
            codes.append(drawn)
            seen[:, i + 1] = self.symbols(drawn)[:, 0]
            begin = i + 1
            if on_step:
                on_step(done + 1, len(code_at))
        return torch.cat(codes, dim=1)
