"""What all processes of a run share: sums over them, and seeds that depend on numbers alone."""

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import KwargsHandler, reduce


def joined(*handlers: KwargsHandler) -> Accelerator:
    """This process among those that a launcher such as torchrun started; precision is ours to choose.

    Where there is no GPU accelerate has to be told to use the CPU: otherwise each of several processes would
    take itself for the only one, and all would write the same files.
    """
    return Accelerator(
        cpu=not torch.accelerator.is_available(), mixed_precision="no", kwargs_handlers=list(handlers)
    )


def noise_seed(*numbers: int) -> int:
    """A seed for a generator, of any whole numbers, such as the run's seed, the step and the process."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def summed(values: list[float], accelerator: Accelerator) -> list[float]:
    """Each number summed over all processes."""
    if accelerator.num_processes == 1:
        return values
    return reduce(torch.tensor(values, dtype=torch.float64, device=accelerator.device), "sum").tolist()
