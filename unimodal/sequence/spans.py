"""Spans: the parts of a sequence that are no plain text, and how a path lays out a picture it draws."""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from unimodal.data.document import Image
from unimodal.errors import UserError

Grid = tuple[int, int]
Kind = Literal["clean", "target", "vision"]


@dataclass(frozen=True, slots=True)
class TargetLayout:
    """How a path lays out an image that is to be drawn, on P positions.

    steps   (P,) when each position is written, counted from 0
    hidden  whether only the image itself may look at these positions
    clean   whether a clean copy must follow, for what comes later to look at
    places  (P, 2) row and column inside the picture; None: one position a cell, row by row
    copies  how many times training draws it, side by side, none seeing another (if hidden)
    said    text that stands before every picture of this size, drawn or read; nobody is trained to say it
    """

    steps: np.ndarray
    hidden: bool
    clean: bool = True
    places: np.ndarray | None = None
    copies: int = 1
    said: str = ""

    def offsets(self, grid: Grid) -> np.ndarray:
        """(P, 3) what is added to the RoPE position at which the image stands."""
        places = raster(grid) if self.places is None else self.places
        return np.pad(places, ((0, 0), (1, 0)))

    def cells(self, grid: Grid) -> np.ndarray:
        """(P,) number of the cell, counted row by row, at which each position of a picture of `grid` is.

        -1 for what stands outside of the grid, as the end of a row does.
        """
        places = raster(grid) if self.places is None else self.places
        return np.where((places < grid).all(axis=1), places @ (grid[1], 1), -1)


def raster(grid: Grid) -> np.ndarray:
    """(rows * columns, 2) row and column of every cell, row by row."""
    return np.stack(np.indices(grid), axis=-1).reshape(-1, 2)


class TargetRule(Protocol):
    """The layout question a path answers (see `unimodal.paths`)."""

    def target_layout(self, grid: Grid) -> TargetLayout:
        """Lay out a target image of `grid` = (rows, columns) positions."""
        ...


@dataclass(frozen=True, slots=True)
class ImageSpan:
    """Where a copy of an image stands in a sequence.

    start   first position
    length  number of positions: rows * columns of a clean copy, what the path says of a target
    grid    (rows, columns) of the clean copy
    image   index into the sequence's `pixels`
    kind    `clean`: the finished image is read; `target`: the path draws it; `vision`: a tower's features
    before  of a target, index of the picture before it in the document, if that has the same grid
    """

    start: int
    length: int
    grid: Grid
    image: int
    kind: Kind
    before: int | None = None


@dataclass(frozen=True, slots=True)
class TextBlock:
    """Where the hidden copy of a block of text stands in a sequence: its first position, and how many."""

    start: int
    length: int


def clean_layout(grid: Grid) -> TargetLayout:
    """A finished image: all positions at once, visible to everything after it."""
    return TargetLayout(np.zeros(grid[0] * grid[1], dtype=np.int64), hidden=False)


def grid_of(image: Image, multiple: int, where: str) -> Grid:
    """Rows and columns of positions for a picture whose sides are multiples of `multiple` pixels."""
    height, width = image.pixels.shape[:2]
    if height % multiple or width % multiple or not height or not width:
        raise UserError(
            f"{where}: a picture of {width}x{height} pixels cannot be laid out: both sides must be "
            f"multiples of {multiple}. Resize it first (unimodal.data.pictures.fit does)."
        )
    return height // multiple, width // multiple
