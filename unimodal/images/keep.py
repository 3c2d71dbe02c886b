"""What an edit leaves alone, taken from the picture itself and not through the codec.

A codec gives every picture back with errors of its own, so what an edit copied exactly comes out blurred.
Where the drawing is what the codec makes of the picture before, nothing was meant to change, and there the
pixels of the picture before are kept.

A drawing differs a little everywhere, and what was changed on purpose fades out at its rim. So an area counts
as changed as far as it differs, if it differs much somewhere in it: the two thresholds of Canny (1986).
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d

from unimodal.images.codec import Codec
from unimodal.images.signal import to_signal

WINDOW = 5  # pixels a side over which differences are averaged: one alone is no change
MUCH = 3.0  # times `least` is what an area has to reach somewhere


def keep_unchanged(drawn: Tensor, before: list[np.ndarray | None], codec: Codec, least: float) -> Tensor:
    """Pictures (B, 3, H, W) in [-1, 1] that were drawn, what did not change put back.

    before  uint8 (H, W, 3) the picture before each; of one of another size, or None, nothing is kept
    least   difference, as a share of a colour's range, up to which nothing changed; an area that differs by
            more is the drawing's if three times as much is exceeded somewhere in it
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
        changed = _spread(differs > MUCH * least, differs > least)
        drawn[row : row + 1] = torch.where(changed, drawn[row : row + 1], signal)
    return drawn


def _spread(start: Tensor, within: Tensor) -> Tensor:
    """The areas of `within` (1, 1, H, W) that hold a pixel of `start`; a corner is enough to touch.

    Reconstruction by dilation (Vincent 1993): `start` grows by a pixel at a time and stays inside.
    """
    found = start & within
    while True:
        more = max_pool2d(found.float(), 3, 1, 1).bool() & within
        if torch.equal(more, found):
            return found
        found = more
