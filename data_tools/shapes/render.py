"""Scene to pixels: anti-aliased shapes at exact cell centres, by numpy alone once the tiles are made.

Every (shape, size, colour, background) is one square tile that fits a grid cell.  A tile is drawn once by
Pillow at sixteen times its size and averaged down; a picture is then a flat background with at most a few
tiles copied in, which takes microseconds.
"""

from functools import cache
from math import cos, pi, sin

import numpy as np
from PIL import Image, ImageDraw

from data_tools.shapes.scene import BACKGROUNDS, COLOURS, Scene, Thing
from unimodal.errors import UserError

CANVAS = 64
SUPERSAMPLE = 16
# Half extent of a shape in widths of a tile; its rim stays free of ink.
RADIUS = {"large": 0.46, "small": 0.3}

Point = tuple[float, float]


def _ring_of_points(radii: tuple[float, ...], count: int) -> list[Point]:
    """Points around the centre, the first one straight up, their distances going through `radii`."""
    turns = [(2 * pi * k / count, radii[k % len(radii)]) for k in range(count)]
    return [(r * sin(angle), -r * cos(angle)) for angle, r in turns]


def _disc(radius: float, x: float = 0.0, y: float = 0.0) -> list[Point]:
    return [(x + px, y + py) for px, py in _ring_of_points((radius,), 96)]


def _heart() -> list[Point]:
    """The usual sine curve of a heart, scaled to fill the unit square."""
    angles = [2 * pi * k / 96 for k in range(96)]
    xs = [sin(a) ** 3 for a in angles]
    ys = [-(13 * cos(a) - 5 * cos(2 * a) - 2 * cos(3 * a) - cos(4 * a)) / 15 for a in angles]
    return [(x, 0.97 * y - 0.15) for x, y in zip(xs, ys)]


# Outlines in [-1, 1]; a second outline is cut out of the first.
_ARM = 0.34
OUTLINES: dict[str, tuple[list[Point], ...]] = {
    "circle": (_disc(0.96),),
    "square": ([(-0.86, -0.86), (0.86, -0.86), (0.86, 0.86), (-0.86, 0.86)],),
    "triangle": ([(0.0, -0.95), (1.0, 0.85), (-1.0, 0.85)],),
    "diamond": ([(0.0, -1.0), (0.74, 0.0), (0.0, 1.0), (-0.74, 0.0)],),
    "star": ([(x, y + 0.08) for x, y in _ring_of_points((1.05, 0.45), 10)],),
    "cross": (
        [
            (-_ARM, -1.0),
            (_ARM, -1.0),
            (_ARM, -_ARM),
            (1.0, -_ARM),
            (1.0, _ARM),
            (_ARM, _ARM),
            (_ARM, 1.0),
            (-_ARM, 1.0),
            (-_ARM, _ARM),
            (-1.0, _ARM),
            (-1.0, -_ARM),
            (-_ARM, -_ARM),
        ],
    ),
    "heart": (_heart(),),
    "ring": (_disc(1.0), _disc(0.56)),
    "moon": (_disc(1.0), _disc(0.88, 0.5, -0.2)),  # no word of the base world: see `novel`
}


@cache
def grid(canvas: int = CANVAS) -> tuple[int, tuple[int, int, int]]:
    """Side of a tile and where the three tiles of a row start, in pixels.

    A tile is a quarter of the canvas wide and half a tile of background lies between two of them, so that
    tiles start and end at eighths of the canvas: a model whose image positions are eighths or quarters of a
    picture never has two things in one position.
    """
    if canvas % 16 or canvas < 32:
        raise UserError(
            f"shapes: canvas of {canvas} pixels; expected a multiple of 16, at least 32 (the norm is 64)"
        )
    side = canvas // 4
    return side, (0, 3 * canvas // 8, 3 * canvas // 4)


@cache
def mask(shape: str, size: str, canvas: int = CANVAS) -> np.ndarray:
    """How much of each pixel of a tile the shape covers, float32 (side, side) in [0, 1]."""
    side = grid(canvas)[0]
    big = side * SUPERSAMPLE
    picture = Image.new("L", (big, big), 0)
    pen = ImageDraw.Draw(picture)
    for outline, ink in zip(OUTLINES[shape], (255, 0)):
        pen.polygon(
            [((0.5 + RADIUS[size] * x) * big, (0.5 + RADIUS[size] * y) * big) for x, y in outline], fill=ink
        )
    fine = np.asarray(picture, np.float32) / 255
    return fine.reshape(side, SUPERSAMPLE, side, SUPERSAMPLE).mean(axis=(1, 3))


@cache
def tile(shape: str, size: str, colour: str, background: str, canvas: int = CANVAS) -> np.ndarray:
    """The pixels of a cell that holds one thing, uint8 (side, side, 3)."""
    alpha = mask(shape, size, canvas)[..., None]
    ink, paper = np.float32(COLOURS[colour]), np.float32(BACKGROUNDS[background])
    return np.rint(paper + alpha * (ink - paper)).astype(np.uint8)


@cache
def _paper(background: str, canvas: int) -> np.ndarray:
    return np.full((canvas, canvas, 3), BACKGROUNDS[background], np.uint8)


def box(cell: int, canvas: int = CANVAS) -> tuple[slice, slice]:
    """Rows and columns of the canvas that a cell's tile covers."""
    side, starts = grid(canvas)
    top, left = starts[cell // 3], starts[cell % 3]
    return slice(top, top + side), slice(left, left + side)


def render(scene: Scene, canvas: int = CANVAS) -> np.ndarray:
    """Draw a scene: uint8 (canvas, canvas, 3)."""
    side, starts = grid(canvas)
    pixels = _paper(scene.background, canvas).copy()
    for thing in scene.objects:
        top, left = starts[thing.cell // 3], starts[thing.cell % 3]
        drawn = tile(thing.shape, thing.size, thing.colour, scene.background, canvas)
        pixels[top : top + side, left : left + side] = drawn
    return pixels


def changed_mask(before: Scene, after: Scene, canvas: int = CANVAS) -> np.ndarray:
    """Pixels that an edit may touch, bool (canvas, canvas), with one pixel's margin.

    These are the things that come, go or change; a new background touches all but the inside of what stays.
    """
    old, new = set(before.objects), set(after.objects)
    touched = np.full((canvas, canvas), before.background != after.background)

    def put(things: set[Thing], value: bool) -> None:
        for thing in things:
            covered = mask(thing.shape, thing.size, canvas)
            touched[box(thing.cell, canvas)][covered > 0 if value else covered == 1] = value

    put(old & new, False)
    put(old ^ new, True)
    wide = touched.copy()
    wide[1:] |= touched[:-1]
    wide[:-1] |= touched[1:]
    across = wide.copy()
    wide[:, 1:] |= across[:, :-1]
    wide[:, :-1] |= across[:, 1:]
    return wide
