"""What the paths share that say the codes of single cells: how these are embedded, and how they are said.

Where a codec's maps have one size, a position says all codes of its cell, one after another: the decoder is
asked once a cell, a small layer once a code (RQ-Transformer, Lee et al. 2022, and for masked cells its
contextual version, Lee et al. 2022, Draft-and-Revise).  Maps of different sizes have positions of their own,
of one code each.

P positions of M codes, V codes in a codebook, D model width.  Symbols are the codes of each codebook, then
whatever else a path says.
"""

from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from unimodal.diffusion.guidance import Guidance
from unimodal.errors import UserError
from unimodal.images.codec import Codec
from unimodal.model.config import ModelConfig
from unimodal.model.norm import RMSNorm
from unimodal.paths.choose import Choice, choose, guided
from unimodal.paths.codes import CodeHead, entries_of, layout_of, require_codes
from unimodal.sequence.spans import Grid

NOTHING = -1  # where a position says fewer symbols than it could


class CellsPath(nn.Module):
    """What `masked` and `next_token` begin with; see `unimodal.paths.path`.

    symbols  those that are no codes, which mean nothing by themselves
    ends     so many of them, the first ones, can be said
    """

    entries: Tensor  # (symbols, C)
    options: "CellsPath.Options"
    CODES: ClassVar[bool] = True

    class Options(Choice):
        """What both paths can be told, besides how a code is chosen.

        depth_weighting  of the loss: `even`, all codes of a cell weigh the same; `spread`, each as far as the
                         entries of its codebook lie apart, so that the first ones, which say most of the
                         picture, weigh most; 1 in the mean
        """

        depth_weighting: Literal["even", "spread"] = "even"

    def __init__(self, config: ModelConfig, codec: Codec, symbols: int = 0, ends: int = 0):
        super().__init__()
        require_codes(config, codec)
        self.channels, self.vocabulary, self.shares = codec.channels, codec.vocabulary, tuple(codec.shares)
        self.books = 1 if codec.shared else len(self.shares)
        self.deep = len(self.shares) if len({*self.shares}) == 1 else 1
        width = config.hidden_size
        self.latent_in = nn.Linear(self.channels, width)
        self.symbol_in = nn.Embedding(self.books * self.vocabulary + symbols, width)
        self.map_in = nn.Embedding(len(self.shares), width) if len(self.shares) > 1 else None
        entries = entries_of(codec)
        self.register_buffer("entries", pad(entries.flatten(0, 1), (0, 0, 0, symbols)))
        self.heads = nn.ModuleList(CodeHead(width, pad(book, (0, 0, 0, ends))) for book in entries)
        self.layers = nn.ModuleList(DepthLayer(width) for _ in range(self.deep - 1))
        self.options = self.Options.model_validate(config.path_options)
        if self.options.depth_weighting != "even" and self.deep == 1:
            raise UserError(
                f"path {config.path}: depth_weighting is of cells with several codes, and a position has one "
                "code of this codec. Leave it out."
            )

    def reset_parameters(self) -> None:
        """Start with heads that hold all symbols alike."""
        for head in self.heads:
            head.reset_parameters()

    def places(self, grid: Grid, extra: int = 0) -> tuple[Tensor, Tensor]:
        """The map (P,) of each position and its row and column (P, 2), `extra` of them at each row's end."""
        maps, where = layout_of(self.shares[:: self.deep], grid, extra)
        return torch.from_numpy(maps), torch.from_numpy(where)

    def by_position(self, codes: Tensor) -> Tensor:
        """Codes map by map (..., P M) as (..., P, M)."""
        return codes.unflatten(-1, (self.deep, -1)).transpose(-1, -2)

    def by_map(self, codes: Tensor) -> Tensor:
        """The other way round: (..., P, M) to (..., P M)."""
        return codes.transpose(-1, -2).flatten(-2)

    def symbols(self, codes: Tensor) -> Tensor:
        """The symbols of a position's first codes (..., up to M)."""
        first = torch.arange(codes.shape[-1], device=codes.device) * self.vocabulary
        return codes + first if self.books > 1 else codes

    def known(self, symbols: Tensor) -> Tensor:
        """Symbols (..., n) of a position to (..., D); their sum is read as a finished picture is."""
        return self.latent_in(self.entries[symbols].sum(-2)) + self.symbol_in(symbols).sum(-2)

    def on(self, embeds: Tensor, maps: Tensor) -> Tensor:
        """Embeddings (..., P, D) of positions of maps (P,), told which map that is."""
        return embeds if self.map_in is None else embeds + self.map_in(maps)

    def truth(self, codec: Codec, encoded: Tensor, latents: Tensor, grid: Grid) -> Tensor:
        """The codes, position by position: (B, P, M)."""
        return self.by_position(encoded)

    def embed_clean(self, latents: Tensor) -> Tensor:
        """A finished picture is read by its latents."""
        return self.latent_in(latents)

    def decode(self, codec: Codec, finished: Tensor, grid: Grid) -> Tensor:
        """Codes (B, P, M) to pixels."""
        return codec.decode(self.by_map(finished), grid)

    def logits(self, hidden: Tensor, before: Tensor) -> Tensor:
        """Logits (..., V + ends) of each position's next symbol.

        hidden  (..., D);  before  (..., n) the codes of the position that come before it
        """
        depth = before.shape[-1]
        if depth:
            hidden = self.layers[depth - 1](hidden, self.known(self.symbols(before)))
        return self.heads[depth if self.books > 1 else 0](hidden)

    def costs(self, hidden: Tensor, target: Tensor) -> Tensor:
        """(P,) mean cross-entropy in nats of the M symbols (P, M) that positions say, weighted by depth.

        target  codes, or V and more for what is no code; NOTHING costs nothing
        """
        total, weights = torch.zeros(len(hidden), device=hidden.device), self._by_depth()
        for depth, wanted in enumerate(target.unbind(1)):
            of = wanted != NOTHING
            said = self.logits(hidden[of], target[of, :depth]).float()
            total[of] += weights[depth] * cross_entropy(said, wanted[of], reduction="none")
        return total / self.deep

    def _by_depth(self) -> Tensor:
        """(M,) what each code of a cell counts in the loss, 1 in the mean."""
        if self.options.depth_weighting == "even":
            return torch.ones(self.deep, device=self.entries.device)
        books = self.entries[: self.books * self.vocabulary].float().unflatten(0, (self.books, -1))
        spread = books.var(dim=1).sum(-1).sqrt().expand(self.deep)
        return spread / spread.mean()

    def draw(
        self,
        hidden: Tensor,
        nulls: dict,
        guidance: Guidance,
        generators: list[torch.Generator],
        choice: Choice,
    ) -> tuple[Tensor, Tensor]:
        """Codes (B, n, M) from hidden states (B, n, D), and their log-probability (B, n) as guided."""
        codes = torch.zeros(*hidden.shape[:2], 0, dtype=torch.long, device=hidden.device)
        sure = torch.zeros(hidden.shape[:2], device=hidden.device)
        for _ in range(self.deep):
            logits = guided(partial(self._legal, before=codes), hidden, nulls, guidance)
            drawn = choose(logits, generators, choice)[..., None]
            sure += logits.log_softmax(-1).gather(-1, drawn)[..., 0]
            codes = torch.cat([codes, drawn], dim=-1)
        return codes, sure

    def _legal(self, hidden: Tensor, before: Tensor) -> Tensor:
        """Logits (..., V) of codes alone."""
        return self.logits(hidden, before)[..., : self.vocabulary]


class DepthLayer(nn.Module):
    """What a hidden state becomes for a position's next code, when those before it are known."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = RMSNorm(width, 1e-6)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))

    def forward(self, hidden: Tensor, known: Tensor) -> Tensor:
        """Hidden states (..., D) and what the known codes are embedded by (..., D) to (..., D)."""
        x = hidden + known
        return x + self.mlp(self.norm(x))
