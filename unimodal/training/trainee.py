"""What the loop trains: the Trainee protocol.

The loop knows no model, no data and no loss.  It asks a trainee for batches, for the denominators of
its losses, for the sums, and for a folder with the finished model.  Sums and counts are kept apart so
that the loop can divide once per optimizer step, over all micro-steps and ranks.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from PIL import Image
from torch import Tensor, nn


@dataclass
class Losses:
    """One micro-batch's losses, not yet divided by anything.

    sums     scalar sums with gradient, by name, over whatever `Trainee.count` counts
    weights  how much each name counts in the total; the same in every batch of a run
    bins     by name, (values, places): a loss an item and where in [0, 1] it was measured (a noise
             level), both of one shape and without gradient; the log shows means over equal bins
    """

    sums: dict[str, Tensor]
    weights: dict[str, float]
    bins: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)


class Batch(Protocol):
    """One micro-batch.  It crosses a process border, so it holds CPU tensors, arrays and plain values."""

    sample_ids: list[str]  # where each sample came from, for error messages
    tokens: int  # used positions (or pixels, patches: the trainee's own unit)
    budget: int  # positions computed, padding included
    state: dict[str, Any]  # JSON values from which `batches` goes on right after this batch
    # A batch may also say in `rows` how many rows of the data it took, by what became of them, for the log.


B = TypeVar("B", bound=Batch)


class Trainee(Protocol[B]):
    """What a recipe's `model` section builds (`section.build(recipe, checkpoint) -> Trainee`,
    `checkpoint` being the folder that a resumed run goes on from), on the CPU, in fp32.

    The loop moves `module` to its device, casts inside autocast where that pays, and optimises the
    parameters with `requires_grad`.  A module with `gradient_checkpointing_enable()` can be asked to.
    A trainee of something else than a model says what in `product`, which names its folder; one with a
    `hint(folder) -> str` has it printed when all is done.  One with `held_out() -> Iterator[B]` can be
    judged on rows it does not learn from: finitely many batches, the same at every call, whose losses are
    summed by `losses` and divided by `count` as in training.  One with `about() -> list[str]` has these
    sentences said before a run, one with `about_rows(recipe, batches)` its lines about the data, by name, in
    a dry run.  One with `room()` has every row measured before a run: it gives a function of a document and
    a budget, `data.tokens`, that tells the document's positions if they are more; if it has a `limit`, its
    `farther()` does so of the rotary positions that the model takes.
    """

    module: nn.Module

    def batches(self, start_state: dict[str, Any] | None, rank: int, world: int) -> Iterator[B]:
        """Endless batches of shard `rank` of `world`, from the start or right after `start_state`.

        Runs in a background process, and must be a pure function of its arguments.
        """
        ...

    def count(self, batch: B) -> dict[str, float]:
        """What each loss sum is to be divided by.  Every name in every batch, 0 where there is nothing."""
        ...

    def losses(self, batch: B, generator: torch.Generator) -> Losses:
        """Loss sums of a batch; all noise is drawn from `generator`, which is on the module's device.

        The batch arrives on the CPU: moving its tensors to `generator.device` is the trainee's part.
        """
        ...

    def flops(self, batch: B) -> float:
        """Floating point operations of forward and backward, without recomputation."""
        ...

    def samples(self, seed: int) -> Image.Image | None:
        """A picture sheet from the module as it stands, the same noise for the same seed; None for none."""
        ...

    def save(self, folder: Path, module: nn.Module) -> None:
        """Write a complete, loadable model folder into the existing, empty `folder`."""
        ...
