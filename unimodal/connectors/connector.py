"""What every connector does, and which of the reader's hidden states it is given.

    connector(hidden, mask) -> (cond, cond_mask)

It is given hidden states of the prompt's positions; or, if it appends positions of its own to the prompt, of
those alone.  B rows, T positions, K tapped layers, D reader width, S positions and W width of the condition.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import rms_norm

from unimodal.errors import UserError
from unimodal.model.config import Strict
from unimodal.model.norm import RMSNorm

TapLayer = int | list[int] | Literal["mix"]
"""An index as into transformers' `hidden_states` (0 embeddings, -1 the last layer, normalised), several of
them side by side, or a learned mix of all."""


@dataclass(frozen=True, slots=True)
class Ends:
    """What a connector stands between.

    layers, width     of the reader: number of layers, width of hidden states
    seen              width of the reader's embeddings of pictures
    condition, scale  of the denoiser: width and root mean square of the conditions it takes
    """

    layers: int
    width: int
    seen: int
    condition: int
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Appended:
    """Positions that a connector puts behind every prompt.

    count   N
    causal  whether each sees only those before it, or all of them each other
    make    embeddings of the prompt (B, T, D) and which of them are real (B, T) -> embeddings (B, N, D)
    """

    count: int
    causal: bool
    make: Callable[[Tensor, Tensor], Tensor]


class Connector(Protocol):
    """The contract of `connectors/*.py`; an nn.Module made as `Connector(ends, tap_layer, options)`."""

    Options: ClassVar[type[Strict]]
    tap: "Tap"
    appended: Appended | None

    def __call__(self, hidden: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden states (B, T, K, D) and mask (B, T) to a condition (B, S, W) and its mask (B, S)."""
        ...


class Tap(nn.Module):
    """Some of the reader's hidden states (B, T, K, D) as one (B, T, `width`), each layer's at unit size.

    A residual stream grows from layer to layer, so layers are brought to one size before they are compared.
    The mix is a softmax-weighted mean of all layers (Peters et al. 2018, ELMo, equation 1).
    Raises UserError for an index beyond the reader's layers.
    """

    def __init__(self, where: TapLayer, layers: int, width: int):
        super().__init__()
        chosen = list(range(layers + 1)) if where == "mix" else [where] if isinstance(where, int) else where
        for index in chosen:
            if not -layers - 1 <= index <= layers:
                raise UserError(
                    f"connector.tap_layer {index}: the reader has {layers} layers; expected an index from "
                    f"{-layers - 1} to {layers}, where 0 is the embeddings and -1 the last layer."
                )
        if not chosen or len({index % (layers + 1) for index in chosen}) < len(chosen):
            raise UserError(f"connector.tap_layer {where}: expected one layer or several different ones.")
        self.layers = [index % (layers + 1) for index in chosen]
        self.weight = nn.Parameter(torch.zeros(len(chosen))) if where == "mix" else None
        self.width = width if where == "mix" else width * len(chosen)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, T, K, D) to (B, T, `width`)."""
        hidden = rms_norm(hidden.float(), hidden.shape[-1:])
        if self.weight is None:
            return rearrange(hidden, "b t k d -> b t (k d)")
        return torch.einsum("b t k d, k -> b t d", hidden, self.weight.softmax(0))


def arrival(ends: Ends) -> RMSNorm:
    """The last layer of a connector: it starts at the size of the conditions that the denoiser knows."""
    norm = RMSNorm(ends.condition, 1e-6)
    nn.init.constant_(norm.weight, ends.scale)
    return norm


def shared(condition: Tensor) -> tuple[Tensor, Tensor]:
    """A condition (B, S, W) of which every position is real, with its mask."""
    return condition, torch.ones(condition.shape[:2], dtype=torch.bool, device=condition.device)
