"""Random documents for tests: all task types, several images, sizes that are not square."""

from functools import cache

import numpy as np

from unimodal.data.document import Document, Image, Text, Turn
from unimodal.sequence.spans import TargetLayout
from unimodal.sequence.tokenizer import Tokenizer, train_tokenizer

WORDS = "a red circle left of a blue square make it green how many are there two yes no".split()


@cache
def tokenizer() -> Tokenizer:
    """A small byte-level tokenizer."""
    return train_tokenizer([" ".join(WORDS)] * 4, 320)


def picture(rng: np.random.Generator, height: int = 8, width: int = 8) -> np.ndarray:
    """Random pixels."""
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def words(rng: np.random.Generator, most: int = 6) -> str:
    """Some words."""
    return " ".join(rng.choice(WORDS, rng.integers(1, most)))


def random_document(rng: np.random.Generator, sizes=((8, 8), (8, 16), (16, 8), (4, 4))) -> Document:
    """One to three exchanges, each with read and written texts and images in random places."""

    def image(trained: bool) -> Image:
        return Image(picture(rng, *sizes[rng.integers(len(sizes))]), trained)

    turns = []
    for _ in range(rng.integers(1, 4)):
        asked = [Text(words(rng)), *([image(False)] if rng.random() < 0.5 else [])]
        rng.shuffle(asked)
        said = [
            [Text(words(rng), True)],
            [image(True)],
            [Text(words(rng), True), image(True), Text(words(rng), True)],
        ]
        turns += [Turn("user", tuple(asked)), Turn("assistant", tuple(said[rng.integers(3)]))]
    if rng.random() < 0.2:
        turns = [Turn(None, (Text(words(rng, 12), True),))]
    return Document(tuple(turns), f"test:{rng.integers(1000)}")


class HiddenTarget:
    """Lays a drawn image out as flow matching does."""

    def target_layout(self, grid):
        """One hidden step."""
        return TargetLayout(np.zeros(grid[0] * grid[1], dtype=np.int64), hidden=True)


class ScaledTarget:
    """Lays a drawn image out in two steps, not hidden and with no clean copy, as scales do."""

    def target_layout(self, grid):
        """The first position, then all others."""
        steps = np.ones(grid[0] * grid[1], dtype=np.int64)
        steps[0] = 0
        return TargetLayout(steps, hidden=False, clean=False)


class RasterTarget:
    """Lays a drawn image out a step per position, as next-token images do."""

    def target_layout(self, grid):
        """One step a position."""
        return TargetLayout(np.arange(grid[0] * grid[1]), hidden=False, clean=False)


TARGETS = {"hidden": HiddenTarget(), "scaled": ScaledTarget(), "raster": RasterTarget()}
