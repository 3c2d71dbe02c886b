"""Latents <-> positions: each patch of the latent grid is one position of the transformer.

Pure rearrangement, exact in both directions, for grids of any shape.
B batch, C latent channels, h w latent grid, p side of a patch.
"""

from einops import rearrange
from torch import Tensor


def to_tokens(latents: Tensor, patch: int) -> Tensor:
    """Latents (B, C, h, w) -> (B, h/p * w/p, C*p*p), row by row.

    Raises ValueError if a side of the grid is no multiple of `patch`.
    """
    height, width = latents.shape[-2:]
    if height % patch or width % patch:
        raise ValueError(f"a latent grid of {height}x{width} cannot be cut into patches of {patch}x{patch}")
    return rearrange(latents, "b c (h p) (w q) -> b (h w) (c p q)", p=patch, q=patch)


def from_tokens(tokens: Tensor, cells: tuple[int, int], patch: int) -> Tensor:
    """The inverse of `to_tokens`: (B, h/p * w/p, C*p*p) -> latents (B, C, h, w), `cells` being (h, w).

    Raises ValueError if the number of positions or their width does not fit.
    """
    rows, columns = cells[0] // patch, cells[1] // patch
    if (rows * patch, columns * patch) != tuple(cells) or tokens.shape[1] != rows * columns:
        raise ValueError(f"{tokens.shape[1]} positions of {patch}x{patch} do not fill a grid of {cells}")
    if tokens.shape[2] % patch**2:
        raise ValueError(f"positions of width {tokens.shape[2]} do not hold patches of {patch}x{patch}")
    return rearrange(tokens, "b (h w) (c p q) -> b c (h p) (w q)", h=rows, p=patch, q=patch)
