"""Muon: momentum, then the nearest orthogonal matrix, for the two-dimensional weights of the blocks.

A gradient's few large singular values drown the many small ones; replacing the momentum U S V' by about
U V' gives every direction an equal step (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon).
Unlike torch.optim.Muon, matrices of one shape are orthogonalised together, and in the number type
that is fast on the device: many CPUs multiply bfloat16 a hundred times slower than float32.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

# Quintic a x + b x^3 + c x^5 applied to all singular values at once; chosen by Jordan for the steepest
# slope at zero. Five rounds bring singular values of [0.01, 1] into about [0.7, 1.2].
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


MOMENTUM = "momentum_buffer"  # what is kept of a weight, by PyTorch's name


def orthogonalise(matrices: Tensor, dtype: torch.dtype = torch.float32, rounds: int = 5) -> Tensor:
    """(n, rows, columns) -> as many matrices with the same singular vectors and singular values near 1."""
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices  # the Gram matrix is then the small one
    x = (x / x.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-7)).to(dtype)  # largest singular value <= 1
    for _ in range(rounds):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    x = x.mT if tall else x
    return x.to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised, scaled, with decoupled weight decay.

    The step is scaled by sqrt(max(1, rows / columns)), Jordan's rule: it bounds the change of the layer's
    output in root mean square by the learning rate, whatever the shape, so one rate (about 0.02) serves
    all widths.  State: one momentum buffer a matrix.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.dtype = dtype
        for group in self.param_groups:
            for p in group["params"]:
                if p.ndim < 2:
                    raise ValueError(f"Muon takes matrices and convolutions, got shape {tuple(p.shape)}")

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """One step from the gradients present; a matrix without a gradient stays."""
        assert closure is None
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    by_shape[p.shape].append(p)
            for shape, matrices in by_shape.items():
                gradients = [p.grad for p in matrices]
                buffers = [self._buffer(p) for p in matrices]
                torch._foreach_lerp_(buffers, gradients, 1 - group["momentum"])
                ahead = torch._foreach_lerp(gradients, buffers, group["momentum"])  # Nesterov
                # A convolution is the matrix from all inputs of its window to its outputs.
                stacked = torch.stack(ahead).flatten(2)
                rows, columns = stacked.shape[1:]
                updates = orthogonalise(stacked, self.dtype).reshape(-1, *shape)
                torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
                scale = max(1.0, rows / columns) ** 0.5
                torch._foreach_add_(matrices, list(updates.unbind()), alpha=-group["lr"] * scale)

    def _buffer(self, p: Tensor) -> Tensor:
        state = self.state[p]
        if MOMENTUM not in state:
            state[MOMENTUM] = torch.zeros_like(p)
        return state[MOMENTUM]
