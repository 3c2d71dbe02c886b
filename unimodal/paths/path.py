"""What every path answers, and nothing else knows.

    1. target_layout   how many positions a drawn image takes, with which steps, hidden or not
    2. corrupt         what the model sees of it in training
    3. embed           how that becomes model-width vectors
    4. loss            from hidden states at those positions
    5. sample          finished latents, given a forward over the cached context

Images of different sizes travel flat: latents (P, C) over all positions of all images, and `owner` (P,)
saying which image a position belongs to.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from unimodal.data.document import Drop
from unimodal.diffusion.guidance import Guidance
from unimodal.diffusion.solvers import OnStep
from unimodal.sequence.layout import Grid, TargetLayout

Forward = Callable[[Tensor, bool], tuple[Tensor, dict[Drop, Tensor]]]
"""(embeddings (B, P, D), guided) -> hidden states (B, P, D) of the full branch and of each null branch."""


@dataclass(slots=True)
class Corrupted:
    """What the model sees of the images it is to draw, and what it must say.

    inputs, target  (P, C) flat over all images
    owner           (P,) image of each position
    times           (I,) noise level of each image
    """

    inputs: Tensor
    target: Tensor
    owner: Tensor
    times: Tensor


class Path(Protocol):
    """The contract of `paths/*.py`; every path is an nn.Module with these methods."""

    def target_layout(self, grid: Grid) -> TargetLayout:
        """Answer 1."""
        ...

    def corrupt(self, latents: Tensor, owner: Tensor, images: int, generator: torch.Generator) -> Corrupted:
        """Answer 2: `latents` (P, C) of `images` images."""
        ...

    def embed(self, inputs: Tensor, times: Tensor, owner: Tensor) -> Tensor:
        """Answer 3: (P, C) at noise levels `times` (I,) to (P, D)."""
        ...

    def embed_clean(self, latents: Tensor) -> Tensor:
        """How a finished image is read: (P, C) to (P, D)."""
        ...

    def loss(self, hidden: Tensor, corrupted: Corrupted) -> Tensor:
        """Answer 4: per-position loss (P,) from hidden states (P, D)."""
        ...

    def sample(
        self,
        forward: Forward,
        noise: Tensor,
        steps: int,
        guidance: Guidance,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Answer 5: latents (B, P, C) from noise (B, P, C)."""
        ...
