"""A way around the decoder for what is drawn, as long as the decoder is deep.

Noise and fine detail have to arrive at the output as exactly as they came in, through layers that mix
positions.  U-ViT joins early layers to late ones for that (Bao et al. 2023, section 3).  Here the embedding
of a position that is drawn is added to its last hidden state, as much of it as that state lets in.
"""

import torch
from torch import Tensor, nn


class LongSkip(nn.Module):
    """h + sigmoid(G h) * W e, of width D."""

    def __init__(self, width: int):
        super().__init__()
        self.gate = nn.Linear(width, width)
        self.proj = nn.Linear(width, width, bias=False)

    def reset_parameters(self) -> None:
        """Begin as a model without it."""
        nn.init.zeros_(self.proj.weight)

    def forward(self, hidden: Tensor, embeds: Tensor) -> Tensor:
        """Hidden states (..., D) of drawn positions, given what went into the decoder there (..., D)."""
        return hidden + torch.sigmoid(self.gate(hidden)) * self.proj(embeds.to(hidden.dtype))
