"""Hidden states of the prompt's own positions, projected (Qwen-Image 2025, OmniGen2 2025, UniWorld 2025).

The plainest connector: what the reader says of each token is one position of the condition.  What the chat
template puts before the first word is the same in every prompt and is left out by the reader.
"""

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from unimodal.connectors.connector import Ends, Tap, TapLayer, arrival
from unimodal.connectors.encoder import Encoder
from unimodal.model.config import Strict


class Hidden(nn.Module):
    """See `unimodal.connectors.connector`; the condition has as many positions as the prompt."""

    class Options(Strict):
        """Settings of this connector alone.

        projection  to the denoiser's width: linear, or an MLP of one hidden layer
        refiner     layers behind it in which the positions see each other;  heads  of their attention
        """

        projection: Literal["linear", "mlp"] = "linear"
        refiner: int = Field(0, ge=0)
        heads: int = Field(4, ge=1)

    appended = None

    def __init__(self, ends: Ends, tap_layer: TapLayer, options: dict):
        super().__init__()
        said = self.Options.model_validate(options)
        self.tap = Tap(tap_layer, ends.layers, ends.width)
        if said.projection == "linear":
            self.projection = nn.Linear(self.tap.width, ends.condition)
        else:
            self.projection = nn.Sequential(
                nn.Linear(self.tap.width, ends.condition),
                nn.GELU(),
                nn.Linear(ends.condition, ends.condition),
            )
        self.refiner = Encoder(ends.condition, said.refiner, said.heads)
        self.norm = arrival(ends)

    def forward(self, hidden: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """See Connector; positions that are not real are zero."""
        refined = self.refiner(self.projection(self.tap(hidden)), mask)
        return self.norm(refined) * mask[..., None], mask
