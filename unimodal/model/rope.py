"""Rotary positions with three axes: order, row, column.

Frequencies are dealt to the axes in turn, so every axis gets high and low ones.  Where the three
coordinates are equal (text) this is ordinary RoPE (Su et al. 2021) in the half-split layout of Llama and
Qwen, so a pretrained 1-D model keeps its behaviour exactly.  The idea is Qwen2-VL's M-RoPE (2024).
"""

import torch
from torch import Tensor


def inverse_frequencies(head_dim: int, theta: float) -> Tensor:
    """theta^(-2i/H) for i < H/2: (H/2,)."""
    return theta ** -(torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)


def rotation(position: Tensor, frequencies: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine (B, T, 1, H/2) for positions (B, T, 3)."""
    axis = torch.arange(len(frequencies), device=position.device) % 3
    angle = position[..., axis].float() * frequencies  # (B, T, H/2)
    return angle.cos()[:, :, None], angle.sin()[:, :, None]


class _Rotate(torch.autograd.Function):
    """Without the zero-filled gradients that slicing costs; a rotation is undone by the opposite angle."""

    @staticmethod
    def forward(ctx, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin, 1)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return _turned(gradient, *ctx.saved_tensors, -1), None, None


def _turned(x: Tensor, cos: Tensor, sin: Tensor, way: int) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    out = torch.empty_like(x)
    left, right = out.chunk(2, dim=-1)
    torch.mul(first, cos, out=left).addcmul_(second, sin, value=-way)
    torch.mul(second, cos, out=right).addcmul_(first, sin, value=way)
    return out


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (x[i], x[i + H/2]) of (B, T, N, H) by its angle; cos and sin get no gradient."""
    return _Rotate.apply(x, cos.to(x.dtype), sin.to(x.dtype))
