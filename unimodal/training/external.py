"""The recipe section of an external model: reader, connector and denoiser, and which of them is trained."""

import logging
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, model_validator

from unimodal.adapters.section import Settings
from unimodal.errors import UserError
from unimodal.external.config import ConnectorConfig, DenoiserConfig, ExternalConfig, ReaderKind, Reference
from unimodal.external.folder import load_external, noted
from unimodal.external.model import ExternalModel, same_weights
from unimodal.generation.settings import check_guidance
from unimodal.images.folder import load_codec
from unimodal.model.config import DropTable, Sampling, Strict, Times
from unimodal.model.folder import find_model, model_type
from unimodal.pretrained.checkpoint import read_json
from unimodal.readers import open_reader
from unimodal.readers.reader import Reader
from unimodal.training.config import Recipe
from unimodal.training.external_trainee import ExternalTrainee
from unimodal.training.frozen import check_frozen
from unimodal.training.unified import mixture_of

log = logging.getLogger("unimodal")

PARTS = ("reader", "codec", "connector", "denoiser", "reference", "plans", "denoiser_from")


class ReaderSection(Strict):
    """The frozen model that understands: its kind, and a shipped model's name, a folder, or a hub id.

    `tokens` is none: only the tokenizer of a model's folder, for a denoiser with a text encoder of its own.
    """

    kind: ReaderKind = "unimodal"
    name: str


class ExternalLossWeights(Strict):
    """Weights of the losses in the total; `embedding` is that of the connector `prefilled`."""

    image: float = Field(1.0, ge=0)
    embedding: float = Field(1.0, ge=0)


class ExternalModelSection(Strict):
    """An external model: its parts (see ExternalConfig), and what of them is trained.

    A part that is null is as if it were not said.
    """

    kind: Literal["external"]
    init_from: str | None = None  # an external model to go on from; its parts then are the parts
    reader: ReaderSection | None = None
    codec: str | None = None  # folder or id of a continuous codec; null: that in the reader's folder
    connector: ConnectorConfig = ConnectorConfig()
    denoiser: DenoiserConfig = DenoiserConfig()
    denoiser_from: str | None = None  # whose denoiser to start from: an external model, or a diffusers folder
    reference: Reference = "dual"
    plans: bool | None = None  # draw from what is said before a picture too; null: if the reader says it
    trained: tuple[Literal["connector", "denoiser"], ...] = ("connector", "denoiser")  # the other is frozen
    cache: Path | None = None  # keeps what the reader makes of each prompt; null: it reads every time
    changed_area: bool = False  # what an edit changes counts more than what it leaves (external.changes)
    image_size: int = Field(64, gt=0)  # longest side of a document's largest picture, in pixels
    times: Times = Times()
    sampling: Sampling = Sampling()
    drop: DropTable = DropTable()
    batch_size: int = Field(16, gt=0)  # pictures of a micro-batch
    loss: ExternalLossWeights = ExternalLossWeights()

    @model_validator(mode="before")
    @classmethod
    def _null_is_unset(cls, said: Any) -> Any:
        """A recipe's parts can be taken back by an override, as init_from needs."""
        if not isinstance(said, dict):
            return said
        return {key: value for key, value in said.items() if value is not None or key not in PARTS}

    def build(self, recipe: Recipe, checkpoint: Path | None = None) -> ExternalTrainee:
        """The model, its data and its losses.  Raises UserError if they do not go together."""
        mixture = mixture_of(recipe.data)
        model = self._begun() if self.init_from else self._new()
        if checkpoint:
            before = ExternalConfig.load(checkpoint / "model").reader
            if before.sha256 != model.config.reader.sha256:
                raise UserError(
                    f"model.reader: {model.config.reader.name} has other weights, or another tokenizer, "
                    f"template or processor, than when {checkpoint} was written. Bring the old ones back, or "
                    "start anew with another output.dir."
                )
        if not self.trained:
            raise UserError("model.trained is empty; name connector, denoiser or both.")
        for part in ("connector", "denoiser"):
            getattr(model, part).requires_grad_(part in self.trained)
        if "connector" in self.trained and hasattr(model.denoiser, "pool"):
            model.denoiser.pool.requires_grad_(True)  # new beside pretrained weights, it translates too
        if checkpoint:
            check_frozen(model, checkpoint)
        if recipe.train.sample_steps:
            check_guidance(model.config.sampling, model.config.drop)
        model.changed_area = self.changed_area
        if self.cache is not None:
            model.keep_conditions(self.cache)
        dtype = getattr(torch, recipe.output.dtype)
        weights = self.loss.model_dump()
        return ExternalTrainee(model.train(), mixture, self.batch_size, weights, recipe.data.seed, dtype)

    def _new(self) -> ExternalModel:
        if self.reader is None:
            raise UserError(
                "model.reader is missing: an external model that starts from nothing needs a model that reads"
            )
        note, folder = noted(self.reader.kind, self.reader.name)
        own = self.reader.kind != "transformers" and (folder / "codec").is_dir()
        if self.codec is None and not own:
            raise UserError(
                f"model.codec is missing: {self.reader.name} has none, so name one for the denoiser to use"
            )
        reader = open_reader(note.kind)(folder)
        fields = {name: getattr(self, name) for name in ExternalConfig.model_fields if hasattr(self, name)}
        fields |= {"reader": note, "denoiser": self._shaped(), "plans": self._plans(reader)}
        model = ExternalModel(ExternalConfig(**fields), reader, load_codec(self.codec or folder / "codec"))
        if self.denoiser_from:
            self._take_denoiser(model)
        return model

    def _plans(self, reader: Reader) -> bool:
        """Whether pictures are drawn from what is said before them.  UserError if the reader says nothing.

        One that does not write at all (`tokens`) draws from captions, by whomever.
        """
        if self.plans and reader.writes and not reader.writing.plan:
            raise UserError(
                f"model.plans: the reader {self.reader.name} writes nothing before a picture "
                "(writing.plan is 0), so there would be a plan in training alone. Leave model.plans out."
            )
        return reader.writing.plan > 0 if self.plans is None else self.plans

    def _diffusers(self) -> Path | None:
        """The folder of `denoiser_from`, if it is one of diffusers."""
        folder = Path(self.denoiser_from or "")
        if not self.denoiser_from or not (folder / "config.json").is_file():
            return None
        return folder if "_class_name" in read_json(folder / "config.json") else None

    def _shaped(self) -> DenoiserConfig:
        """The denoiser's configuration, to which a folder of diffusers brings its transformer's shape."""
        folder, options = self._diffusers(), self.denoiser.options
        if folder is None or options.get("config"):
            return self.denoiser
        return DenoiserConfig(
            kind=self.denoiser.kind, options=options | {"config": read_json(folder / "config.json")}
        )

    def _take_denoiser(self, model: ExternalModel) -> None:
        """Start from another model's denoiser, which was trained with another reader or connector."""
        if (folder := self._diffusers()) is not None:
            if not hasattr(model.denoiser, "take"):
                raise UserError(
                    f"model.denoiser_from: {folder} is of diffusers; expected model.denoiser.kind "
                    f"to be one of those, not {self.denoiser.kind}."
                )
            if model.config.latents == "vae_channel" and "denoiser" not in self.trained:
                raise UserError(
                    f"model.reference is vae_channel, but {folder} has no channels for a picture to edit: "
                    "they begin at zero, and with model.trained=[connector] they would stay so. Train the "
                    "denoiser too, or set model.reference=vlm."
                )
            model.denoiser.take(folder)
            if not model.denoiser.normalises and "scale" not in self.denoiser.options:
                log.warning(
                    "model.denoiser.options.scale is not set: conditions begin at a size of 1 (RMS), and "
                    "%s does not normalise them. Set it to that of the text encoder's states that %s was "
                    "trained with, so that it hears the connector as loud as it is used to.",
                    self.denoiser.kind,
                    folder,
                )
            return
        other = load_external(_external(self.denoiser_from, "denoiser_from"))
        if other.config.denoiser != model.config.denoiser or other.config.latents != model.config.latents:
            raise UserError(
                f"model.denoiser_from: {self.denoiser_from} has the denoiser {other.config.denoiser} with "
                f"reference {other.config.reference}; expected that of this recipe, {self.denoiser} with "
                f"{self.reference}. Make them alike."
            )
        if not same_weights(other.codec, model.codec):
            raise UserError(
                f"model.denoiser_from: {self.denoiser_from} draws in the latents of another codec. Give its "
                "codec as model.codec."
            )
        model.denoiser.load_state_dict(other.denoiser.state_dict())
        # The size of each channel of the conditions that it was trained with.
        model.connector.norm.load_state_dict(other.connector.norm.state_dict())

    def _begun(self) -> ExternalModel:
        """The model of init_from, with the settings that the recipe sets."""
        if said := [name for name in PARTS if name in self.model_fields_set]:
            raise UserError(
                f"model.{said[0]} and model.init_from exclude each other: {self.init_from} brings its own "
                "parts. Remove one of them."
            )
        model = load_external(_external(self.init_from, "init_from"))
        changed = {n: getattr(self, n) for n in Settings.model_fields if n in self.model_fields_set}
        model.configure(model.config.model_copy(update=changed))
        return model


def _external(name: str, key: str) -> Path:
    folder = find_model(name)
    if model_type(folder) != "external":
        raise UserError(f"model.{key}: {folder} is no external model; expected a folder that a recipe made.")
    return folder
