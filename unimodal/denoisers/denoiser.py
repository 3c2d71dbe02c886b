"""What every denoiser does: say the velocity of noised latents under a condition.

    ready = denoiser.prepare(conditions)         # once a prompt
    velocity = denoiser(noisy, t, ready)         # once a solver step, or noise level of training

B rows, C latent channels, h w latent grid, S positions and W width of the condition.
"""

from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from unimodal.errors import UserError
from unimodal.model.config import Strict

Latents = Literal["none", "vae_seq", "vae_channel"]
"""How the latents of a picture that is to be edited reach the denoiser: not at all, as tokens of their own,
or as further channels of the picture that is drawn."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """What B pictures are drawn from.

    cond, mask  (B, S, W) and which of its positions are real (B, S)
    reference   (B, C, h', w') latents of the picture that is to be edited; None if no row has one
    referenced  (B,) which rows have one; the others' latents mean nothing
    """

    cond: Tensor
    mask: Tensor
    reference: Tensor | None
    referenced: Tensor

    @classmethod
    def of(cls, cond: Tensor, mask: Tensor, references: list[Tensor | None]) -> "Conditions":
        """Rows side by side; all references (C, h', w') there are have one size."""
        there = next((one for one in references if one is not None), None)
        known = torch.tensor([one is not None for one in references], device=cond.device)
        if there is None:
            return cls(cond, mask, None, known)
        filled = [torch.zeros_like(there) if one is None else one for one in references]
        return cls(cond, mask, torch.stack(filled), known)


class Denoiser(Protocol):
    """The contract of `denoisers/*.py`; each is an nn.Module built as `Denoiser(channels, latents, options)`.

    condition, scale  width and root mean square of the conditions that it takes
    multiple          latent cells that its grid counts in, along a side
    normalises        whether it takes conditions of any size for the same
    """

    Options: ClassVar[type[Strict]]
    condition: int
    scale: float
    multiple: int
    normalises: ClassVar[bool]

    def prepare(self, conditions: Conditions) -> Any:
        """All of a picture's conditions that does not change with the noise level: a dataclass for `rows_of`.

        Raises UserError for a reference that it cannot take.
        """
        ...

    def __call__(self, noisy: Tensor, t: Tensor, ready: Any) -> Tensor:
        """Velocity (B, C, h, w), float32, of noised latents (B, C, h, w) at noise levels t (B,)."""
        ...


def rows_of(ready: Any, index: Tensor | slice) -> Any:
    """Some rows, repeats allowed, of what a denoiser prepared; all its tensors have their rows first."""

    def chosen(part: Any) -> Any:
        return part[index] if isinstance(part, Tensor) else part

    return replace(ready, **{one.name: tree_map(chosen, getattr(ready, one.name)) for one in fields(ready)})


def mean_of(conditions: Conditions) -> Tensor:
    """Mean over the real positions of each condition: (B, W)."""
    share = conditions.mask / conditions.mask.sum(1, keepdim=True).clamp_min(1)
    return torch.einsum("b s w, b s -> b w", conditions.cond.float(), share)


def as_channels(conditions: Conditions) -> Tensor | None:
    """References as channels (B, C + 1, h, w), the last saying whether there is one; None if none has."""
    if conditions.reference is None:
        return None
    there = conditions.referenced[:, None, None, None].float()
    flag = there.expand(-1, 1, *conditions.reference.shape[2:])
    return torch.cat([conditions.reference * there, flag], dim=1)


def with_channels(noisy: Tensor, channels: Tensor | None) -> Tensor:
    """Latents (B, C, h, w) with their references' channels (B, 2 C + 1, h, w); zeros where there is none.

    Raises UserError for a reference of another size.
    """
    if channels is None:
        channels = noisy.new_zeros(len(noisy), noisy.shape[1] + 1, *noisy.shape[2:])
    if channels.shape[2:] != noisy.shape[2:]:
        raise UserError(
            f"reference vae_channel: the picture to edit has {tuple(channels.shape[2:])} latent cells, the "
            f"one to draw {tuple(noisy.shape[2:])}; expected as many. Use vae_seq for other sizes."
        )
    return torch.cat([noisy, channels.to(noisy)], dim=1)
