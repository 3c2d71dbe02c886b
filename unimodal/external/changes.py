"""Which part of a picture an edit changes, and how much more it counts.

Most of an edited picture is as it was, so a model that copies has little loss.  Cells that change weigh
log2(all cells / changed cells) + 1 instead of 1 (UniWorld-V1, Lin et al. 2025, section 3.3).
"""

import numpy as np
import torch
from torch import Tensor

SAME = 8  # grey levels, of 255, that lossy pictures may differ by where nothing was changed


def change_weights(before: np.ndarray | None, after: np.ndarray, cell: int) -> Tensor:
    """Weight of each latent cell (h, w), of `cell` pixels a side, of a picture that is to be drawn.

    before, after  uint8 (H, W, 3); without a picture before, or with one of another size, all weigh 1
    """
    height, width = after.shape[0] // cell, after.shape[1] // cell
    ones = torch.ones(height, width)
    if before is None or before.shape != after.shape:
        return ones
    differs = np.abs(before.astype(np.int16) - after).max(-1) > SAME
    changed = torch.from_numpy(differs.reshape(height, cell, width, cell).any((1, 3)))
    share = changed.float().mean()
    return torch.where(changed, 1 - share.log2(), ones) if share else ones
