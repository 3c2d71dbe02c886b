"""What a saved external model says of itself: `config.json`."""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from unimodal.connectors import CONNECTORS, load_connector
from unimodal.connectors.connector import TapLayer
from unimodal.denoisers import DENOISERS, load_denoiser
from unimodal.denoisers.denoiser import Latents
from unimodal.errors import UserError, nearest
from unimodal.model.config import DropTable, Sampling, Strict, Times

Reference = Literal["vlm", "vae_seq", "vae_channel", "dual"]
ReaderKind = Literal["unimodal", "transformers", "tokens"]


class ReaderNote(Strict):
    """Which reader: a model that is not saved with this one, but named, and known by a hash.

    kind    one of `unimodal.readers.READERS`
    name    a shipped model, a folder, or a hub id, as the recipe gave it
    nearby  that folder as seen from this model's; None for a shipped model and one of the hub
    sha256  of all that it reads by, see `unimodal.external.folder`; of `tokens`, of the tokenizer
    """

    kind: ReaderKind = "unimodal"
    name: str
    nearby: str | None = None
    sha256: str | None = None


class ConnectorConfig(Strict):
    """Which connector, which of the reader's hidden states it gets, and its own settings."""

    kind: str = "queries"
    tap_layer: TapLayer = -1
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _known(self) -> "ConnectorConfig":
        if self.kind not in CONNECTORS:
            hint = nearest(self.kind, CONNECTORS)
            raise ValueError(f"kind is {self.kind!r}{hint}; expected one of {', '.join(CONNECTORS)}")
        load_connector(self.kind).Options.model_validate(self.options)
        return self


class DenoiserConfig(Strict):
    """Which denoiser, and its own settings."""

    kind: str = "dit"
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _known(self) -> "DenoiserConfig":
        if self.kind not in DENOISERS:
            hint = nearest(self.kind, DENOISERS)
            raise ValueError(f"kind is {self.kind!r}{hint}; expected one of {', '.join(DENOISERS)}")
        load_denoiser(self.kind).Options.model_validate(self.options)
        return self


class ExternalConfig(Strict):
    """Reader, connector and denoiser, and the nulls they were trained with.

    reference  how a picture that is to be edited, the last of the conversation, reaches the denoiser: through
               the reader (`vlm`), as tokens of its latents (`vae_seq`), as channels (`vae_channel`), or both
               through the reader and as tokens (`dual`)
    plans      whether what is said before a picture, in its own turn, is part of its prompt: the reader then
               writes it before it draws (`tokens`, which cannot write, has it in captions to train on alone);
               else it is left out, in training as in drawing
    null       what stands in the place of a dropped condition: nothing; the reader reads what is left
    """

    model_type: Literal["external"] = "external"
    reader: ReaderNote
    connector: ConnectorConfig = ConnectorConfig()
    denoiser: DenoiserConfig = DenoiserConfig()
    reference: Reference = "dual"
    plans: bool = False
    image_size: int = Field(64, gt=0)
    times: Times = Times()
    sampling: Sampling = Sampling()
    drop: DropTable = DropTable()
    null: Literal["removed"] = "removed"

    @property
    def latents(self) -> Latents:
        """How the denoiser gets the reference's latents."""
        return {"vlm": "none", "dual": "vae_seq"}.get(self.reference, self.reference)

    @property
    def reader_sees(self) -> bool:
        """Whether the reader sees pictures, or only reads the words around them."""
        return self.reference in ("vlm", "dual")

    def save(self, folder: Path) -> None:
        """Write `config.json`."""
        (folder / "config.json").write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "ExternalConfig":
        """Read `config.json`; UserError if it is missing or does not fit this version."""
        file = folder / "config.json"
        if not file.is_file():
            raise UserError(f"{folder} is not a model folder: it has no config.json.")
        try:
            return cls.model_validate(json.loads(file.read_text(encoding="utf-8")))
        except (ValidationError, ValueError) as error:
            raise UserError(f"{file} does not describe an external model: {error}") from error
