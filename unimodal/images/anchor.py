"""An anchor: what a codec learns anew must not move the latents of pictures that it knew.

A model reads and draws by latents.  If those of the pictures it was trained on stay where they are while the
codec learns pictures of other kinds (Li and Hoiem 2016, Learning without Forgetting, there for classes), the
model can be given the new codec without being trained again.
"""

import copy

import torch
from torch import Tensor

from unimodal.images.codec import Codec
from unimodal.images.losses import psnr


class Anchor:
    """Where a codec's latents were when its training began.

    codec      a continuous one; a frozen copy is kept
    threshold  dB: pictures that it gave back at this or better are those it knew
    """

    def __init__(self, codec: Codec, threshold: float) -> None:
        self.codec, self.threshold = copy.deepcopy(codec).eval().requires_grad_(False), threshold

    def __call__(self, latents: Tensor, pixels: Tensor) -> Tensor:
        """Squared distance of raw latents (B,C,h,w) of pictures (B,3,H,W) from where they were, as (B,).

        Mean over numbers, each in units of its channel's deviation; 0 for pictures that were not known.
        """
        codec = self.codec.to(pixels.device)
        with torch.no_grad():
            before = codec.to_raw(pixels).float()
            known = psnr(codec.from_raw(before).float().clamp(-1, 1), pixels) >= self.threshold
        distance = (latents - before) / codec.std[:, None, None]
        return distance.square().flatten(1).mean(1) * known
