"""What a picture costs: operations, seconds, memory; all on the model as it is used.

And what it spares an external model's training to keep what its frozen reader makes of prompts.
"""

import threading
import time
from itertools import islice
from pathlib import Path
from statistics import fmean, median
from tempfile import TemporaryDirectory

import psutil
import torch

from unimodal.evaluation.cost import PROMPT, flops_per_picture, forwards_per_picture, seconds_to_draw
from unimodal.generation.verbs import Unimodal
from unimodal.training.throughput import synchronize, timed

SAMPLING = 0.002  # seconds between two looks at the resident memory
CACHED_BATCHES = 8  # over which the gain of keeping conditions is averaged


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


def cache_gain(recipe: Path, device: torch.device) -> dict[str, float] | None:
    """Seconds of a training step's forward and backward, its prompts read anew or fetched from disk.

    step_seconds, cached_step_seconds and gain, the first over the second, as means over the first batches of
    the recipe's data; None where there is nothing to keep: of an integrated model, and of a connector that
    puts positions behind the prompt which learn.
    """
    from unimodal.training.config import load_recipe

    settings = load_recipe(recipe)
    if getattr(settings.model, "kind", None) != "external":
        return None
    settings = settings.model_copy(update={"data": settings.data.model_copy(update={"workers": 0})})
    trainee = settings.model.build(settings, None)
    model = trainee.module.to(device)
    if model.appends_what_learns:
        return None
    batches = list(islice(trainee.batches(None, 0, 1), CACHED_BATCHES))

    def step(batch) -> None:
        losses = trainee.losses(batch, torch.Generator(device).manual_seed(0))
        sum(losses.sums.values()).backward()
        model.zero_grad()

    model.cache = None
    step(batches[0])  # the first one also allocates
    plain = fmean(timed(lambda batch=batch: step(batch), device, 1)[0] for batch in batches)
    with TemporaryDirectory() as folder:
        model.keep_conditions(Path(folder))
        for batch in batches:
            model.read(batch.prompts)
        model.cache.flush()
        kept = fmean(timed(lambda batch=batch: step(batch), device, 1)[0] for batch in batches)
        model.cache = None
    return {"step_seconds": plain, "cached_step_seconds": kept, "gain": plain / kept}


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
