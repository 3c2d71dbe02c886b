"""What paths that say codes ask of a codec, what its codes mean, and where in the picture they stand.

A codec's maps may be coarser than the picture (see images/discrete.py); a code's place is that of the
first cell, in the finest grid, that it stands for.

V codes in a codebook, C latent channels, D model width.
"""

from functools import lru_cache

import numpy as np
from torch import Tensor, nn

from unimodal.errors import UserError
from unimodal.images.codec import Codec
from unimodal.images.quantizer import maps_of
from unimodal.model.config import ModelConfig
from unimodal.sequence.spans import Grid


def require_codes(config: ModelConfig, codec: Codec) -> None:
    """Raise UserError unless the codec gives codes and a position is one cell."""
    if not codec.discrete:
        raise UserError(
            f"path {config.path} says codes, and {type(codec).__name__} has none: its latents are "
            "continuous. Expected a codec with a quantizer, as recipes/codec/vq.yaml trains, or path flow."
        )
    if config.patch_size != 1:
        raise UserError(
            f"path {config.path} says the codes of single cells, so model.patch_size must be 1; found "
            f"{config.patch_size}. For fewer positions a picture, train a codec of a larger stride."
        )


def entries_of(codec: Codec) -> Tensor:
    """(books, V, C) what each code of each codebook adds to the normalised latents of its cell."""
    return codec.quantizer.entries().to(codec.std) / codec.std


class CodeHead(nn.Module):
    """Logits of codes: a row of weights each, and a direction in the space of their entries for all.

    Codes whose entries are alike are so said alike from the first step on, where rows alone have to learn
    each of a thousand codes from the few pictures that it is in.
    """

    entries: Tensor  # (V, C), of mean 0 and length 1 on average

    def __init__(self, width: int, entries: Tensor):
        super().__init__()
        count, channels = entries.shape
        apart = entries - entries.mean(0)
        self.register_buffer("entries", apart / apart.norm(dim=1).mean().clamp_min(1e-6))
        self.rows = nn.Linear(width, count, bias=False)
        self.place = nn.Linear(width, channels, bias=False)

    def reset_parameters(self) -> None:
        """Begin with all codes alike."""
        nn.init.zeros_(self.rows.weight)
        nn.init.zeros_(self.place.weight)

    def forward(self, hidden: Tensor) -> Tensor:
        """Hidden states (..., D) to logits (..., V)."""
        return self.rows(hidden) + self.place(hidden) @ self.entries.to(hidden.dtype).T


def places(size: Grid, grid: Grid, extra: int = 0) -> np.ndarray:
    """(rows * (columns + extra), 2) row and column, in cells of `grid`, of a map of `size`, row by row.

    extra  positions at each row's end, beyond the picture's last column
    """
    rows, columns = size
    row, column = np.indices((rows, columns + extra)).reshape(2, -1)
    beyond = np.maximum(column - columns, 0)
    column = np.minimum(column, columns) * grid[1] // columns + beyond
    return np.stack([row * grid[0] // rows, column], axis=-1)


@lru_cache(256)
def layout_of(shares: tuple[float, ...], grid: Grid, extra: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The maps of a picture of `grid` cells one after another: map (P,) and place (P, 2) of every position.

    shares  of the picture's sides that each map has;  extra  see `places`
    """
    where = [places(size, grid, extra) for size in maps_of(shares, grid)]
    return np.repeat(np.arange(len(where)), [len(one) for one in where]), np.concatenate(where)
