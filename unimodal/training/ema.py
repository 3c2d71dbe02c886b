"""A running mean of the weights, which is what is saved for use and what draws the samples."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """Exponential moving average of the trained parameters of a module, in their own type.

    decay  at update n (from 1) the mean keeps min(decay, (1 + n) / (10 + n)) of itself, so that the
           random initial weights do not dominate a short run (as in TensorFlow's moving averages)
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self._live = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.means: dict[str, Tensor] = {name: p.detach().clone() for name, p in self._live.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move the means towards the live weights."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(list(self.means.values()), [p.data for p in self._live.values()], 1 - decay)

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Within this context the module has the means for weights.  Swaps pointers, copies nothing."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for name, parameter in self._live.items():
            self.means[name], parameter.data = parameter.data, self.means[name]

    @torch.no_grad()
    def load(self, means: dict[str, Tensor], updates: int) -> None:
        """Go on from saved means."""
        for name, mean in self.means.items():
            mean.copy_(means[name])
        self.updates = updates
