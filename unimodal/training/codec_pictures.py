"""What a codec is trained on: square pictures out of a mixture's rows, and some made up."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from unimodal.data.mixture import Mixture, rows_of_use
from unimodal.images.clutter import clutter


@dataclass(frozen=True, slots=True)
class Pictures:
    """Picture number i, as a pure function: one of row i's pictures, or clutter.

    size   pixels a side
    share  of clutter
    """

    mixture: Mixture
    size: int
    share: float
    seed: int

    def __call__(self, number: int) -> tuple[str, np.ndarray] | None:
        """Where it came from and uint8 (size, size, 3); None if the row has no picture."""
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, number]))
        if rng.random() < self.share:
            return f"clutter:{number}", clutter(rng, self.size)
        document = self.mixture.document(number)
        if not document.images:
            return None
        return document.id, cut(document.images[rng.integers(len(document.images))].pixels, self.size, rng)

    def from_number(self, number: int, stride: int = 1) -> Iterator[tuple[int, str, np.ndarray]]:
        """Endless (number, where, picture) of number, number + stride, ...; rows without any are passed over.

        Raises UserError if the mixture seems to have no pictures at all.
        """
        lack = (
            "hold no picture, so there is nothing to train a codec on. Name sources or tasks with pictures."
        )
        for at, found in rows_of_use(self, number, stride, lack):
            yield at, *found


def cut(pixels: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """A random square of uint8 (H, W, 3), scaled up first if a side is shorter than `size`."""
    height, width = pixels.shape[:2]
    if min(height, width) < size:
        scale = size / min(height, width)
        target = (max(size, round(width * scale)), max(size, round(height * scale)))
        pixels = np.asarray(Image.fromarray(pixels).resize(target, Image.Resampling.LANCZOS))
        height, width = pixels.shape[:2]
    top, left = rng.integers(height - size + 1), rng.integers(width - size + 1)
    return pixels[top : top + size, left : left + size]


@dataclass(frozen=True, slots=True)
class PictureBatch:
    """A micro-batch: pictures uint8 (B, H, W, 3), where they came from, and the number after the last."""

    pictures: np.ndarray
    sample_ids: list[str]
    state: dict[str, Any]

    @property
    def tokens(self) -> int:
        """Pictures: nothing is padded."""
        return len(self.pictures)

    budget = tokens
