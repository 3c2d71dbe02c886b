"""Noise levels: where training looks, and where sampling steps.

t = 1 is noise, t = 0 is data.  A shift s moves levels towards noise, t -> s t / (1 + (s - 1) t), as
larger pictures need (Esser et al. 2024, eq. 23).
"""

import torch
from torch import Tensor

from unimodal.errors import UserError


def shifted(t: Tensor, shift: float) -> Tensor:
    """Move levels towards noise (shift > 1) or data (shift < 1); 0 and 1 stay."""
    return shift * t / (1 + (shift - 1) * t)


def logit_normal(
    count: int, generator: torch.Generator, mean: float = 0.0, std: float = 1.0, shift: float = 1.0
) -> Tensor:
    """`count` training levels, sigmoid of a normal (Esser et al. 2024, eq. 19), then shifted: (count,)."""
    normal = torch.randn(count, generator=generator, device=generator.device)
    return shifted(torch.sigmoid(mean + std * normal), shift)


def grid(steps: int, shift: float = 1.0) -> Tensor:
    """`steps` equal steps from 1 to 0, then shifted: (steps + 1,), first exactly 1, last exactly 0.

    Raises UserError if steps < 1.
    """
    if steps < 1:
        raise UserError(f"a picture takes at least 1 step, not {steps}")
    return shifted(torch.linspace(1, 0, steps + 1, dtype=torch.float64), shift).float()
