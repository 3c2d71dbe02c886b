"""What a picture costs: operations, seconds, memory; all on the model as it is used."""

import threading
import time

import psutil
import torch
from torch.utils.flop_counter import FlopCounterMode

from unimodal.evaluation.bench import PROMPT, timed
from unimodal.generation.verbs import Unimodal
from unimodal.training.throughput import synchronize

SAMPLING = 0.002  # seconds between two looks at the resident memory


def picture_costs(model: Unimodal) -> dict[str, float]:
    """flops_per_picture, seconds_per_picture (one alone), seconds_per_picture_of_16, memory_gb.

    Operations are those that PyTorch's FlopCounterMode sees, 2 for a multiplication and an addition, codec
    included; memory is the most that a process (or its accelerator) holds while it draws one picture.
    """
    device = model.model.device
    memory = _peak(lambda: model.generate(PROMPT), device)  # and the first call, which allocates and tunes
    with FlopCounterMode(display=False) as counter:
        model.generate(PROMPT)
    return {
        "flops_per_picture": float(counter.get_total_flops()),
        "seconds_per_picture": timed(lambda: model.generate(PROMPT), device),
        "seconds_per_picture_of_16": timed(lambda: model.generate([PROMPT] * 16), device, 3) / 16,
        "memory_gb": memory / 1e9,
    }


def _peak(call, device: torch.device) -> float:
    """Bytes held at the peak of a call, weights and everything else included."""
    if device.type == "cuda":
        synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        synchronize(device)
        return torch.cuda.max_memory_allocated(device)
    process, done = psutil.Process(), threading.Event()
    seen = [process.memory_info().rss]

    def watch() -> None:
        while not done.is_set():
            seen.append(process.memory_info().rss)
            time.sleep(SAMPLING)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        call()
    finally:
        done.set()
        watcher.join()
    return max(seen)
