"""What a comparison's file says: entrants, what is held equal, budgets, and the judge.

Entrants are recipes.  Rows and their order are always the comparison's own; beside them either training
FLOPs, training seconds or the number of trained parameters (then with as many steps) are held equal.
"""

import hashlib
from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import Field, ValidationError, model_validator
from yaml import YAMLError

from unimodal.commands.recipes import find_recipe, maker
from unimodal.errors import UserError, nearest
from unimodal.training.complaints import sentences
from unimodal.training.config import DataSection, Recipe, Section, load_recipe

Equal = Literal["flops", "seconds", "parameters"]
SEEDS_AT_FULL = 2  # one training run says little about the next
# What is the comparison's alone: keys that an entrant cannot have, and those of a recipe that it decides.
SHARED = ("judge", "split", "seed", "seeds", "n", "data", "image_size", "equal", "amount", "budgets")
FIXED = ("seed", "steps", "flops", "resume", "sample_steps")
DECIDED = ("data", "output.dir", *(f"train.{key}" for key in FIXED))


def key_of(override: str) -> str:
    """The key that `section.key=value` sets.  Raises ValueError if it has no value."""
    key, equals, _ = override.partition("=")
    if not equals:
        raise ValueError(f"override {override!r} has no `=`; expected section.key=value")
    return key


def _refuse_decided(overrides: list[str]) -> None:
    for override in overrides:
        key = key_of(override)
        if key in ("train", "output") or any(f"{key}.".startswith(f"{decided}.") for decided in DECIDED):
            raise ValueError(
                f"override {override!r}: rows, seeds, lengths and folders of runs are the comparison's, the "
                "same for all entrants. Remove it"
            )


class Then(Section):
    """A second stage of an entrant, which goes on from the model of the first."""

    share: float = Field(0.5, gt=0, lt=1)  # of the entrant's budget; the first stage has the rest
    overrides: list[str] = Field(default_factory=list)  # section.key=value, beside those of the first

    @model_validator(mode="after")
    def _trains_otherwise(self) -> "Then":
        from unimodal.training.external import PARTS

        _refuse_decided(self.overrides)
        for override in self.overrides:
            key = key_of(override)
            section, _, rest = key.partition(".")
            if section not in ("train", "model"):
                raise ValueError(f"override {override!r}: a second stage changes train.* and model.* alone")
            if section == "model" and rest.split(".")[0] in ("", "drop", "kind", "init_from", *PARTS):
                raise ValueError(
                    f"override {override!r}: a second stage goes on with the model of the first, its parts "
                    "and what it drops included. Set it in the entrant's own overrides"
                )
        return self


class Entrant(Section):
    """One model to be: a recipe, and what it changes in it."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    family: Literal["integrated", "external"]
    recipe: str  # a file, relative to the comparison's own folder, or the name of a shipped recipe
    overrides: list[str] = Field(default_factory=list)  # section.key=value
    then: Then | None = None  # of an external model: first its connector, then its denoiser too
    reader: str | None = None  # whose understanding it must not lose; null: that of the comparison's reader
    codec: Literal["same", "own"] = "same"  # own: of its kind, and not to be that of the others

    @model_validator(mode="before")
    @classmethod
    def _judged_alike(cls, said: Any) -> Any:
        for key in SHARED if isinstance(said, dict) else ():
            if key in said:
                raise ValueError(
                    f"entrant {said.get('name')} sets `{key}`, but data, prompts, seeds, budget and judge "
                    "are the comparison's, the same for all. Remove it: `split` and `seed` stand at the top "
                    "of the file, `n` and `seeds` in its budgets"
                )
        return said

    @model_validator(mode="after")
    def _trained_alike(self) -> "Entrant":
        _refuse_decided(self.overrides)
        return self


class Budget(Section):
    """How much of what is held equal each entrant gets, for each seed."""

    amount: float = Field(gt=0)  # FLOPs, seconds, or steps where parameters are held equal
    seeds: int = Field(1, gt=0)  # training runs an entrant
    n: int = Field(16, gt=0)  # prompts of each kind


class Comparison(Section):
    """A comparison's file."""

    title: str
    equal: Equal
    budgets: dict[str, Budget] = Field(min_length=1)
    data: DataSection  # the rows of all entrants, in the same order
    image_size: int = Field(64, gt=0)
    split: str = "val"
    seed: int = 0  # of the prompts, and of all chance in answering them
    reader: str | None = None  # the model whose understanding an entrant must not lose
    entrants: list[Entrant] = Field(min_length=2)
    pairs: list[tuple[str, str]] | None = None  # to be tested, the second against the first; null: all

    @model_validator(mode="after")
    def _sound(self) -> "Comparison":
        names = [entrant.name for entrant in self.entrants]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two entrants are named {twice[0]!r}")
        alone = [entrant.name for entrant in self.entrants if entrant.reader and not self.reader]
        if alone:
            raise ValueError(f"entrant {alone[0]} names a reader, but the comparison itself has no `reader`")
        for pair in self.pairs or ():
            if unknown := sorted({*pair} - {*names}):
                raise ValueError(f"pairs: no entrant is named {unknown[0]!r}{nearest(unknown[0], names)}")
            if pair[0] == pair[1]:
                raise ValueError(f"pairs: {pair[0]!r} is paired with itself")
        full = self.budgets.get("full")
        if full and full.seeds < SEEDS_AT_FULL:
            raise ValueError(f"budgets.full.seeds is {full.seeds}; expected at least {SEEDS_AT_FULL}")
        return self


def load_comparison(path: Path) -> Comparison:
    """Read and check a comparison's file.  Raises UserError naming file, key and what was expected."""
    if not path.is_file():
        raise UserError(
            f"Comparison {path} does not exist; `unimodal recipes ls` names those that are shipped."
        )
    try:
        raw = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except (OmegaConfBaseException, YAMLError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path} cannot be read as a comparison: {error}") from None
    if not isinstance(raw, dict) or "entrants" not in raw:
        raise UserError(f"{path}: expected a comparison, a mapping with `entrants`, `equal` and `budgets`.")
    try:
        return Comparison.model_validate(raw)
    except ValidationError as error:
        raise UserError(sentences(error, Comparison, str(path), [])) from None


def budget_of(comparison: Comparison, name: str, where: Path) -> Budget:
    """The budget of that name.  Raises UserError if the file has none."""
    if name not in comparison.budgets:
        known = ", ".join(comparison.budgets)
        raise UserError(f"{where}: no budget {name!r}{nearest(name, comparison.budgets)}; it has {known}.")
    return comparison.budgets[name]


def recipe_of(comparison: Comparison, entrant: Entrant, where: Path, seed: int, output: Path) -> Recipe:
    """The entrant's recipe on the comparison's rows, with this training seed and output folder.

    Raises UserError if the recipe is missing or wrong, or if something it starts from is not there.
    """
    beside = where.parent / entrant.recipe
    path = beside if beside.is_file() else find_recipe(entrant.recipe)
    fixed = [f"train.seed={seed}", "train.resume=auto", "train.sample_steps=null", f"output.dir={output}"]
    recipe = load_recipe(path, [*entrant.overrides, *fixed])
    recipe.data = comparison.data
    model = recipe.model
    outside = getattr(model, "kind", "unified") == "external"
    if outside != (entrant.family == "external"):
        raise UserError(
            f"{where}: entrant {entrant.name} is said to be {entrant.family}, but {path} makes one of kind "
            f"{getattr(model, 'kind', 'unified')}. Change one of them."
        )
    for key, source in parts_of(recipe).items():
        check_there(source, f"{where}: entrant {entrant.name}, model.{key}")
    if outside:
        _check_reader(comparison, entrant, recipe, f"{where}: entrant {entrant.name}")
    size = getattr(model, "image_size", None)
    if size not in (None, comparison.image_size) and not getattr(model, "init_from", None):
        raise UserError(
            f"{where}: entrant {entrant.name} draws pictures of {size} pixels, the comparison is about "
            f"{comparison.image_size}. Set model.image_size in its overrides."
        )
    return recipe


def _check_reader(comparison: Comparison, entrant: Entrant, recipe: Recipe, what: str) -> None:
    """Refuse an external entrant with another reader than the model its understanding is compared with."""
    from unimodal.external.config import ExternalConfig
    from unimodal.model.folder import find_model

    parts, wanted = parts_of(recipe), entrant.reader or comparison.reader
    has = parts.get("reader")
    if has is None and "init_from" in parts:
        has = ExternalConfig.load(find_model(parts["init_from"])).reader.name
    if wanted and has and has != wanted and Path(has).resolve() != Path(wanted).resolve():
        raise UserError(
            f"{what}: its reader is {has}, but its understanding is compared with that of {wanted}. Add "
            f"model.reader.name={wanted} to its overrides, or give the entrant `reader: {has}`."
        )


def parts_of(recipe: Recipe) -> dict[str, str]:
    """What a recipe's model starts from, by key: names or folders of models, codecs, denoisers."""
    found = {
        key: getattr(recipe.model, key, None) for key in ("init_from", "reader", "codec", "denoiser_from")
    }
    found["reader"] = getattr(found["reader"], "name", found["reader"])
    return {key: source for key, source in found.items() if isinstance(source, str)}


def mark_of(source: str) -> str:
    """What tells whether a model, codec or denoiser was made anew since: a hash of its weights and settings.

    Of a hub id it is the id.
    """
    from unimodal.model.folder import SHIPPED

    folder = next((folder for folder in (Path(source), SHIPPED / source) if folder.is_dir()), None)
    if folder is None:
        return source
    digest = hashlib.sha256()
    for file in sorted(file for kind in ("safetensors", "json") for file in folder.rglob(f"*.{kind}")):
        digest.update(f"\n{file.relative_to(folder).as_posix()}\n".encode())
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()[:16]


def check_there(source: str, what: str) -> None:
    """Raise UserError, with the command that makes it if a shipped recipe does, unless `source` is there.

    What looks neither like a path nor like something that a recipe makes may be a shipped name or a hub id.
    """
    from unimodal.model.folder import SHIPPED

    path = Path(source)
    if path.exists() or (SHIPPED / source).exists():
        return
    command = maker(path)
    if command:
        raise UserError(f"{what}: {source} is missing; `{command}` makes it.")
    if path.is_absolute() or len(path.parts) > 2 or path.parts[0] in (".", ".."):
        raise UserError(f"{what}: {source} is missing, and no shipped recipe makes it.")
