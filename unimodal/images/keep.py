"""What an edit leaves alone, taken from the picture itself and not through the codec.

A codec gives every picture back with errors of its own, so what an edit copied exactly comes out blurred.
Where the drawing is what the codec makes of the picture before, nothing was meant to change, and there the
pixels of the picture before are kept.
"""

import numpy as np
from torch import Tensor
from torch.nn.functional import avg_pool2d

from unimodal.images.codec import Codec
from unimodal.images.signal import to_signal

WINDOW = 5  # pixels a side over which differences are averaged: one alone is no change


def keep_unchanged(drawn: Tensor, before: list[np.ndarray | None], codec: Codec, least: float) -> Tensor:
    """Pictures (B, 3, H, W) in [-1, 1] that were drawn, what did not change put back.

    before  uint8 (H, W, 3) the picture before each; of one of another size, or None, nothing is kept
    least   difference, as a share of a colour's range, up to which nothing changed; from twice of it on all
            is the drawing's, and between the two they are mixed
    """
    size = drawn.shape[2:]
    rows = [n for n, picture in enumerate(before) if picture is not None and picture.shape[:2] == size]
    if not least or not rows:
        return drawn
    drawn = drawn.float().clone()
    for row in rows:  # one by one, so that a batch equals its singles
        signal = to_signal(before[row][None], drawn.device)
        again = codec.reconstruct(signal).float()
        differs = (drawn[row : row + 1] - again).abs().amax(1, keepdim=True) / 2
        differs = avg_pool2d(differs, WINDOW, 1, WINDOW // 2, count_include_pad=False)
        share = (differs / least - 1).clamp(0, 1)
        drawn[row : row + 1] = signal.lerp(drawn[row : row + 1], share)
    return drawn
