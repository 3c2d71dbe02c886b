"""What a saved model says of itself: `config.json`.

Names follow Hugging Face's Llama and Qwen configurations where they exist.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from unimodal.errors import UserError, nearest
from unimodal.paths import PATHS, load_path


class Strict(BaseModel):
    """A section in which an unknown key is an error."""

    model_config = ConfigDict(extra="forbid")


def check_options(path: str, options: dict[str, Any]) -> None:
    """Raise ValueError, in words, unless `options` are some that this path has."""
    known = load_path(path).Options
    try:
        known.model_validate(options)
    except ValidationError as error:
        said = []
        for mistake in error.errors():
            name = ".".join(map(str, mistake["loc"]))
            if mistake["type"] == "extra_forbidden":
                has = ", ".join(known.model_fields) or "none"
                said.append(f"{path} has no option {name!r}{nearest(name, known.model_fields)}; it has {has}")
            else:
                reason = mistake["msg"].removeprefix("Value error, ")
                said.append(f"{name} = {mistake['input']!r}: {reason}" if name else reason)
        raise ValueError("path_options: " + "; ".join(said)) from None


class DropTable(Strict):
    """Probability with which training takes a condition out of a document with a drawn image."""

    text: float = Field(0.1, ge=0, le=1)
    image: float = Field(0.05, ge=0, le=1)
    both: float = Field(0.05, ge=0, le=1)

    @model_validator(mode="after")
    def _sums(self) -> "DropTable":
        if self.text + self.image + self.both > 1:
            raise ValueError("text, image and both are exclusive: their sum must be at most 1")
        return self


Share = Annotated[float, Field(ge=0, le=1)]


class Sampling(Strict):
    """How a picture is drawn when the caller does not say.

    guidance_interval  noise levels, or shares of the picture that are still missing, above the first and up
                       to the second of which guidance is applied (Kynkaanniemi et al. 2024)
    guidance_rescale   how far a guided prediction is pulled back to the spread of the plain one (Lin et al.
                       2024)
    keep               up to which difference, as a share of a colour's range, an edit keeps the pixels of the
                       picture before, and those of areas that nowhere exceed three times of it
                       (`images/keep.py`); 0: every pixel comes out of the codec
    """

    steps: int = Field(24, ge=1)
    guidance: float = Field(2.0, ge=0)
    image_guidance: float = Field(1.0, ge=0)
    guidance_interval: tuple[Share, Share] = (0.0, 1.0)
    guidance_rescale: float = Field(0.0, ge=0, le=1)
    shift: float = Field(1.0, gt=0)
    solver: Literal["euler", "heun"] = "euler"
    keep: float = Field(0.0, ge=0, lt=1 / 3)

    @field_validator("guidance_interval")
    @classmethod
    def _grows(cls, interval: tuple[float, float]) -> tuple[float, float]:
        if interval[0] >= interval[1]:
            raise ValueError(f"[{interval[0]}, {interval[1]}] is empty: the first must be the smaller one")
        return interval


class Writing(Strict):
    """How a reply is written when the caller does not say.

    plan         text tokens that may be said before a picture which has to be drawn: there a model that was
                 trained to say what a picture is going to hold chooses what its caption leaves open
    temperature  of such a plan, and of conversations
    top_p        of all that is said at a temperature above 0
    """

    plan: int = Field(0, ge=0)
    temperature: float = Field(0.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)


class Times(Strict):
    """Where training puts its noise levels: logit-normal, then shifted (Esser et al. 2024, eq. 19 and 23).

    copies  noise levels at which one picture is drawn in one document: what is told is read once for all
    """

    mean: float = 0.0
    std: float = Field(1.0, gt=0)
    shift: float = Field(1.0, gt=0)
    copies: int = Field(1, ge=1)


class MaskedText(Strict):
    """Text by masked prediction (text_objective masked): written in blocks, each filled in by confidence.

    block     tokens that are masked, and filled in, together
    forwards  the most in which a block is filled in
    """

    block: int = Field(8, ge=1)
    forwards: int = Field(8, ge=1)


class RopeScaling(Strict):
    """How rotary frequencies were stretched for texts longer than those of the first training.

    linear  all are divided by `factor`
    llama3  the slow ones are (Llama 3.1, 2024), with a smooth band between `low_freq_factor` and
            `high_freq_factor` turns in `original_max_position_embeddings` positions
    yarn    the same idea with a linear ramp (Peng et al. 2023, section 3.2) between `beta_slow` and
            `beta_fast` turns; queries and keys are scaled by `attention_factor`
    """

    rope_type: Literal["linear", "llama3", "yarn"]
    factor: float = Field(gt=0)
    original_max_position_embeddings: int | None = Field(None, gt=0)
    low_freq_factor: float | None = Field(None, gt=0)
    high_freq_factor: float | None = Field(None, gt=0)
    beta_fast: float = Field(32.0, gt=0)
    beta_slow: float = Field(1.0, gt=0)
    truncate: bool = True  # of the ramp's ends to whole frequencies
    attention_factor: float = Field(1.0, gt=0)

    @model_validator(mode="after")
    def _complete(self) -> "RopeScaling":
        needed = {
            "linear": [],
            "llama3": ["original_max_position_embeddings", "low_freq_factor", "high_freq_factor"],
            "yarn": ["original_max_position_embeddings"],
        }
        for name in needed[self.rope_type]:
            if getattr(self, name) is None:
                raise ValueError(f"rope_type {self.rope_type} needs {name}")
        return self


class Vision(Strict):
    """What a vision tower tells of a picture: features of so many numbers, on a grid of rows and columns."""

    hidden_size: int = Field(ge=1)
    grid: tuple[int, int]


class ModelConfig(Strict):
    """Shape of the decoder, its image path, and the nulls it was trained with."""

    model_type: Literal["unimodal"] = "unimodal"
    vocab_size: int = 2048
    hidden_size: int = 256
    intermediate_size: int = 704
    num_hidden_layers: int = 8
    num_attention_heads: int = 4
    num_key_value_heads: int = 4
    head_dim: int = 64
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_scale: RopeScaling | None = None  # Hugging Face keeps it in `rope_parameters`
    no_rope_layers: list[Literal[0, 1]] | None = None  # as in SmolLM3: a layer with 0 has no rotary positions
    qk_norm: bool = True
    attention_bias: bool = False  # of queries, keys and values
    attention_output_bias: bool = False
    mlp_bias: bool = False
    tie_word_embeddings: bool = True
    max_position_embeddings: int | None = Field(None, gt=0)  # that the text weights were made for, if known
    sliding_window: int | None = Field(None, gt=0)  # that they were made with; documents must fit into it
    max_length: int | None = Field(None, gt=0)  # rotary positions of the longest document; null: no limit
    experts: Literal["shared", "mot"] = "shared"
    path: str = "flow"  # one of `unimodal.paths.PATHS`
    path_options: dict[str, Any] = Field(default_factory=dict)  # settings that this path alone has
    # What is drawn attends to the pictures before it; with `cells` it is shown the last of them cell by cell
    # too, if that has its size (model/reference.py).
    reference: Literal["attention", "cells"] = "attention"
    text_objective: Literal["next_token", "masked"] = "next_token"
    masked_text: MaskedText = MaskedText()
    patch_size: int = Field(1, ge=1)
    image_size: int = Field(64, ge=1)  # longest side of the largest picture of a row, in pixels
    vision: Vision | None = None  # a tower as the second reading of input pictures; `unimodal init` adds one
    times: Times = Times()
    sampling: Sampling = Sampling()
    writing: Writing = Writing()
    drop: DropTable = DropTable()
    null: Literal["removed"] = "removed"  # what stands in the place of a dropped condition: nothing

    @model_validator(mode="after")
    def _shapes(self) -> "ModelConfig":
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads ({self.num_attention_heads}) must be a multiple of "
                f"num_key_value_heads ({self.num_key_value_heads})"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim ({self.head_dim}) must be even for rotary positions")
        if self.no_rope_layers is not None and len(self.no_rope_layers) != self.num_hidden_layers:
            raise ValueError(
                f"no_rope_layers has {len(self.no_rope_layers)} entries; expected one for each of the "
                f"{self.num_hidden_layers} layers"
            )
        return self

    @model_validator(mode="after")
    def _text(self) -> "ModelConfig":
        if self.text_objective != "masked" and self.masked_text != MaskedText():
            raise ValueError("masked_text says how text is masked; it needs text_objective masked")
        return self

    @model_validator(mode="after")
    def _path(self) -> "ModelConfig":
        if self.path not in PATHS:
            raise ValueError(f"path is {self.path!r}; expected one of {', '.join(PATHS)}")
        if self.path_options:
            check_options(self.path, self.path_options)
        return self

    @property
    def limit(self) -> int | None:
        """Rotary positions that a document may take; None: any number."""
        said = [most for most in (self.max_length, self.sliding_window) if most is not None]
        return min(said, default=None)

    def save(self, folder: Path) -> None:
        """Write `config.json`."""
        (folder / "config.json").write_text(self.model_dump_json(indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "ModelConfig":
        """Read `config.json`; UserError if it is missing or does not fit this version."""
        file = folder / "config.json"
        if not file.is_file():
            raise UserError(
                f"{folder} is not a model folder: it has no config.json. Give a folder that "
                "`unimodal train` wrote, or the name of a shipped model."
            )
        try:
            return cls.model_validate(json.loads(file.read_text()))
        except (ValidationError, json.JSONDecodeError) as error:
            raise UserError(f"{file} does not describe a unimodal model: {error}") from error
