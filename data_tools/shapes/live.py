"""The shapes world as an endless source of fresh rows, for mixtures that train without files."""

from random import Random
from typing import Any

from data_tools.shapes.render import CANVAS, grid
from data_tools.shapes.rows import TASKS, kinds, row, world_of
from unimodal.errors import UserError

# Picture tasks take the larger part of what is learned; text is learned soon.
DEFAULT_TASKS = {"t2i": 4.0, "edit": 2.0, "vqa": 2.0, "text": 1.0, "chat": 1.0}


class ShapesSource:
    """Row i is a pure function of the source and i; there is no last one, so `length` is None."""

    length: int | None = None

    def __init__(self, split: str, seed: int, tasks: dict[str, float], size: int, reasons: bool):
        """See `shapes_source`, which checks what is given."""
        self.split, self.seed, self.size, self.reasons = split, seed, size, reasons
        self.tasks = dict(tasks)
        self._names, self._weights = tuple(self.tasks), tuple(self.tasks.values())

    def row(self, i: int) -> tuple[str, dict[str, Any]]:
        """Where the row is ("shapes/train:123") and the row, its images uint8 arrays."""
        task = Random(f"{self.split}/{self.seed}/{i}").choices(self._names, self._weights)[0]
        return f"shapes/{self.split}:{i}", row(
            task, self.split, self.seed, i, canvas=self.size, reasons=self.reasons
        )


def shapes_source(
    split: str = "train",
    seed: int = 0,
    tasks: dict[str, float] | None = None,
    size: int = CANVAS,
    reasons: bool = True,
) -> ShapesSource:
    """A live source of shapes rows.

    split    train, val or unseen
    tasks    weight of each task: t2i, edit, vqa, text, chat
    size     pixels a side
    reasons  whether replies say first what a picture is going to hold and what an answer follows from
    Raises UserError for an unknown split or task, a weight below zero, or a size the grid cannot take.
    """
    world_of(split)
    grid(size)
    tasks = DEFAULT_TASKS if tasks is None else tasks
    for task, weight in tasks.items():
        kinds(task)
        if not weight >= 0:
            raise UserError(f"shapes: weight {weight!r} of task {task!r}; expected a number of at least 0")
    if not sum(tasks.values()) > 0:
        raise UserError(f"shapes: no task has a weight; expected weights for some of {', '.join(TASKS)}")
    return ShapesSource(split, seed, tasks, size, reasons)
