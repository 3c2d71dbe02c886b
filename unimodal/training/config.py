"""Recipes: the typed, documented configuration of a training run.

A recipe is a YAML file with four sections (`model`, `data`, `train`, `output`); command-line overrides
are merged into it by OmegaConf and the result is checked by pydantic.  Names are those of Hugging Face's
TrainingArguments where one exists.  Which fields `model` has depends on its `kind`.
"""

from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Generic, Literal, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from yaml import YAMLError

from unimodal.errors import UserError
from unimodal.training.complaints import sentences

# kind -> where its section lives; a section has `build(recipe) -> Trainee`.  Imported when asked for.
KINDS = {
    "unified": "unimodal.training.unified:UnifiedModelSection",
    "codec": "unimodal.training.codec:CodecModelSection",
    "external": "unimodal.training.external:ExternalModelSection",
}


class Section(BaseModel):
    """A part of a recipe.  An unknown key is an error."""

    model_config = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)


class SourceSection(Section):
    """Where rows come from: a file (`path`) or a generator that runs while training (`source`)."""

    source: str | None = None  # name of a live source, as `shapes`
    split: str = "train"  # of the live source
    seed: int = 1  # of the live source
    tasks: dict[str, float] | None = None  # share of each task of the live source; null: the source's own
    reasons: bool | None = None  # of the live source: replies say what they follow from; null: its own habit
    path: str | None = None  # JSONL or parquet
    image_root: str | None = None  # what image paths are relative to; null: the folder of `path`
    weight: float = Field(1.0, gt=0)  # share of documents in the mixture, relative to the other sources

    @model_validator(mode="after")
    def _one_origin(self) -> "SourceSection":
        if (self.source is None) == (self.path is None):
            raise ValueError("a source needs either `source` (a live one by name) or `path` (a file)")
        if self.path and (self.tasks or self.reasons is not None):
            raise ValueError("`tasks` and `reasons` are of live sources; a file's rows are what they are")
        return self


class DataSection(Section):
    """The mixture of rows, and how much of it goes into one micro-batch."""

    sources: list[SourceSection] = Field(default_factory=list)
    eval_sources: list[SourceSection] = Field(default_factory=list)  # held-out rows; see train.eval_steps
    eval_rows: int = Field(256, gt=0)  # how many of them an evaluation takes, the same each time
    tokens: int = Field(4096, gt=0)  # positions of one pack
    workers: int = Field(1, ge=0)  # background processes an accelerator; 0: in the training process
    seed: int = 0  # of the order of rows
    first_row: int = Field(0, ge=0)  # to begin with: a run that goes on from another one reads on

    def files(self) -> list[tuple[str, str | None]]:
        """Every file of rows, and what its image paths are relative to."""
        return [(s.path, s.image_root) for s in (*self.sources, *self.eval_sources) if s.path]


class TrainSection(Section):
    """The optimisation."""

    steps: int | None = Field(None, gt=0)  # optimizer steps of the whole run
    flops: float | None = Field(None, gt=0)  # instead: as many steps as so many operations pay for
    seed: int = 0  # of the initial weights and of all noise
    gradient_accumulation_steps: int = Field(1, gt=0)  # micro-batches an optimizer step
    optimizer: Literal["adamw", "muon"] = "adamw"  # muon: for block matrices, AdamW for the rest
    learning_rate: float = Field(1e-3, gt=0)  # of AdamW
    muon_learning_rate: float = Field(0.02, gt=0)
    lr_scheduler_type: Literal["cosine", "constant", "warmup_stable_decay"] = "cosine"
    warmup_steps: int = Field(0, ge=0)
    decay_steps: int = Field(0, ge=0)  # of warmup_stable_decay: how many of the last steps go down to 0
    adam_beta1: float = Field(0.9, ge=0, lt=1)
    adam_beta2: float = Field(0.95, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)  # of matrices only
    max_grad_norm: float | None = Field(1.0, gt=0)  # null: no clipping
    returns: int = Field(0, ge=0)  # to the last checkpoint, when a loss derails; 0: the run stops instead
    spike: float | None = Field(None, gt=1)  # derails too: so many times the median of recent losses
    ema_decay: float | None = Field(0.999, ge=0, lt=1)  # null: no average, the live weights are saved
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # of activations; weights are kept in fp32
    attention: Literal["auto", "naive", "sdpa", "flex", "flash"] = "auto"  # who computes it; auto: by device
    gradient_checkpointing: bool = False
    threads: int | None = Field(None, gt=0)  # CPU threads; null: PyTorch's choice
    logging_steps: int = Field(10, gt=0)
    save_steps: int = Field(500, gt=0)
    save_total_limit: int | None = Field(2, gt=0)  # checkpoints kept; null: all
    sample_steps: int | None = Field(None, gt=0)  # null: no sample sheets
    eval_steps: int | None = Field(None, gt=0)  # steps between evaluations on data.eval_sources; null: none
    metric_for_best_model: str = "eval_loss"  # or eval_loss_<name>; its best checkpoint is kept
    load_best_model_at_end: bool = False  # false: the model is that of the last step
    early_stopping_patience: int | None = Field(None, gt=0)  # evaluations without a better one; null: go on
    resume: str | None = None  # `auto`: the newest checkpoint of output.dir; or a checkpoint's path

    @model_validator(mode="after")
    def _one_length_one_schedule(self) -> "TrainSection":
        stable = self.lr_scheduler_type == "warmup_stable_decay"
        if stable != bool(self.decay_steps):
            raise ValueError("`decay_steps` and lr_scheduler_type `warmup_stable_decay` need each other")
        if (self.steps is None) == (self.flops is None):
            raise ValueError("how long to train is said by either `steps` or `flops`")
        if self.steps and self.decay_steps and self.warmup_steps + self.decay_steps > self.steps:
            raise ValueError("`warmup_steps` and `decay_steps` are more than `steps` together")
        return self

    @model_validator(mode="after")
    def _evaluated(self) -> "TrainSection":
        if self.eval_steps is None and (self.load_best_model_at_end or self.early_stopping_patience):
            raise ValueError("`load_best_model_at_end` and `early_stopping_patience` need `eval_steps`")
        if self.spike is not None and not self.returns:
            raise ValueError("`spike` says when to go back to a checkpoint; it needs `returns` above 0")
        return self


class OutputSection(Section):
    """Where everything goes."""

    dir: Path
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"  # of the saved model; resume is exact anyway
    tensorboard: bool = False


ModelSection = TypeVar("ModelSection", bound=BaseModel)


class Recipe(Section, Generic[ModelSection]):
    """A whole run.  Paths are relative to the working directory."""

    model: ModelSection
    data: DataSection = Field(default_factory=DataSection)
    train: TrainSection
    output: OutputSection

    @model_validator(mode="after")
    def _held_out(self) -> "Recipe":
        if bool(self.data.eval_sources) != bool(self.train.eval_steps):
            raise ValueError("`data.eval_sources` and `train.eval_steps` need each other")
        return self

    def to_yaml(self) -> str:
        """The resolved recipe, every default written out; `load_recipe` reads it back.

        A model that begins as another one takes from it what the recipe does not say: there no default is
        in force, so none is written.
        """
        resolved = self.model_dump(mode="json", serialize_as_any=True)
        if getattr(self.model, "init_from", None):
            said = self.model.model_fields_set | {"kind"}
            resolved["model"] = {key: value for key, value in resolved["model"].items() if key in said}
        return OmegaConf.to_yaml(OmegaConf.create(resolved))


def changes(before: str, after: str) -> list[str]:
    """What differs between two resolved recipes in YAML, as `section.key: old -> new`."""
    old, new = (_flat(OmegaConf.to_container(OmegaConf.create(text))) for text in (before, after))
    keys = sorted(old.keys() | new.keys())
    return [f"{k}: {old.get(k)} -> {new.get(k)}" for k in keys if old.get(k) != new.get(k)]


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {k: v for key, sub in tree.items() for k, v in _flat(sub, f"{prefix}.{key}".lstrip(".")).items()}


def _section_of(kind: Any, where: str) -> type[BaseModel]:
    if not isinstance(kind, str) or kind not in KINDS:
        raise UserError(f"{where}: model.kind is {kind!r}; expected one of {', '.join(sorted(KINDS))}.")
    return resolve_name(KINDS[kind])


def parse_recipe(raw: dict[str, Any], where: str, overrides: list[str] | None = None) -> Recipe:
    """Check a plain dict.  `where` (the file) and the overrides are named in errors."""
    model = raw.get("model")
    if not isinstance(model, dict):
        raise UserError(
            f"{where}: the section `model` is missing or not a mapping; see recipes/ for examples."
        )
    section = _section_of(model.get("kind", "unified"), where)
    try:
        return Recipe[section].model_validate(raw)  # type: ignore[valid-type]
    except ValidationError as error:
        raise UserError(sentences(error, Recipe[section], where, overrides or [])) from None


def load_recipe(path: str | Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe file, merge overrides such as `train.steps=10`, and check it.

    Raises UserError naming file, full dotted key and what was expected.
    """
    path = Path(path)
    overrides = list(overrides or [])
    if not path.is_file():
        raise UserError(f"Recipe {path} does not exist; `unimodal recipes ls` names those that are shipped.")
    for override in overrides:
        if "=" not in override:
            raise UserError(
                f"Override {override!r} has no `=`; expected section.key=value, as train.steps=10."
            )
    try:
        config = OmegaConf.load(path)
        config.merge_with_dotlist(overrides)
        raw = OmegaConf.to_container(config, resolve=True)
    except (OmegaConfBaseException, YAMLError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path} cannot be read as a recipe: {error}") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path}: a recipe is a mapping of the sections model, data, train and output.")
    return parse_recipe(raw, str(path), overrides)
