"""Rotary positions with three axes: order, row, column.

Frequencies are dealt to the axes in turn, so every axis gets high and low ones.  Where the three
coordinates are equal (text) this is ordinary RoPE (Su et al. 2021) in the half-split layout of Llama and
Qwen, so a pretrained 1-D model keeps its behaviour exactly.  The idea is Qwen2-VL's M-RoPE (2024).
Pretrained models whose frequencies were stretched for long texts say how (`RopeScaling`).
"""

import math

import torch
from torch import Tensor

from unimodal.model.config import RopeScaling


def inverse_frequencies(head_dim: int, theta: float, scaling: RopeScaling | None = None) -> Tensor:
    """theta^(-2i/H) for i < H/2, stretched as `scaling` says: (H/2,) radians a position."""
    plain = theta ** -(torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    if scaling is None:
        return plain
    stretched = plain / scaling.factor
    if scaling.rope_type == "linear":
        return stretched
    if scaling.rope_type == "llama3":
        turns = scaling.original_max_position_embeddings * plain / (2 * math.pi)
        low, high = scaling.low_freq_factor, scaling.high_freq_factor
        keep = ((turns - low) / (high - low)).clamp(0, 1)
    else:
        keep = 1 - _yarn_ramp(head_dim, theta, scaling)
    return torch.lerp(stretched, plain, keep)


def _yarn_ramp(head_dim: int, theta: float, scaling: RopeScaling) -> Tensor:
    """How far each frequency is stretched: 0 above `beta_fast` turns, 1 below `beta_slow`: (H/2,)."""

    def index(turns: float) -> float:
        """The (fractional) frequency that makes so many turns in the original length."""
        rate = scaling.original_max_position_embeddings / (turns * 2 * math.pi)
        return head_dim * math.log(rate) / (2 * math.log(theta))

    first, last = index(scaling.beta_fast), index(scaling.beta_slow)
    if scaling.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, head_dim - 1)
    width = last - first or 0.001  # a step where both ends fall together
    return ((torch.arange(head_dim // 2, dtype=torch.float32) - first) / width).clamp(0, 1)


def rotation(position: Tensor, frequencies: Tensor, factor: float = 1.0) -> tuple[Tensor, Tensor]:
    """Cosine and sine (B, T, 1, H/2) for positions (B, T, 3), times `factor` (YaRN's attention factor)."""
    axis = torch.arange(len(frequencies), device=position.device) % 3
    angle = position[..., axis].float() * frequencies  # (B, T, H/2)
    cos, sin = angle.cos()[:, :, None], angle.sin()[:, :, None]
    return (cos, sin) if factor == 1.0 else (cos * factor, sin * factor)


class _Rotate(torch.autograd.Function):
    """Without the zero-filled gradients that slicing costs; transposed, a rotation has the opposite angle."""

    @staticmethod
    def forward(ctx, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin, 1)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return _turned(gradient, *ctx.saved_tensors, -1), None, None


def _turned(x: Tensor, cos: Tensor, sin: Tensor, way: int) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    if torch.compiler.is_compiling():  # which joins what follows by itself, and stops at writing into views
        return torch.cat([first * cos - second * sin * way, second * cos + first * sin * way], -1)
    out = torch.empty_like(x)
    left, right = out.chunk(2, dim=-1)
    torch.mul(first, cos, out=left).addcmul_(second, sin, value=-way)
    torch.mul(second, cos, out=right).addcmul_(first, sin, value=way)
    return out


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (x[i], x[i + H/2]) of (B, T, N, H) by its angle; cos and sin get no gradient."""
    return _Rotate.apply(x, cos.to(x.dtype), sin.to(x.dtype))
