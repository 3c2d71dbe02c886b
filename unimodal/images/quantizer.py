"""What every quantizer does: latents of a picture <-> maps of codes.

A picture of h x w cells becomes one or more maps of codes, each a grid of numbers below `vocabulary`, and
its quantized latents are a sum with one term a map.  That holds for one codebook, for groups of channels
(each adds to channels of its own), for residuals (each adds what those before it left over) and for scales
(each adds to the whole picture what coarser ones left over), so nobody else needs to know which it is.

B batch, C latent channels, h w cells, N codes of a picture: its maps one after another, each row by row.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from unimodal.errors import UserError

Cells = tuple[int, int]

LARGEST = 65_536  # entries of a codebook; distances to all of them are held in memory at once


class Quantized(NamedTuple):
    """What training needs: latents that pass gradients on, the codes, and loss terms by name (means)."""

    latents: Tensor  # (B, C, h, w)
    codes: Tensor  # (B, N)
    terms: dict[str, Tensor]


class Quantizer(nn.Module, ABC):
    """Latents (B, C, h, w) <-> codes (B, N).  `forward` learns; everything else leaves codebooks alone.

    vocabulary  every code is in [0, vocabulary); code k of one map is no relative of code k of another,
                unless `shared`
    terms       names of the losses that `forward` gives
    nested      whether a map says what the sum of those before it left over: then its codes mean little
                while those are not known
    shares      sides of each map as shares of the picture's, in the order of the codes; see `maps_of`
    books       the library's module.  It learns inside `forward` only, whatever mode the whole model is in:
                a frozen codec inside a model in training must not move its codebook when it encodes.
    """

    terms: tuple[str, ...] = ()
    shared = False
    nested = False
    fitted: Tensor

    def __init__(self, vocabulary: int, books: nn.Module, shares: Sequence[float] = (1.0,)) -> None:
        super().__init__()
        self.vocabulary, self.books, self.shares = vocabulary, books.eval(), tuple(shares)
        self.register_buffer("fitted", torch.tensor(False))

    def train(self, mode: bool = True) -> "Quantizer":
        """The mode of everything but the codebooks."""
        super().train(mode)
        self.books.eval()
        return self

    def maps(self, cells: Cells) -> list[Cells]:
        """Rows and columns of each map of a picture of (h, w) cells, in the order of its codes."""
        return maps_of(self.shares, cells)

    @abstractmethod
    def learn(self, latents: Tensor) -> Quantized:
        """Quantize float32 latents (B, C, h, w) and move the codebooks towards them."""

    @abstractmethod
    def choose(self, latents: Tensor) -> Tensor:
        """Codes (B, N) of float32 latents (B, C, h, w)."""

    @abstractmethod
    def term(self, number: int, codes: Tensor, cells: Cells) -> Tensor:
        """What map `number`, codes (B, n), adds to the latents (B, C, h, w)."""

    @torch.no_grad()
    def entries(self) -> Tensor:
        """(books, V, C) what each code of each codebook stands for, in the space of the latents."""
        every = torch.arange(self.vocabulary, device=self.fitted.device)[:, None]
        return torch.stack([self.term(n, every, (1, 1)).flatten(1) for n in range(len(self.shares))])

    def forward(self, latents: Tensor) -> Quantized:
        """Quantize latents (B, C, h, w) and learn from them; distances are always taken in float32."""
        self.books.train()
        try:
            with torch.autocast(latents.device.type, enabled=False):
                return self.learn(latents.float())
        finally:
            self.books.eval()

    @torch.no_grad()
    def codes(self, latents: Tensor) -> Tensor:
        """Codes (B, N) of latents (B, C, h, w)."""
        with torch.autocast(latents.device.type, enabled=False):
            return self.choose(latents.float())

    def latents(self, codes: Tensor, cells: Cells) -> Tensor:
        """Latents (B, C, h, w) of codes (B, N); codes may end after any whole map, and at least one."""
        parts = self.split(codes, cells)
        with torch.autocast(codes.device.type, enabled=False):
            total = self.term(0, parts[0], cells)
            for number, part in enumerate(parts[1:], start=1):
                total = total + self.term(number, part, cells)
        return total

    def split(self, codes: Tensor, cells: Cells) -> list[Tensor]:
        """Codes (B, N), or those of the first few maps, taken apart: (B, n) a map.

        Raises ValueError if they do not end where a map ends.
        """
        sizes = [rows * columns for rows, columns in self.maps(cells)]
        for count in range(1, len(sizes) + 1):
            if sum(sizes[:count]) == codes.shape[1]:
                return list(codes.split(sizes[:count], dim=1))
        raise ValueError(
            f"{codes.shape[1]} codes do not fill maps of {sizes} codes, which a picture of "
            f"{cells[0]}x{cells[1]} cells has"
        )

    def start(self) -> None:
        """Before the first latents ever learned from: have codebooks placed by k-means over them."""
        if not self.fitted:
            for book in self.books.modules():
                if hasattr(book, "initted"):
                    book.initted.fill_(False)
            self.fitted.fill_(True)


def maps_of(shares: Sequence[float], cells: Cells) -> list[Cells]:
    """Rows and columns of the maps of a picture of (h, w) cells: its sides times each share, 1 at least."""
    return [(max(1, round(cells[0] * share)), max(1, round(cells[1] * share))) for share in shares]


def to_rows(latents: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, h*w, C)."""
    return rearrange(latents, "b c h w -> b (h w) c")


def to_grid(rows: Tensor, cells: Sequence[int]) -> Tensor:
    """(B, h*w, C) -> (B, C, h, w)."""
    return rearrange(rows, "b (h w) c -> b c h w", h=cells[0], w=cells[1])


def straight_through(latents: Tensor, quantized: Tensor) -> Tensor:
    """The value of `quantized` to the bit, and to `latents` the gradient as if nothing had been done."""
    return quantized + (latents - latents.detach())


def moving(codes: Any, decay: Any, reset: Any) -> dict[str, Any]:
    """The library's arguments for a codebook that moves by averages.

    codes  entries;  decay  of the averages;  reset  an entry that fewer latents a batch choose is moved
    Raises UserError if a value is out of range.
    """
    if not is_whole(codes, 2) or codes > LARGEST:
        raise UserError(f"codes = {codes!r}; expected a whole number from 2 to {LARGEST}.")
    if not isinstance(decay, int | float) or not 0 <= decay < 1:
        raise UserError(f"decay = {decay!r}; expected a number from 0 to below 1.")
    if not isinstance(reset, int | float) or reset < 0:
        raise UserError(f"reset = {reset!r}; expected 0 or more latents a batch.")
    return {
        "codebook_size": codes,
        "decay": decay,
        "threshold_ema_dead_code": reset,
        "commitment_weight": 1.0,
        "rotation_trick": False,
    }


def is_whole(number: Any, least: int) -> bool:
    """Whether a value from a file is an integer of at least `least`."""
    return isinstance(number, int) and not isinstance(number, bool) and number >= least
