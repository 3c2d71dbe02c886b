"""Pictures as bytes and as the signal that codecs take."""

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from unimodal.errors import UserError


def to_signal(pictures: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """uint8 (B, H, W, 3) to float (B, 3, H, W) in [-1, 1]."""
    tensor = rearrange(torch.from_numpy(pictures), "b h w c -> b c h w").to(device)
    return tensor.float() / 127.5 - 1


def to_pixels(signal: Tensor) -> np.ndarray:
    """Float (B, 3, H, W) in [-1, 1] to uint8 (B, H, W, 3).  Raises UserError if a value is not finite."""
    if not torch.isfinite(signal).all():
        raise UserError(
            "the decoded picture holds values that are not finite; the weights or the codec are broken"
        )
    pixels = ((signal.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return rearrange(pixels, "b c h w -> b h w c").cpu().numpy()
