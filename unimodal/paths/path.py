"""What every path answers, and nothing else knows.

    1. target_layout   how many positions a drawn image takes, with which steps, hidden or not
    2. truth, corrupt  what of an image the path has to say, and what the model sees of it in training
    3. embed           how that becomes model-width vectors
    4. loss            from hidden states at those positions
    5. sample          the finished image, given a look at the cached context; `decode` makes pixels of it

A finished image is read alike by all paths: as a clean copy of its latents (`embed_clean`).
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from unimodal.data.document import Drop
from unimodal.diffusion.guidance import Guidance
from unimodal.diffusion.solvers import OnStep
from unimodal.images.codec import Codec
from unimodal.model.config import Strict
from unimodal.sequence.spans import Grid, TargetLayout

# Settings of noise levels, and of the spread of what is said, which paths that say codes have none of.
OF_LATENTS = frozenset(
    {
        *("times.mean", "times.std", "times.shift"),
        *("sampling.solver", "sampling.shift", "sampling.guidance_rescale"),
    }
)


class Look(Protocol):
    """Hidden states at the image's own positions, over the cached context."""

    def __call__(
        self, embeds: Tensor, guided: bool = True, at: slice | None = None
    ) -> tuple[Tensor, dict[Drop, Tensor]]:
        """Embeddings (B, n, D) to hidden states (B, n, D): of the full branch, and of each null branch.

        guided  whether null branches are wanted; kept looks have them all
        at      which of the target's positions; they are kept, so that later looks of this image see them.
                None: all of them, and nothing is kept
        """
        ...


@dataclass(frozen=True)
class Before:
    """What the picture before has in the cell of each of P positions of drawn pictures.

    latents  (P, C), zero where it has nothing or there is no such picture
    known    (P, 1), 1.0 where it has something, else 0.0
    """

    latents: Tensor
    known: Tensor

    def chunk(self, parts: int) -> list["Before"]:
        """In so many equal parts, one after another."""
        pairs = zip(self.latents.chunk(parts), self.known.chunk(parts), strict=True)
        return [Before(latents, known) for latents, known in pairs]


@dataclass(slots=True)
class Corrupted:
    """What the model sees of the I images it is to draw, and what it must say, flat over all of them.

    inputs, target  (P, ...) as the path likes
    owner           (P,) image of each position
    times           (I,) where in the path's own time each image stands, in [0, 1]; 1 is nothing known
    before          what a model with `reference: cells` is shown
    """

    inputs: Tensor
    target: Tensor
    owner: Tensor
    times: Tensor
    before: Before | None = field(default=None, kw_only=True)


class Path(Protocol):
    """The contract of `paths/*.py`; every path is an nn.Module built as `Path(config, codec)`.

    It keeps what it needs of the codec (numbers, not the module) and gets the codec itself where it works
    on pictures.  Raises UserError at once if the codec does not go with it.
    """

    Options: ClassVar[type[Strict]]  # settings of its own, `model.path_options` in a recipe
    CODES: ClassVar[bool]  # whether it says codes, those of single cells
    IDLE: frozenset[str]  # of `model.times` and `model.sampling`, what says nothing to it
    channels: int  # numbers of a position of a finished image

    def target_layout(self, grid: Grid) -> TargetLayout:
        """Answer 1, for a picture whose clean copy takes `grid` positions."""
        ...

    def truth(self, codec: Codec, encoded: Tensor, latents: Tensor, grid: Grid) -> Sequence[Any]:
        """Answer 2a: for each of B pictures of one size, what the path has to say of it.

        encoded  what `codec.encode` gave: latents (B, C, h, w) or codes (B, N)
        latents  (B, P, C) the positions of the clean copies, `grid` of them
        """
        ...

    def corrupt(self, truths: list[Any], grids: list[Grid], generator: torch.Generator) -> Corrupted:
        """Answer 2b: I drawn images at once; all chance comes from `generator`."""
        ...

    def embed(self, corrupted: Corrupted) -> Tensor:
        """Answer 3: (P, D)."""
        ...

    def embed_clean(self, latents: Tensor) -> Tensor:
        """How a finished image is read: (P, C) to (P, D)."""
        ...

    def loss(self, hidden: Tensor, corrupted: Corrupted) -> Tensor:
        """Answer 4: per-position loss (P,) from hidden states (P, D)."""
        ...

    def sample(
        self,
        look: Look,
        codec: Codec,
        grid: Grid,
        generators: list[torch.Generator],
        guidance: Guidance,
        steps: int | None = None,
        on_step: OnStep | None = None,
        before: Before | None = None,
    ) -> Tensor:
        """Answer 5: B finished images, in the path's own form; row b takes its chance from generator b.

        before  with `reference: cells`, of the positions of the full branch and then of each null branch
        """
        ...

    def decode(self, codec: Codec, finished: Tensor, grid: Grid) -> Tensor:
        """Pixels (B, 3, H, W) of what `sample` gave."""
        ...


def weightless(path: Any) -> Any:
    """The path without weights: what it lays out and no more, small enough to travel to another process."""
    shell = copy(getattr(path, "original_module", path))  # an adapter that trains the path wraps it
    vars(shell).update({name: {} for name in ("_parameters", "_modules", "_buffers")})
    return shell


def row_noise(generators: list[torch.Generator], shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Noise (B, *shape), every row from its own CPU generator, so that batch n equals n singles."""
    return torch.stack([torch.randn(shape, generator=generator) for generator in generators]).to(device)


def flatten(images: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Images (P_i, ...) one after another (P, ...), and the owner (P,) of each position."""
    lengths = torch.tensor([len(image) for image in images])
    flat = torch.cat(list(images))
    return flat, torch.repeat_interleave(torch.arange(len(images)), lengths).to(flat.device)
