"""How alike two pictures look: LPIPS where its weights are at hand, outlines at several sizes otherwise.

LPIPS (Zhang et al. 2018) compares features of a network trained on photographs.  torchmetrics brings it and
its few linear weights; the network itself is torchvision's, and nothing is downloaded here.
"""

import logging
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from unimodal.images.losses import pyramid_edge_error

Likeness = Callable[[Tensor, Tensor], Tensor]
"""(restored, pixels), (B,3,H,W) in [-1, 1] -> (B,): 0 for equal pictures, with gradient to `restored`."""

SMALLEST = 32  # pixels a side that the network needs

log = logging.getLogger(__name__)


def missing_for_lpips(size: int) -> str | None:
    """What keeps LPIPS from being used on pictures of `size` pixels, in words; None if nothing does."""
    for package in ("torchmetrics", "torchvision"):
        if find_spec(package) is None:
            return f"{package} is not installed"
    from torchvision.models import AlexNet_Weights

    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(AlexNet_Weights.DEFAULT.url).name
    if not path.is_file():
        return f"{path} is not there (torchvision's AlexNet weights, {AlexNet_Weights.DEFAULT.url})"
    if size < SMALLEST:
        return f"pictures of {size} pixels are too small for its network"
    return None


def likeness(size: int) -> Likeness:
    """The best term at hand for pictures of `size` pixels; the choice is logged with its reason."""
    missing = missing_for_lpips(size)
    if missing is not None:
        log.warning("perceptual term: outlines at three sizes, without LPIPS, because %s", missing)
        return pyramid_edge_error
    log.warning("perceptual term: LPIPS (AlexNet), found at hand")
    return _lpips()


def _lpips() -> Likeness:
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    network = LearnedPerceptualImagePatchSimilarity(net_type="alex").net.requires_grad_(False)

    def compare(restored: Tensor, pixels: Tensor) -> Tensor:
        """(B,3,H,W) twice -> (B,)."""
        return network.to(pixels.device)(restored.clamp(-1, 1), pixels).flatten()

    return compare
