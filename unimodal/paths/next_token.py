"""Next-token prediction: a picture is a sentence of codes, said row by row.

The codes join the vocabulary's space with an embedding and a head of their own; every row ends with a symbol
that says so, whatever its length, and the size stands before the picture as text, so that any size and shape
can be said (Chameleon; Emu3, Wang et al. 2024; LlamaGen, Sun et al. 2024; Janus).  Position i says
symbol i, sees symbol i - 1, and stands where symbol i does.  Codecs with several maps have them said one
after another, which leaves nothing out: any distribution over pictures can be learned.

N codes of a picture, P = N + rows of all maps symbols.
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
from unimodal.paths.codes import CodeHead, entries_of, layout_of, require_codes
from unimodal.paths.path import OF_LATENTS, Before, Corrupted, Look, flatten
from unimodal.sequence.spans import Grid, TargetLayout


@dataclass(slots=True)
class Sentences(Corrupted):
    """inputs and target are symbols (P,); `maps` (P,) is the map that each position says a symbol of."""

    maps: Tensor


class NextTokenPath(nn.Module):
    """See `unimodal.paths.path`.  Symbols are the codes of each codebook, then end of row, then start."""

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
        self.shares, self.vocabulary, self.shared = codec.shares, codec.vocabulary, codec.shared
        self.channels = codec.channels
        self.end = self.vocabulary * (1 if self.shared else len(self.shares))
        self.start = self.end + 1
        width = config.hidden_size
        self.latent_in = nn.Linear(self.channels, width)
        self.symbol_in = nn.Embedding(self.start + 1, width)
        self.map_in = nn.Embedding(len(self.shares), width)
        entries = pad(entries_of(codec).flatten(0, 1), (0, 0, 0, 2))  # the last two mean nothing
        self.register_buffer("entries", entries)
        self.head = CodeHead(width, entries[:-1])

    def reset_parameters(self) -> None:
        """Start with a head to which all symbols are alike."""
        self.head.reset_parameters()

    def target_layout(self, grid: Grid) -> TargetLayout:
        """A step a symbol; the end of a row stands one column beyond it."""
        _, where = layout_of(self.shares, grid, extra=1)
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
            symbols = codes.new_full(number.shape, self.end)
            symbols[code_at] = codes + self._first(number[code_at])
            said.append(symbols)
            seen.append(torch.cat([symbols.new_full((1,), self.start), symbols[:-1]]))
            maps.append(number)
        target, owner = flatten(said)
        times = torch.ones(len(truths), device=target.device)
        return Sentences(torch.cat(seen), target, owner, times, torch.cat(maps))

    def _order(self, grid: Grid, device: torch.device) -> tuple[Tensor, Tensor]:
        """The map (P,) of every symbol, and where the codes are among them: (N,)."""
        maps, where = layout_of(self.shares, grid, extra=1)
        code_at = np.flatnonzero(where[:, 1] < grid[1])  # beyond the last column are the ends of rows
        return torch.from_numpy(maps).to(device), torch.from_numpy(code_at).to(device)

    def _first(self, maps: Tensor) -> Tensor:
        """The symbol of code 0 in each of these maps."""
        return torch.zeros_like(maps) if self.shared else maps * self.vocabulary

    def embed(self, corrupted: Sentences) -> Tensor:
        """The symbol before, its entry read as a finished picture is, and the map that is gone on with."""
        return self._embed(corrupted.inputs, corrupted.maps)

    def _embed(self, symbols: Tensor, maps: Tensor) -> Tensor:
        return self.latent_in(self.entries[symbols]) + self.symbol_in(symbols) + self.map_in(maps)

    def embed_clean(self, latents: Tensor) -> Tensor:
        """A finished picture is read by its latents."""
        return self.latent_in(latents)

    def loss(self, hidden: Tensor, corrupted: Sentences) -> Tensor:
        """Cross-entropy of every symbol, row ends included, in nats: (P,)."""
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
        """Codes (B, N), one look each.

        Only codes of the map in question are legal, and rows end where the picture does, so the end of a row
        is known before it is reached and is looked at together with the next code.  Without the size as text
        the model itself learns of it with the first row's end.
        """
        if steps is not None:
            say_steps_are_fixed("next_token", "a look a code", steps)
        maps, code_at = self._order(grid, self.entries.device)
        first = self._first(maps)
        # seen[:, i] is what position i sees: symbol i - 1.
        seen = maps.new_full((len(generators), len(maps) + 1), self.end)
        seen[:, 0] = self.start
        begin = 0
        for done, (i, legal_from) in enumerate(zip(code_at.tolist(), first[code_at].tolist())):
            at = slice(begin, i + 1)
            hidden, nulls = look(self._embed(seen[:, at], maps[at]), at=at)
            nulls = nulls if guidance.applies(1 - done / len(code_at)) else {}
            say = partial(self._say, first=legal_from)
            codes = choose(guided(say, hidden, nulls, guidance), generators, self.options)
            seen[:, i + 1] = codes[:, 0] + legal_from
            begin = i + 1
            if on_step:
                on_step(done + 1, len(code_at))
        return seen[:, 1:][:, code_at] - first[code_at]

    def _say(self, hidden: Tensor, first: int) -> Tensor:
        """Logits (B, 1, V) at the last position, of the codes whose symbols begin at `first` alone."""
        return self.head(hidden[:, -1:])[..., first : first + self.vocabulary]

    def decode(self, codec: Codec, finished: Tensor, grid: Grid) -> Tensor:
        """Codes to pixels."""
        return codec.decode(finished, grid)
