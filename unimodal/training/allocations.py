"""How much memory a computation takes, counted while it runs.

On an accelerator PyTorch's allocator keeps the count.  On a CPU it keeps none, and what the process holds
says little of so short a time; there every tensor is counted for as long as its storage lives.
"""

import os
import re
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

PRIMITIVES = "64"  # products that oneDNN keeps prepared, of one kind each


def bound_primitives() -> None:
    """Let oneDNN, which computes products on a CPU, keep no more prepared ones than a step needs again.

    It prepares one for every shape, and packs hold another number of pictures and answers each time: of the
    1,024 that it keeps otherwise hardly any is used again.  To be called before anything is computed; what
    the environment says goes first.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", PRIMITIVES)


@dataclass
class Held:
    """Bytes that came to be inside `counted`: those still `live`, and the most at one time."""

    live: int = 0
    peak: int = 0

    def add(self, size: int) -> None:
        """Count `size` bytes more."""
        self.live += size
        self.peak = max(self.peak, self.live)


def resident() -> tuple[int, int]:
    """Bytes that this process holds, and the most that it held so far; without Linux's /proc both are now."""
    now, status = psutil.Process().memory_info().rss, Path("/proc/self/status")
    most = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.is_file() else None
    return now, int(most[1]) * 1024 if most else now


@contextmanager
def counted(device: torch.device, known: Iterable[Tensor] = ()) -> Iterator[Held]:
    """Count what is allocated inside; read `live` and `peak` whenever wanted, inside or afterwards.

    known  tensors that are there already, of which views may be made
    """
    held = Held()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        yield _OnCuda(device)
        return
    with _Counting(held, known):
        yield held


class _OnCuda:
    """The same by the allocator's own count."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.before = device, torch.cuda.memory_allocated(device)

    @property
    def live(self) -> int:
        return torch.cuda.memory_allocated(self.device) - self.before

    @property
    def peak(self) -> int:
        return torch.cuda.max_memory_allocated(self.device) - self.before


class _Counting(TorchDispatchMode):
    """Looks at the result of every operation, in the backward pass too."""

    def __init__(self, held: Held, known: Iterable[Tensor]) -> None:
        super().__init__()
        self.held = held
        self._seen: dict[int, weakref.ref] = {}
        # Kept, so that no new storage can have the number of one that was there.
        self._known = {id(storage): storage for storage in (tensor.untyped_storage() for tensor in known)}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor) and leaf.layout == torch.strided:
                self._see(leaf.untyped_storage())
        return out

    def _see(self, storage: torch.UntypedStorage) -> None:
        number, size = id(storage), storage.nbytes()
        if number in self._known or number in self._seen:
            return

        def gone(_: weakref.ref) -> None:
            del self._seen[number]
            self.held.live -= size

        self._seen[number] = weakref.ref(storage, gone)
        self.held.add(size)
