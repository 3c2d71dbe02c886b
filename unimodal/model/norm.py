"""RMSNorm (Zhang and Sennrich 2019) in few passes over memory.

At the widths this toolkit trains on a CPU, a layer's time goes into moving activations, not into matrix
products.  PyTorch composes RMSNorm of some fifteen elementwise passes there; this one takes about half,
keeps its statistics in float32, and under autocast hands its result on in the lower precision, so that
the projections which share it do not each cast it again.
"""

import torch
from torch import Tensor, nn


class _RMSNorm(torch.autograd.Function):
    """y = w x / rms(x) over the last axis."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        mean_square = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        mean_square = mean_square.square_().div_(x.shape[-1])
        inverse = mean_square.add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, inverse)
        return (x * inverse).mul_(weight).to(dtype)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        x, weight, inverse = ctx.saved_tensors
        normal = x * inverse
        gradient = gradient.to(normal.dtype)
        to_weight = (gradient * normal).flatten(0, -2).sum(0)
        back = gradient * weight
        along = torch.linalg.vecdot(back, normal)[..., None].div_(-x.shape[-1])
        return back.addcmul_(normal, along).mul_(inverse).to(x.dtype), to_weight, None, None


class RMSNorm(nn.Module):
    """Same weights and values as `torch.nn.RMSNorm`; gradients of gradients are not supported."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to (..., width), in autocast's precision where it is on, else in x's own."""
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        return _RMSNorm.apply(x, self.weight, self.eps, dtype)
