"""Where in its picture an image position is, added to its embedding.

Rotary positions tell how far apart two positions are, and only where attention looks at both.  A position
that holds nothing but noise has to know by itself which part of the picture it is, and an edit has to
find the same part of another picture wherever that stands in the sequence.  So the row and the column
inside the picture are added as sinusoids (as BAGEL does, Deng et al. 2025); no table limits the size.
"""

import math

import torch
from torch import Tensor, nn

WAVES = 16  # sinusoids for each of row and column, both sine and cosine
LONGEST = 512  # positions: the longest wave, well beyond the side of a picture


class Places(nn.Module):
    """Sinusoids of row and column through one projection."""

    def __init__(self, width: int):
        super().__init__()
        self.proj = nn.Linear(4 * WAVES, width, bias=False)

    def forward(self, embeds: Tensor, position: Tensor, is_image: Tensor) -> Tensor:
        """Embeddings (B, T, D) plus the places of image positions; text stays as it is.

        position  (B, T, 3) order, row, column as the layout gives them: an image's count from its order
        is_image  (B, T) bool
        """
        inside = (position[..., 1:] - position[..., :1]).float()  # (B, T, 2), 0 on text
        steps = torch.arange(WAVES, device=embeds.device) / (WAVES - 1)
        rates = math.pi * (1 / LONGEST) ** steps  # from two positions to twice LONGEST a turn
        angles = (inside[..., None] * rates).flatten(-2)
        waves = torch.cat([angles.sin(), angles.cos()], dim=-1)
        return embeds + (self.proj(waves) * is_image[..., None]).to(embeds.dtype)
