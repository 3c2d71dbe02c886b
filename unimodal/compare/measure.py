"""What a picture costs: operations, seconds, memory; all on the model as it is used."""

import threading
import time
from statistics import median

import psutil
import torch

from unimodal.evaluation.cost import PROMPT, flops_per_picture, forwards_per_picture, seconds_to_draw
from unimodal.generation.verbs import Unimodal
from unimodal.training.throughput import synchronize

SAMPLING = 0.002  # seconds between two looks at the resident memory


def picture_costs(model: Unimodal) -> dict[str, float]:
    """flops_, forwards_ and seconds_per_picture (one alone), seconds_per_picture_of_16, and memory_gb.

    Memory is the most that the process (or its accelerator) holds while it draws its first picture.
    """
    memory = _peak(lambda: model.generate(PROMPT), model.model.device)
    return {
        "flops_per_picture": float(flops_per_picture(model)),
        "forwards_per_picture": forwards_per_picture(model),
        "seconds_per_picture": median(seconds_to_draw(model, 1)),
        "seconds_per_picture_of_16": median(seconds_to_draw(model, 16)) / 16,
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
