"""The recipe section of the unified model: its shape, and what it starts from."""

from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, model_validator

from unimodal.adapters.base import Note, identity, is_adapter, read_note
from unimodal.adapters.section import LoraSection, Settings, apply_settings
from unimodal.data.document import Text
from unimodal.data.mixture import Mixture
from unimodal.data.source import FileSource, Source, live_source
from unimodal.errors import UserError
from unimodal.generation.settings import check_guidance
from unimodal.images.folder import load_codec
from unimodal.model.change_path import PATH, with_path
from unimodal.model.config import MaskedText, ModelConfig, Strict, check_options
from unimodal.model.experts import Part, copy_text_expert, freeze, with_image_expert
from unimodal.model.folder import find_model, load_model
from unimodal.model.unified import UnifiedModel
from unimodal.sequence.tokenizer import Tokenizer, train_tokenizer
from unimodal.training.codec_swap import fitting
from unimodal.training.config import DataSection, Recipe, SourceSection
from unimodal.training.frozen import check_frozen
from unimodal.training.trainee import Trainee
from unimodal.training.unified_trainee import UnifiedTrainee

TOKENIZER_DOCUMENTS = 5000
# What a recipe may change in a model it starts from; everything else is the shape of its weights.
CHANGEABLE = {*Settings.model_fields, *PATH}


class LossWeights(Strict):
    """Weights of the losses in the total; `codec` counts only with `train_codec`."""

    text: float = Field(1.0, ge=0)
    image: float = Field(1.0, ge=0)
    codec: float = Field(1.0, ge=0)


class UnifiedModelSection(ModelConfig):
    """One decoder for text and images: its shape (see ModelConfig), and what it starts from."""

    kind: Literal["unified"] = "unified"
    init_from: str | None = None  # a model to start from; its shape then is the model's shape
    codec: str | None = None  # folder, id, or a shipped model whose codec it is; null: that of init_from
    train_codec: bool = False  # go on training the codec, on reconstruction, beside the model
    tokenizer: str | None = None  # folder, without init_from, which brings its own; null: trained on the data
    loss: LossWeights = Field(default_factory=LossWeights)
    freeze: list[Part] = Field(default_factory=list)  # parts that are not trained (see model/experts.py)
    lora: LoraSection | None = None  # train an adapter of init_from; null: its weights themselves

    @model_validator(mode="after")
    def _path(self) -> "UnifiedModelSection":
        if self.init_from and ("path" not in self.model_fields_set or None in self.path_options.values()):
            return self  # they change the options of a model that is not known yet
        return super()._path()

    def build(self, recipe: Recipe, checkpoint: Path | None = None) -> Trainee:
        """The model, its data and its losses.

        A resumed run keeps the tokenizer of its checkpoint: trained anew on data that have changed since,
        it would give other numbers to the tokens whose embeddings are resumed.
        """
        mixture, held = mixture_of(recipe.data), held_out_of(recipe.data)
        adapter = None
        if self.lora:
            self._check_lora()
        if self.init_from and self.tokenizer:
            raise UserError(
                "model.tokenizer and model.init_from exclude each other: weights know the tokens of their "
                "own tokenizer. Leave model.tokenizer out."
            )
        if self.init_from:
            folder = self._base()
            model, tokenizer = load_model(folder)
            if self.experts == "mot" and model.config.experts == "shared" and not self.lora:
                model = with_image_expert(model)
            codec = load_codec(self.codec) if self.codec else None
            config = self._changed(model.config)
            changed = {name for name in PATH if getattr(config, name) != getattr(model.config, name)}
            if codec and not changed & {"path", "patch_size"}:
                codec = fitting(codec, model)
            if codec or changed:
                model = with_path(model, config, codec)
            apply_settings(model, Settings.of(config))
        else:
            if not self.codec:
                raise UserError(
                    "model.codec is missing: a model that starts from nothing needs a codec folder"
                )
            if self.vision:
                raise UserError(
                    "model.vision is for a model that has a tower: make one with `unimodal init --vision`, "
                    "and name it in model.init_from"
                )
            tokenizer = Tokenizer.load(checkpoint / "model") if checkpoint else self._tokenizer(mixture)
            fields = {name: getattr(self, name) for name in ModelConfig.model_fields}
            config = ModelConfig(**fields | {"vocab_size": max(self.vocab_size, len(tokenizer))})
            model = UnifiedModel(config, load_codec(self.codec))
            if config.experts == "mot":
                copy_text_expert(model)
        if self.train_codec and model.codec.discrete:
            raise UserError(
                "model.train_codec is for codecs without codes: they would change under the model that says "
                "them. Train this one first, as recipes/codec/ does, and name it in model.codec."
            )
        self._check_idle(model)
        if recipe.train.sample_steps:
            check_guidance(model.config.sampling, model.config.drop)
        model.train().codec.requires_grad_(self.train_codec)
        freeze(model, self.freeze)
        if checkpoint and not self.lora:  # whose base is known by its hash
            check_frozen(model, checkpoint)
        if self.lora:
            adapter = self._adapt(model, folder, checkpoint, tokenizer.new_ids)
        return UnifiedTrainee(
            model,
            tokenizer,
            mixture,
            recipe.data,
            self.loss.model_dump(),
            self.train_codec,
            getattr(torch, recipe.output.dtype),
            adapter,
            held,
        )

    def _base(self) -> Path:
        """The folder of `init_from`."""
        folder = find_model(self.init_from)
        if is_adapter(folder):
            raise UserError(
                f"model.init_from: {folder} is an adapter, not a model. Merge it into its base first, with "
                "`unimodal export --merge`."
            )
        return folder

    def _check_idle(self, model: UnifiedModel) -> None:
        """Refuse settings that are given and would change nothing."""
        # A recipe that a run wrote down names defaults, too.
        given = {
            f"{section}.{name}"
            for section in ("times", "sampling")
            for name in getattr(self, section).model_dump(exclude_defaults=True)
        }
        for name in sorted(given & model.path.IDLE):
            raise UserError(
                f"model.{name} says nothing to the path {model.config.path}, which has no use for it. "
                "Leave it out; docs/paths.md has the settings of every path."
            )

    def _check_lora(self) -> None:
        """Refuse what an adapter cannot hold."""
        if not self.init_from:
            raise UserError("model.lora needs model.init_from: an adapter changes a model that is there")
        for name in ("codec", "train_codec"):
            if getattr(self, name):
                raise UserError(
                    f"model.{name} and model.lora exclude each other: an adapter holds no codec. Train the "
                    "codec first, as a model of its own, or leave one of the two out."
                )
        for name in self.model_fields_set & set(PATH):
            raise UserError(
                f"model.{name} and model.lora exclude each other: an adapter draws and writes as its base "
                "does. Leave one of the two out."
            )
        if self.freeze:
            raise UserError(
                "model.freeze and model.lora exclude each other: beside an adapter everything is frozen. "
                "Leave model.freeze out; model.lora.target says what the adapter changes."
            )

    def _adapt(self, model: UnifiedModel, folder: Path, checkpoint: Path | None, new_ids: list[int]) -> Note:
        """Put a new adapter into the model and give its note.  Refuses to resume on another base."""
        from unimodal.adapters.attached import Attached
        from unimodal.adapters.targets import lora_config

        note = Note(
            base=self.init_from,
            nearby=str(folder.resolve()) if Path(self.init_from).is_dir() else None,
            sha256=identity(folder),
            target=self.lora.target,
            settings=Settings.of(model.config),
        )
        if checkpoint and read_note(checkpoint / "model").sha256 != note.sha256:
            raise UserError(
                f"{folder} has other weights or tokens than when {checkpoint} was written: its adapter would "
                "not fit. Bring the old ones back, or start anew with another output.dir."
            )
        Attached(model, lora_config(model, self.lora, self.init_from, new_ids), self.lora.target)
        return note

    def _changed(self, config: ModelConfig) -> ModelConfig:
        """The loaded configuration with what the recipe sets; refuses what would not fit the weights."""
        said = {name: getattr(self, name) for name in self.model_fields_set & ModelConfig.model_fields.keys()}
        for name in said.keys() - CHANGEABLE:
            if said[name] != getattr(config, name):
                raise UserError(
                    f"model.{name} = {said[name]!r}, but {self.init_from} was made with "
                    f"{getattr(config, name)!r}. Leave it out: model.init_from brings its own shape."
                )
        if said.get("text_objective") == "next_token":
            said["masked_text"] = MaskedText()  # of no use now
        path, options = said.get("path", config.path), said.get("path_options", {})
        if path != config.path:
            said["path_options"] = options  # those of the old path mean nothing to the new one
        elif options:
            merged = config.path_options | options
            said["path_options"] = {name: value for name, value in merged.items() if value is not None}
            try:
                check_options(path, said["path_options"])
            except ValueError as error:
                raise UserError(
                    f"model.{error}. The path is {path}, that of {self.init_from}, whose options are "
                    f"{config.path_options}; null takes one of them back."
                ) from None
        return config.model_copy(update={name: said[name] for name in said.keys() & CHANGEABLE})

    def _tokenizer(self, mixture: Mixture) -> Tokenizer:
        if self.tokenizer:
            return Tokenizer.load(self.tokenizer)
        texts = (
            part.text
            for number in range(TOKENIZER_DOCUMENTS)
            for part in mixture.document(number).parts()
            if isinstance(part, Text)
        )
        return train_tokenizer(texts, self.vocab_size)


def mixture_of(data: DataSection) -> Mixture:
    """The mixture that the `data` section describes.  Raises UserError if it names no source."""
    if not data.sources:
        raise UserError(
            "data.sources is empty: name at least one, such as {source: shapes} or {path: rows.jsonl}"
        )
    return _mixture(data.sources, data.seed, data.first_row)


def held_out_of(data: DataSection) -> Mixture | None:
    """The mixture of held-out rows, if there are any."""
    return _mixture(data.eval_sources, data.seed) if data.eval_sources else None


def _mixture(sources: list[SourceSection], seed: int, first: int = 0) -> Mixture:
    return Mixture([_source(s) for s in sources], [s.weight for s in sources], seed, first=first)


def _source(section: SourceSection) -> Source:
    if section.path:
        return FileSource(section.path, section.image_root)
    options = {"tasks": section.tasks} if section.tasks else {}
    options |= {} if section.reasons is None else {"reasons": section.reasons}
    return live_source(section.source, section.split, section.seed, **options)
