"""The rows that a recipe names, before anything is trained: are they there, right, short enough, learned?"""

from pathlib import Path

from omegaconf import OmegaConf

from unimodal.commands.recipes import rows_maker
from unimodal.data.check import check_lengths, check_sources, listed, rows_beyond
from unimodal.errors import UserError
from unimodal.sequence.room import LIMITED
from unimodal.training.config import Recipe, SourceSection
from unimodal.training.trainee import Trainee


def check_rows(recipe: Recipe) -> None:
    """Raise UserError for a file that is not there, by its key in the recipe, and for rows that are wrong."""
    for section in ("sources", "eval_sources"):
        for number, source in enumerate(getattr(recipe.data, section)):
            if source.path:
                _check_there(Path(source.path), source.image_root, f"data.{section}[{number}]")
    check_sources(recipe.data.files())


def check_rows_fit(trainee: Trainee, recipe: Recipe) -> None:
    """Raise UserError that names every row of the recipe's files that no pack, or the model, can hold."""
    if hasattr(trainee, "room"):
        check_lengths(recipe.data.files(), trainee.room(), recipe.data.tokens)
        if trainee.limit is not None:
            _check_reach(trainee, recipe)


def _check_reach(trainee: Trainee, recipe: Recipe) -> None:
    """Pictures take fewer rotary positions than they fill of a pack, so these are measured apart."""
    if long := rows_beyond(recipe.data.files(), trainee.farther(), trainee.limit):
        what = f"the {trainee.limit} rotary positions that this model takes ({LIMITED})"
        raise UserError(f"{listed(long, what)}\nSplit or remove these rows. Nothing was trained.")


def check_rows_are_learned(recipe: Recipe, checkpoint: Path | None, over: bool) -> None:
    """Raise UserError if a run that is `over` goes on from a checkpoint that was trained on other sources."""
    if checkpoint is None or not over:
        return
    before = OmegaConf.load(checkpoint / "model" / "recipe.yaml")
    sources = OmegaConf.to_container(before).get("data", {}).get("sources", [])
    if [SourceSection(**source) for source in sources] == recipe.data.sources:
        return
    now = recipe.data.model_dump()["sources"]
    raise UserError(
        f"{checkpoint} has no step left to train, and data.sources are others than it was trained on "
        f"({_named(sources)}): nothing would be learned of {_named(now)}. Give "
        "another output.dir to train on them from the beginning, more train.steps to go on with them, or the "
        "old sources."
    )


def _named(sources: list[dict]) -> str:
    return ", ".join(source.get("path") or source["source"] for source in sources) or "none"


def _check_there(path: Path, image_root: str | None, key: str) -> None:
    if not path.exists():
        command = rows_maker(path)
        mend = f"{command} makes it" if command else "name a JSONL or parquet file of rows"
        place = "" if path.is_absolute() else f" in {Path.cwd()}"
        raise UserError(f"{key}.path: there is no file {path}{place}; {mend}.")
    if image_root is not None and not Path(image_root).is_dir():
        raise UserError(
            f"{key}.image_root: {image_root} is no folder; name the one that the image paths of {path} start "
            "from, or leave it out if that is the file's own."
        )
