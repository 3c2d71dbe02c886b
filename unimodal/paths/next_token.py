"""Next-token prediction: a picture is a sentence of codes, said row by row.

The codes join the vocabulary's space with an embedding and a head of their own; every row ends with a symbol
that says so, whatever its length, and the size stands before the picture as text, so that any size and shape
can be said (Chameleon; Emu3, Wang et al. 2024; LlamaGen, Sun et al. 2024; Janus).  Position i says
symbol i, sees symbol i - 1, and stands where symbol i does.  Of codecs with several maps of one size a
position says all codes of its cell, one after another (RQ-Transformer, Lee et al. 2022): the decoder is asked
once a cell, a small layer once a code.  Maps of different sizes are said one after another.  Either way
nothing is left out: any distribution over pictures can be learned.

N codes of a picture, M of them a position, P = N / M + rows of all maps.
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from unimodal.diffusion.guidance import Guidance
from unimodal.diffusion.solvers import OnStep
from unimodal.images.codec import Codec
from unimodal.model.config import ModelConfig
from unimodal.paths.choose import Choice, choose, guided, say_steps_are_fixed
from unimodal.paths.codes import (
    CodeHead,
    DepthLayer,
    by_map,
    by_position,
    codes_a_position,
    entries_of,
    layout_of,
    require_codes,
)
from unimodal.paths.path import OF_LATENTS, Before, Corrupted, Look, flatten
from unimodal.sequence.spans import Grid, TargetLayout

NOTHING = -1  # of what follows the end of a row in its position


@dataclass(slots=True)
class Sentences(Corrupted):
    """inputs (P, M) symbols; target (P, M) codes of `maps` (P, M), V for the end of a row, or NOTHING."""

    maps: Tensor


class NextTokenPath(nn.Module):
    """See `unimodal.paths.path`.  Symbols are the codes of each codebook, then end of row, then start.

    V codes in a codebook, D model width.
    """

    entries: Tensor  # (symbols, C)
    CODES: ClassVar[bool] = True
    IDLE: ClassVar[frozenset[str]] = OF_LATENTS | {"times.copies", "sampling.steps"}

    class Options(Choice):
        """Settings of this path alone, besides how a code is chosen.

        size_as_text  whether rows and columns stand before every picture, as `8x12`
        """

        size_as_text: bool = True

    def __init__(self, config: ModelConfig, codec: Codec):
        super().__init__()
        require_codes(config, codec)
        self.options = self.Options.model_validate(config.path_options)
        self.channels, self.vocabulary, self.shares = codec.channels, codec.vocabulary, tuple(codec.shares)
        self.books = 1 if codec.shared else len(self.shares)
        self.deep = codes_a_position(self.shares)
        self.end = self.vocabulary * self.books
        self.start = self.end + 1
        width = config.hidden_size
        self.latent_in = nn.Linear(self.channels, width)
        self.symbol_in = nn.Embedding(self.start + 1, width)
        self.map_in = nn.Embedding(len(self.shares), width)
        entries = entries_of(codec)
        # The end of a row and the start mean nothing.
        self.register_buffer("entries", pad(entries.flatten(0, 1), (0, 0, 0, 2)))
        self.heads = nn.ModuleList(CodeHead(width, pad(book, (0, 0, 0, 1))) for book in entries)
        self.layers = nn.ModuleList(DepthLayer(width) for _ in range(self.deep - 1))

    def reset_parameters(self) -> None:
        """Start with heads to which all symbols are alike."""
        for head in self.heads:
            head.reset_parameters()

    def target_layout(self, grid: Grid) -> TargetLayout:
        """A step a position; the end of a row stands one column beyond it."""
        _, where = layout_of(self.shares[:: self.deep], grid, extra=1)
        said = f"{grid[0]}x{grid[1]}" if self.options.size_as_text else ""
        return TargetLayout(np.arange(len(where)), hidden=True, places=where, said=said)

    def truth(self, codec: Codec, encoded: Tensor, latents: Tensor, grid: Grid) -> Tensor:
        """The codes."""
        return encoded

    def corrupt(self, truths: list[Tensor], grids: list[Grid], generator: torch.Generator) -> Sentences:
        """Nothing is left to chance: every symbol is said from those before it.

        The time is 1, a blank sheet, for all.
        """
        seen, said, maps = [], [], []
        for codes, grid in zip(truths, grids):
            number, code_at = self._order(grid, codes.device)
            here = by_position(codes, self.deep)
            symbols = codes.new_full(number.shape, self.end)
            symbols[code_at] = here + self._first(number[code_at])
            target = codes.new_full(number.shape, NOTHING)
            target[:, 0] = self.vocabulary
            target[code_at] = here
            said.append(target)
            seen.append(torch.cat([symbols.new_full((1, self.deep), self.start), symbols[:-1]]))
            maps.append(number)
        target, owner = flatten(said)
        times = torch.ones(len(truths), device=target.device)
        return Sentences(torch.cat(seen), target, owner, times, torch.cat(maps))

    def _order(self, grid: Grid, device: torch.device) -> tuple[Tensor, Tensor]:
        """The maps (P, M) of every position, and which positions say codes: (N / M,)."""
        first, where = layout_of(self.shares[:: self.deep], grid, extra=1)
        code_at = np.flatnonzero(where[:, 1] < grid[1])  # beyond the last column are the ends of rows
        maps = first[:, None] + np.arange(self.deep)
        return torch.from_numpy(maps).to(device), torch.from_numpy(code_at).to(device)

    def _book(self, maps: Tensor) -> Tensor:
        """The codebook of each map."""
        return maps if self.books > 1 else torch.zeros_like(maps)

    def _first(self, maps: Tensor) -> Tensor:
        """The symbol of code 0 in each of these maps."""
        return self._book(maps) * self.vocabulary

    def embed(self, corrupted: Sentences) -> Tensor:
        """The symbols before, their entries read as a finished picture is, and the map to go on with."""
        return self._embed(corrupted.inputs, corrupted.maps)

    def _embed(self, symbols: Tensor, maps: Tensor) -> Tensor:
        """Symbols (..., P, M) before positions of maps (P, M) to (..., P, D)."""
        return self._known(symbols) + self.map_in(maps[:, 0])

    def _known(self, symbols: Tensor) -> Tensor:
        """What symbols (..., M) add up to: (..., D)."""
        return self.latent_in(self.entries[symbols].sum(-2)) + self.symbol_in(symbols).sum(-2)

    def embed_clean(self, latents: Tensor) -> Tensor:
        """A finished picture is read by its latents."""
        return self.latent_in(latents)

    def loss(self, hidden: Tensor, corrupted: Sentences) -> Tensor:
        """Cross-entropy of every symbol, row ends included, in nats, over the M of a position: (P,)."""
        target = corrupted.target
        symbols = target.clamp_min(0) + self._first(corrupted.maps)
        states = torch.stack([self._state(hidden, symbols[:, :depth]) for depth in range(self.deep)], dim=1)
        loss, book = torch.zeros(target.shape, device=hidden.device), self._book(corrupted.maps)
        for number, head in enumerate(self.heads):
            of = (target != NOTHING) & (book == number)
            loss[of] = cross_entropy(head(states[of]).float(), target[of], reduction="none")
        return loss.sum(1) / self.deep

    def _state(self, hidden: Tensor, before: Tensor) -> Tensor:
        """Hidden states (..., D) when the symbols `before` (..., depth) of their cells are known."""
        depth = before.shape[-1]
        return self.layers[depth - 1](hidden, self._known(before)) if depth else hidden

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
        """Codes (B, N), a look a position.

        Only codes of the map in question are legal, and rows end where the picture does, so the end of a row
        is known before it is reached and is looked at together with the next code.  Without the size as text
        the model itself learns of it with the first row's end.
        """
        if steps is not None:
            say_steps_are_fixed("next_token", "a look a position", steps)
        maps, code_at = self._order(grid, self.entries.device)
        # seen[:, i] is what position i sees: the symbols of position i - 1.
        seen = maps.new_full((len(generators), len(maps) + 1, self.deep), self.end)
        seen[:, 0] = self.start
        begin = 0
        for done, i in enumerate(code_at.tolist()):
            at = slice(begin, i + 1)
            hidden, nulls = look(self._embed(seen[:, at], maps[at]), at=at)
            nulls = nulls if guidance.applies(1 - done / len(code_at)) else {}
            for depth, first in enumerate(self._first(maps[i]).tolist()):
                say = partial(self._say, before=seen[:, i + 1, :depth], first=first)
                codes = choose(guided(say, hidden, nulls, guidance), generators, self.options)
                seen[:, i + 1, depth] = codes[:, 0] + first
            begin = i + 1
            if on_step:
                on_step(done + 1, len(code_at))
        return by_map(seen[:, 1:][:, code_at] - self._first(maps[code_at]))

    def _say(self, hidden: Tensor, before: Tensor, first: int) -> Tensor:
        """Logits (B, 1, V) at the last position, of codes alone: those whose symbols begin at `first`.

        before  (B, depth) symbols of the cell that are known
        """
        head = self.heads[first // self.vocabulary]
        return head(self._state(hidden[:, -1], before))[:, None, :-1]

    def decode(self, codec: Codec, finished: Tensor, grid: Grid) -> Tensor:
        """Codes to pixels."""
        return codec.decode(finished, grid)
