"""The oracle: pixels back to a scene, by comparing every cell with everything that could stand in it.

Picture and templates are smoothed a little, so that noise hardly counts while a missing arm or a stray blot
does.  The scene found is then drawn, blurred as much as the picture seems to be, and compared as a whole: a
cell that is far from what was found in it, or on the way to something else, makes the picture `Unreadable`,
and an unreadable picture is never right.
"""

from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
from einops import rearrange

from data_tools.shapes.language import PLACES
from data_tools.shapes.render import box, render, tile
from data_tools.shapes.scene import BACKGROUNDS, CELLS, COLOURS, SHAPES, SIZES, Scene, Thing
from unimodal.errors import UserError

# In units of 8-bit pixel values, after smoothing.
PAPER_SPREAD = 45.0  # a pixel this near to a background's colour speaks for that background
PAPER_SHARE = 0.25  # of the pixels have to agree on it
MISFIT = 14.0  # root mean square over a cell with something in it ...
MISFIT_EMPTY = 9.0  # ... and over an empty one
BLOT = 35.0  # mean over any patch of 4x4 pixels
UNLIKE = 0.14  # of the energy of what was found that it may leave unexplained; half a shape leaves a third
TOWARDS = 0.4  # of the way from what was found to anything else; halfway it could be either
PASSES = 2  # of the smoothing kernel
BLURS = (0, 1, 2, 3)  # further passes that a picture may look as if it had had


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Why a picture is no scene of this world."""

    reason: str


def _smooth(pixels: np.ndarray, passes: int = PASSES) -> np.ndarray:
    """The kernel [1 2 1] / 4 along rows and columns, `passes` times; (..., H, W, 3), edges repeated."""
    for _ in range(passes):
        for axis in (-3, -2):
            after = (slice(None),) * (-axis - 1)
            inner, low, high = (
                (..., slice(1, -1), *after),
                (..., slice(-2), *after),
                (..., slice(2, None), *after),
            )
            wide = np.concatenate([pixels[..., :1, *after], pixels, pixels[..., -1:, *after]], axis=axis)
            pixels = (wide[low] + wide[high]) * np.float32(0.25) + wide[inner] * np.float32(0.5)
    return pixels


@dataclass(frozen=True, slots=True, eq=False)
class _Templates:
    """Everything that can stand in a cell on one background; number 0 is nothing, k is `things[k - 1]`."""

    things: list[tuple[str, str, str]]  # shape, colour, size
    flat: np.ndarray  # (K, D) float32, smoothed, less the background
    apart: np.ndarray  # (K, K) mean square differences

    def name(self, k: int) -> str:
        """In words."""
        return " ".join(reversed(self.things[k - 1])) if k else "nothing"


@cache
def _templates(background: str, shapes: tuple[str, ...], canvas: int) -> _Templates:
    things = [(shape, colour, size) for shape, size in product(shapes, SIZES) for colour in COLOURS]
    paper = np.float32(BACKGROUNDS[background])
    tiles = np.stack([tile(s, size, c, background, canvas) for s, c, size in things]).astype(np.float32)
    flat = rearrange(_smooth(tiles - paper), "k h w c -> k (h w c)")
    flat = np.concatenate([np.zeros_like(flat[:1]), flat])
    return _Templates(things, flat, _misfits(flat, flat))


def _paper_of(pixels: np.ndarray) -> str | None:
    """The background that most pixels are near to, or None."""
    colours = np.float32(list(BACKGROUNDS.values()))
    apart = pixels[::2, ::2, None] - colours  # (H / 2, W / 2, 4, 3): every other pixel tells enough
    votes = (np.square(apart).sum(-1) < PAPER_SPREAD**2).mean((0, 1))
    return tuple(BACKGROUNDS)[votes.argmax()] if votes.max() >= PAPER_SHARE else None


def read_scene(pixels: np.ndarray, shapes: tuple[str, ...] = SHAPES) -> Scene | Unreadable:
    """Read a square picture, uint8 (H, H, 3), back into the scene it shows.

    `shapes` are the shapes looked for.  Raises UserError if the array is no square RGB picture.
    """
    pixels = np.asarray(pixels)
    if (
        pixels.ndim != 3
        or pixels.shape[0] != pixels.shape[1]
        or pixels.shape[2] != 3
        or pixels.dtype != np.uint8
    ):
        raise UserError(
            f"oracle: array {pixels.dtype} {pixels.shape}; expected a square picture, uint8 (H, H, 3)"
        )
    canvas = pixels.shape[0]
    soft = _smooth(pixels.astype(np.float32))
    background = _paper_of(soft)
    if background is None:
        return Unreadable("no background of this world")
    templates = _templates(background, shapes, canvas)

    def scene_of(best: np.ndarray) -> Scene:
        found = [(cell, templates.things[k - 1]) for cell, k in enumerate(best) if k]
        return Scene(tuple(Thing(cell, s, c, size) for cell, (s, c, size) in found), background)

    best = _misfits(_cells(soft, background), templates.flat).argmin(1)
    if np.array_equal(render(scene_of(best), canvas), pixels):
        return scene_of(best)
    for _ in range(2):  # the second time round knows what stands in the neighbouring cells
        sharpened = _sharpened(soft, render(scene_of(best), canvas))
        flat = _cells(sharpened, background)
        misfits = _misfits(flat, templates.flat)  # (9, K)
        best = misfits.argmin(1)
    for cell, k in enumerate(best):
        far = misfits[cell, k] > (MISFIT**2 if k else MISFIT_EMPTY**2)
        far |= k > 0 and misfits[cell, k] > UNLIKE * templates.apart[k, 0]
        if far or _blot(_square(flat[cell] - templates.flat[k])) > BLOT:
            return Unreadable(f"{PLACES[cell]}: nearest to {templates.name(k)}, but far from it")
        apart = templates.apart[k]
        towards = (misfits[cell, k] + apart - misfits[cell]) / np.maximum(2 * apart, 1.0)
        if towards.max() > TOWARDS:
            return Unreadable(f"{PLACES[cell]}: {templates.name(k)} or {templates.name(towards.argmax())}")
    between = _between(canvas)
    rest = (sharpened - _smooth(render(scene_of(best), canvas).astype(np.float32))) * between
    if np.square(rest).sum() > MISFIT_EMPTY**2 * 3 * between.sum() or _blot(rest) > BLOT:
        return Unreadable("something stands between the cells")
    return scene_of(best)


def _cells(soft: np.ndarray, background: str) -> np.ndarray:
    """The nine cells less the background, one a line: (9, D)."""
    cells = np.stack([soft[box(cell, soft.shape[0])] for cell in CELLS]) - np.float32(BACKGROUNDS[background])
    return rearrange(cells, "n h w c -> n (h w c)")


@cache
def _between(canvas: int) -> np.ndarray:
    """Pixels that belong to no cell, float32 (canvas, canvas, 1)."""
    outside = np.ones((canvas, canvas, 1), np.float32)
    for cell in CELLS:
        outside[box(cell, canvas)] = 0
    return outside


def _misfits(flat: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Mean square difference of every line of one array from every line of the other, (N, K)."""
    squares = np.square(flat).sum(1)[:, None] + np.square(others).sum(1)
    # Not `@`: on products this small a threaded BLAS waits longer than it works when the machine is busy.
    products = np.einsum("nd,kd->nk", flat, others)
    return (squares - 2 * products) / flat.shape[1]


def _sharpened(soft: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """The picture less the blur that explains it best, going by the scene `drawn` that was found in it."""
    sharp = _smooth(drawn.astype(np.float32))
    blurred, nearest = sharp, None
    for passes in BLURS:
        blurred = _smooth(blurred, 1) if passes else sharp
        error = np.square(soft - blurred).mean()
        if nearest is None or error < nearest[0]:
            nearest = (error, blurred)
    return soft - (nearest[1] - sharp)


def _square(rest: np.ndarray) -> np.ndarray:
    """A cell's line (D,) as pixels (side, side, 3)."""
    side = round((len(rest) / 3) ** 0.5)
    return rest.reshape(side, side, 3)


def _blot(rest: np.ndarray) -> float:
    """The largest mean error over a patch of 4x4 pixels, in any channel, of an error (side, side, 3)."""
    patches = rearrange(rest, "(h p) (w q) c -> h w c (p q)", p=4, q=4).mean(-1)
    return float(np.abs(patches).max())
