"""The `lora` section of a recipe, and the settings an adapter brings with it.

Low-rank adaptation (LoRA, Hu et al. 2021) leaves every weight W as it is and trains two thin matrices
beside it: W + (alpha / rank) B A.  DoRA (Liu et al. 2024) also trains the length of W's rows.
"""

from typing import Literal

from pydantic import Field

from unimodal.model.config import DropTable, ModelConfig, Sampling, Strict, Times, Writing
from unimodal.model.unified import UnifiedModel

Target = Literal["text", "image", "both"]


class LoraSection(Strict):
    """What is adapted, and how much.

    target           text: the decoder's blocks where they compute text.  image: the blocks where they
                     compute images, and the image path's own layers.  both: all of these
    modules_to_save  modules trained in full and saved with the adapter, by name: embed_tokens, lm_head,
                     path.head, ...; a vision tower's projection (vision_in) is always one of them
    new_tokens       whether tokens that `unimodal init` added are learned too, whatever the target: their
                     rows of the embedding and the head, saved with the adapter.  They begin as the mean
    """

    target: Target = "both"
    rank: int = Field(16, ge=1)  # rows of A and columns of B
    alpha: int = Field(32, ge=1)  # the change is multiplied by alpha / rank
    dropout: float = Field(0.0, ge=0, lt=1)  # of the inputs of A
    use_dora: bool = False
    modules_to_save: list[str] = Field(default_factory=list)
    new_tokens: bool = True


class Settings(Strict):
    """What a model may change about itself without changing the shape of its weights."""

    times: Times
    sampling: Sampling
    writing: Writing = Writing()
    drop: DropTable
    image_size: int

    @classmethod
    def of(cls, config: ModelConfig) -> "Settings":
        """The settings of a model."""
        return cls(**{name: getattr(config, name) for name in cls.model_fields})


def apply_settings(model: UnifiedModel, settings: Settings) -> None:
    """Let a model, and its path, which keeps some of them, have these settings."""
    said = {name: getattr(settings, name) for name in Settings.model_fields}
    model.config = model.config.model_copy(update=said)
    for name, value in said.items():
        if hasattr(model.path, name):
            setattr(model.path, name, value)
