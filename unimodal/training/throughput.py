"""How fast this machine multiplies matrices, and how fast training goes beside it.

Model FLOP utilisation (MFU) is usually told against a data sheet; here it is told against a matrix
product timed on the same device in the same type just before, so it means the same on any machine.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil
import torch


def synchronize(device: torch.device) -> None:
    """Wait for the work queued on an accelerator."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def timed(call: Callable[[], object], device: torch.device, repeats: int = 5) -> list[float]:
    """Seconds of each of a few calls, after one that is not counted when there are several."""
    if repeats > 1:
        call()
    taken = []
    for _ in range(repeats):
        synchronize(device)
        start = time.perf_counter()
        call()
        synchronize(device)
        taken.append(time.perf_counter() - start)
    return taken


def _best_time(a: torch.Tensor, b: torch.Tensor, seconds: float) -> float:
    """Shortest time of one product, tried for about `seconds`.  The best, since others only slow it down."""
    best, spent = math.inf, 0.0
    while spent < seconds:
        repeats = 1 if math.isinf(best) else max(1, int(seconds / 10 / best))
        synchronize(a.device)
        start = time.perf_counter()
        for _ in range(repeats):
            a @ b
        synchronize(a.device)
        took = time.perf_counter() - start
        best, spent = min(best, took / repeats), spent + took
    return best


def gemm_rate(device: torch.device, dtype: torch.dtype, seconds: float = 0.2) -> float:
    """FLOP/s of a large square matrix product, measured for about `seconds`.

    A small product goes first and the large one is left out where it would take too long: on some CPUs
    a type without hardware support is a thousand times slower than the others.
    """
    rate = 0.0
    for side in (256, 1024) if device.type == "cpu" else (1024, 8192):
        flops = 2 * side**3
        if rate and flops / rate > seconds:
            break
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        rate = max(rate, flops / _best_time(a, b, seconds / 2))
    return rate


def memory_gb(device: torch.device) -> float:
    """Peak memory of the accelerator, or resident memory of the process on a CPU, in 10^9 bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return psutil.Process().memory_info().rss / 1e9


@dataclass
class Meter:
    """Work done since the last reading, and the time spent training (pauses taken out)."""

    peak: float  # FLOP/s that MFU is told against, of all ranks together
    tokens: float = 0.0
    budget: float = 0.0
    flops: float = 0.0
    steps: int = 0
    seconds: float = 0.0  # of training, up to the last reading
    _start: float = field(default_factory=time.perf_counter)
    _step_seconds: float | None = None

    def add(self, tokens: float, budget: float, flops: float) -> None:
        """Count one optimizer step, all ranks together."""
        self.tokens += tokens
        self.budget += budget
        self.flops += flops
        self.steps += 1

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Time spent here (saving, drawing samples) is not training time."""
        begin = time.perf_counter()
        yield
        self._start += time.perf_counter() - begin

    def read(self) -> dict[str, float]:
        """Rates since the last reading, which start anew: tokens_per_second, padding, mfu, step_seconds."""
        now = time.perf_counter()
        seconds = max(now - self._start, 1e-9)
        fresh = seconds / max(self.steps, 1)
        self.seconds += seconds
        # A moving mean, so that the time to go does not jump.
        self._step_seconds = fresh if self._step_seconds is None else 0.7 * self._step_seconds + 0.3 * fresh
        rates = {
            "tokens_per_second": self.tokens / seconds,
            "padding": 1 - self.tokens / self.budget if self.budget else 0.0,
            "mfu": self.flops / seconds / self.peak,
            "step_seconds": fresh,
        }
        self.tokens = self.budget = self.flops = 0.0
        self.steps, self._start = 0, now
        return rates

    def to_go(self, steps: int) -> float:
        """Seconds that `steps` more steps will take."""
        return steps * (self._step_seconds or 0.0)
