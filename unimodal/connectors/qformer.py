"""Learned queries that look at the frozen reader's hidden states in every k-th layer (Q-Former).

A stack beside the reader rather than inside it (BLIP-2, Li et al. 2023; SEED, Ge et al. 2023; NExT-GPT, Wu et
al. 2023): the reader reads the prompt alone, so what it says of it can be computed once and kept.
"""

import torch
from einops import repeat
from pydantic import Field
from torch import Tensor, nn

from unimodal.connectors.connector import Ends, Tap, TapLayer, arrival, shared
from unimodal.connectors.encoder import Encoder
from unimodal.model.config import Strict


class QFormer(nn.Module):
    """See `unimodal.connectors.connector`; the condition has as many positions as there are queries."""

    class Options(Strict):
        """Settings of this connector alone.

        count  number of queries
        width, depth, heads  of their transformer
        every  each so manieth layer, from the first on, looks at the reader's hidden states
        """

        count: int = Field(64, ge=1)
        width: int = Field(256, ge=1)
        depth: int = Field(6, ge=1)
        heads: int = Field(4, ge=1)
        every: int = Field(2, ge=1)

    appended = None

    def __init__(self, ends: Ends, tap_layer: TapLayer, options: dict):
        super().__init__()
        said = self.Options.model_validate(options)
        self.tap = Tap(tap_layer, ends.layers, ends.width)
        self.queries = nn.Parameter(0.02 * torch.randn(said.count, said.width))
        self.encoder = Encoder(said.width, said.depth, said.heads, self.tap.width, said.every)
        self.leave = nn.Linear(said.width, ends.condition)
        self.norm = arrival(ends)

    def forward(self, hidden: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """See Connector."""
        queries = repeat(self.queries, "n d -> b n d", b=len(hidden))
        every = torch.ones(queries.shape[:2], dtype=torch.bool, device=queries.device)
        encoded = self.encoder(queries, every, self.tap(hidden), mask)
        return shared(self.norm(self.leave(encoded)))
