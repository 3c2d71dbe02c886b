"""What to do when a loss derails: go back to the last checkpoint, and on with other rows.

A loss or gradient that is not a number, or a loss far above what it was lately, would spoil the weights: the
step is not taken.  Weights, averages and optimizer state of the newest checkpoint come back, while the data
go on where they are, so that other rows follow.  After so many returns the run stops: it is not the rows.
"""

import math
from collections import deque
from statistics import median
from typing import Any

from unimodal.errors import UserError
from unimodal.training.config import TrainSection

RECENT = 100  # losses that a spike is told by
ENOUGH = 20  # of them, before one can be told


class Derailed(Exception):
    """A step that was not taken, and why."""


class Guard:
    """Watches the loss of every step; a resumed run goes on from its `state()` in the checkpoint."""

    def __init__(self, train: TrainSection, state: dict[str, Any] | None = None):
        state = state or {"returns": 0, "lost": 0, "losses": []}
        self.most, self.spike = train.returns, train.spike
        self.returns: int = state["returns"]
        self.lost: int = state.get("lost", 0)  # steps that were computed and are no part of the run
        self.losses: deque[float] = deque(state["losses"], RECENT)

    def see(self, step: int, loss: float) -> None:
        """Take note of a step's loss.  Raises Derailed if it is a spike."""
        usual = median(self.losses) if self.spike and len(self.losses) >= ENOUGH else math.inf
        if self.spike and loss > self.spike * usual:
            raise Derailed(
                f"The loss of step {step} is {loss:.4f}, more than {self.spike:g} times the {usual:.4f} that "
                f"is the median of the last {len(self.losses)} steps."
            )
        self.losses.append(loss)

    def count(self, why: Derailed) -> None:
        """Count a return.  Raises UserError if there have been as many as may be."""
        if self.returns >= self.most:
            raise UserError(
                f"{why} The run went back to a checkpoint {self.returns} times already (train.returns): it "
                "is not a few rows. Lower train.learning_rate, or lengthen train.warmup_steps."
            )
        self.returns += 1

    def state(self) -> dict[str, Any]:
        """JSON values for the checkpoint."""
        return {"returns": self.returns, "lost": self.lost, "losses": list(self.losses)}
