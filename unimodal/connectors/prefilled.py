"""Positions behind the prompt that say what the picture will look like to the reader (Nexus-Gen, SEED-X).

All of them stand behind the prompt before anything is known of the picture, and regress to the embeddings
that the reader's image encoder has of the true picture (Zhang et al. 2025, Nexus-Gen: half squared error,
half cosine distance).  What they say is the denoiser's condition, in training as in sampling, so that both
see the same.
"""

import torch
from einops import rearrange, repeat
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, cosine_similarity, rms_norm

from unimodal.connectors.connector import Appended, Ends, Tap, TapLayer, arrival, shared
from unimodal.model.config import Strict
from unimodal.sequence.spans import Grid


class Prefilled(nn.Module):
    """See `unimodal.connectors.connector`; the condition has a position for each embedding of the picture."""

    class Options(Strict):
        """Settings of this connector alone.

        side    the picture's embeddings are averaged to side x side of them
        width   of the hidden layer that says them
        causal  whether each position sees only those before it
        """

        side: int = Field(4, ge=1)
        width: int = Field(512, ge=1)
        causal: bool = True

    def __init__(self, ends: Ends, tap_layer: TapLayer, options: dict):
        super().__init__()
        said = self.Options.model_validate(options)
        self.side = said.side
        self.tap = Tap(tap_layer, ends.layers, ends.width)
        self.places = nn.Parameter(0.02 * torch.randn(said.side**2, ends.width))
        self.head = nn.Sequential(
            nn.Linear(self.tap.width, said.width), nn.GELU(), nn.Linear(said.width, ends.seen)
        )
        self.leave = nn.Linear(ends.seen, ends.condition)
        self.norm = arrival(ends)
        self.appended = Appended(said.side**2, said.causal, self._ask)

    def _ask(self, embeds: Tensor, mask: Tensor) -> Tensor:
        return repeat(self.places, "n d -> b n d", b=len(embeds))

    def forward(self, hidden: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """See Connector."""
        return shared(self.norm(self.leave(self.head(self.tap(hidden)))))

    def regression(self, hidden: Tensor, seen: list[tuple[Tensor, Grid]]) -> Tensor:
        """How far each row's positions are from the embeddings of its picture: (B,), 0 if they say them.

        seen  for each row, the image encoder's embeddings (P, E) of the true picture and their grid
        """
        said = self.head(self.tap(hidden)).float()  # (B, N, E)
        truth = torch.stack([self.averaged(*one) for one in seen]).to(said)
        squared = (said - truth).square().mean((1, 2))
        distance = 1 - cosine_similarity(said, truth, dim=-1).mean(1)
        return 0.5 * squared + 0.5 * distance

    def averaged(self, embeddings: Tensor, grid: Grid) -> Tensor:
        """Embeddings (P, E) of a picture on `grid`, averaged to (side^2, E) and brought to unit size."""
        cells = rearrange(embeddings.float(), "(r c) e -> e r c", r=grid[0])
        few = rearrange(adaptive_avg_pool2d(cells, self.side), "e r c -> (r c) e")
        return rms_norm(few, few.shape[-1:])
