"""One word that the base world never says: a moon, drawn by the same renderer and read by the same oracle.

A few hundred of these rows teach it to a model that knows the other shapes; they show what fine-tuning does.
"""

from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from data_tools.shapes.build import empty_folder, write_rows
from data_tools.shapes.oracle import Unreadable, read_scene
from data_tools.shapes.rows import Example, example
from data_tools.shapes.scene import COLOURS, SEEN, SHAPES, Scene, World

SHAPE = "moon"
MOONS = tuple((colour, SHAPE) for colour in COLOURS)
WORLD = World(SEEN + MOONS, MOONS, (*SHAPES, SHAPE))
TASKS = {"t2i": 6.0, "edit": 1.0, "vqa": 1.0}


def novel_example(task: str, split: str, seed: int, i: int, kind: str | None = None) -> Example:
    """The i-th example of a task about moons; `split` only tells training from judging."""
    return example(task, split, seed, i, kind, WORLD)


def novel_row(split: str, seed: int, i: int) -> dict[str, Any]:
    """The i-th row, mostly text-to-image, some edits and questions."""
    task = Random(f"novel/{split}/{seed}/{i}").choices(tuple(TASKS), tuple(TASKS.values()))[0]
    return novel_example(task, split, seed, i).row


def read_novel(pixels: np.ndarray) -> Scene | Unreadable:
    """The oracle with the template of the new shape."""
    return read_scene(pixels, WORLD.shapes)


def make_novel(out: Path, count: int, seed: int = 0) -> None:
    """Write `count` rows as out/train.jsonl with its pictures, ready for fine-tuning."""
    rows = map(partial(novel_row, "train", seed), range(count))
    write_rows(empty_folder(out), "train", rows, count)
