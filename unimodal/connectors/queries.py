"""Learned queries behind the prompt, read by the frozen reader, then encoded (MetaQueries, Pan et al. 2025).

The queries are a parameter of their own, never rows of the reader's vocabulary, so weight decay cannot touch
what is frozen.  The encoder has its own width and depth, whatever the reader's are; it stands before the
projection to the denoiser's width, or behind it (OpenUni, Wu et al. 2025, has it before).
"""

from typing import Literal

import torch
from einops import repeat
from pydantic import Field, model_validator
from torch import Tensor, nn

from unimodal.connectors.connector import Appended, Ends, Tap, TapLayer, arrival, shared
from unimodal.connectors.encoder import Attention, Encoder, plan_of
from unimodal.model.config import Strict
from unimodal.model.norm import RMSNorm


class Queries(nn.Module):
    """See `unimodal.connectors.connector`; the condition has as many positions as there are queries."""

    class Options(Strict):
        """Settings of this connector alone.

        count     number of queries
        learned   false: they stay as they were drawn, the control of a comparison
        causal    whether each sees only those before it; false: all see each other
        residual  the queries first look at the embeddings of the prompt, and add what they find
        order     the encoder before the projection to the denoiser's width, or behind it
        width     of the encoder before the projection; behind it, it has the denoiser's
        depth     of the encoder;  heads  of its attention
        """

        count: int = Field(64, ge=1)
        learned: bool = True
        causal: bool = False
        residual: bool = False
        order: Literal["encoder_first", "projection_first"] = "encoder_first"
        width: int = Field(256, ge=1)
        depth: int = Field(4, ge=0)
        heads: int = Field(4, ge=1)

        @model_validator(mode="after")
        def _of_use(self) -> "Queries.Options":
            if self.order == "projection_first" and "width" in self.model_fields_set:
                raise ValueError(
                    "width: of the encoder before the projection; behind it, it has the denoiser's"
                )
            return self

    def __init__(self, ends: Ends, tap_layer: TapLayer, options: dict):
        super().__init__()
        said = self.Options.model_validate(options)
        self.tap = Tap(tap_layer, ends.layers, ends.width)
        queries = 0.02 * torch.randn(said.count, ends.width)  # the size of an embedding
        if said.learned:
            self.queries = nn.Parameter(queries)
        else:
            self.register_buffer("queries", queries)
        self.prompt_norm = self.prompt = None
        if said.residual:
            self.prompt_norm = RMSNorm(ends.width, 1e-6)
            self.prompt = Attention(ends.width, 1, ends.width)
            nn.init.zeros_(self.prompt.o_proj.weight)
            nn.init.zeros_(self.prompt.o_proj.bias)
        inner = said.width if said.order == "encoder_first" else ends.condition
        self.enter = nn.Linear(self.tap.width, inner)
        self.encoder = Encoder(inner, said.depth, said.heads)
        self.leave = nn.Linear(inner, ends.condition) if said.order == "encoder_first" else nn.Identity()
        self.norm = arrival(ends)
        self.appended = Appended(said.count, said.causal, self._ask)

    def _ask(self, embeds: Tensor, mask: Tensor) -> Tensor:
        queries = repeat(self.queries, "n d -> b n d", b=len(embeds))
        if self.prompt is None:
            return queries
        every = torch.ones(queries.shape[:2], dtype=torch.bool, device=queries.device)
        keys = self.prompt.keys(self.prompt_norm(embeds.float()))
        return queries + self.prompt(self.prompt_norm(queries), keys, plan_of(every, mask))

    def forward(self, hidden: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """See Connector."""
        encoded = self.encoder(self.enter(self.tap(hidden)), mask)
        return shared(self.norm(self.leave(encoded)))
