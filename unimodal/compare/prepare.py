"""What `compare` does before any training: check everything, count, and write every entrant's folders."""

import re
import shutil
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unimodal.compare.entrant import WORDS, Job
from unimodal.compare.fairness import Facts, check_fair, facts_of, steps_of, with_steps
from unimodal.compare.kept import keep, read
from unimodal.compare.plan import Budget, Comparison, Entrant, mark_of, parts_of, recipe_of
from unimodal.compare.stages import FIRST, first_of, second_of
from unimodal.errors import UserError
from unimodal.training.config import Recipe

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Planned:
    """One run of an entrant: its folder, what is to be done there, and all that decides what comes of it."""

    place: Path
    recipe: Recipe
    job: Job
    plan: dict[str, Any]

    @property
    def there(self) -> bool:
        """Whether the folder is prepared for just this.  Raises UserError if for something else."""
        place = self.place
        if not (place / "plan.json").is_file():
            return False
        if read(place / "plan.json") == self.plan and read(place / "job.json") == self.job.as_dict():
            return True
        raise UserError(
            f"{place} belongs to a comparison with other settings, or what it starts from was trained anew "
            "since (see plan.json and job.json in it). Name another --out, or remove that folder to do the "
            "entrant again."
        )


def prepare(
    comparison: Comparison, share: Budget, path: Path, out: Path, say: Say
) -> tuple[dict[str, list[Path]], dict[str, str]]:
    """Check everything and write every entrant's folders.

    Returns the folders by entrant, a seed each, and why the other entrants cannot even be built.  What was
    counted before is not counted again.  Raises UserError for what the user has to mend.
    """
    runs = {entrant.name: _planned(comparison, entrant, share, path, out) for entrant in comparison.entrants}
    facts: dict[str, Facts] = {}
    failures: dict[str, str] = {}

    def tried(entrant: Entrant, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except UserError:
            raise
        except Exception as error:  # whatever it is, the others can go on without this entrant
            place = out / "entrants" / entrant.name
            place.mkdir(parents=True, exist_ok=True)
            (place / "prepare.log").write_text(traceback.format_exc(), encoding="utf-8")
            failures[entrant.name] = f"{type(error).__name__}: {error} ({place / 'prepare.log'} has the rest)"
            say(f"{entrant.name} failed: {failures[entrant.name]}")

    for entrant in comparison.entrants:
        if known := tried(entrant, lambda entrant=entrant: _facts(entrant, runs[entrant.name][0], say)):
            facts[entrant.name] = known
    check_fair(comparison, facts)
    for entrant in comparison.entrants:
        if entrant.name in facts:
            tried(
                entrant,
                lambda entrant=entrant: _write(
                    comparison, entrant, runs[entrant.name], share, facts[entrant.name], say
                ),
            )
    places = {name: [run.place for run in found] for name, found in runs.items() if name not in failures}
    return places, failures


def _planned(comparison: Comparison, entrant: Entrant, share: Budget, path: Path, out: Path) -> list[Planned]:
    """The runs of an entrant, one a seed."""
    found = []
    for seed in range(share.seeds):
        place = out / "entrants" / entrant.name / f"seed-{seed}"
        recipe = recipe_of(comparison, entrant, path, seed, place / "run")
        job = Job(
            entrant.name,
            entrant.family,
            seed,
            comparison.split,
            share.n,
            comparison.seed,
            parts=parts_of(recipe),
            pictures=str(out / "geneval" / entrant.name),
            sample=seed,
        )
        plan = {"equal": comparison.equal, "amount": share.amount, "recipe": recipe.to_yaml()}
        plan["parts"] = {key: mark_of(source) for key, source in job.parts.items()}
        if entrant.then:
            plan["then"] = entrant.then.model_dump(mode="json")
        found.append(Planned(place, recipe, job, plan))
    return found


def _facts(entrant: Entrant, run: Planned, say: Say) -> Facts:
    """Of the run, or of its second stage."""
    if run.there:
        return Facts(**read(run.place / "facts.json"))
    say(f"{entrant.name}: building it and counting what a step costs")
    facts = facts_of(second_of(run.recipe, entrant, None) if entrant.then else run.recipe)
    say(f"{entrant.name}: {facts.trained:,} trained parameters, {facts.step_flops:.3g} operations a step")
    return facts


def _write(
    comparison: Comparison, entrant: Entrant, runs: list[Planned], share: Budget, facts: Facts, say: Say
) -> None:
    """Write the folders that are not there yet."""
    steps: dict[str, int] = {}  # of each stage, the same for all seeds
    for run in runs:
        if not run.there:
            if comparison.equal == "seconds" and not steps:
                say(f"{entrant.name}: timing a few steps")
            _write_stages(comparison, entrant, run.recipe, share.amount, facts, steps)
            keep(run.place / "job.json", run.job.as_dict())
            keep(run.place / "plan.json", run.plan)  # the last one: with it the folder is whole


def _write_stages(
    comparison: Comparison,
    entrant: Entrant,
    recipe: Recipe,
    amount: float,
    facts: Facts,
    steps: dict[str, int],
) -> None:
    """Write the recipe of a run, or those of its two stages, with the steps that each gets.

    facts  of the run, or of its second stage;  steps  by stage, once known
    """
    place = recipe.output.dir.parent

    def write(folder: Path, stage: Recipe, known: Facts, share: float, alike: Recipe) -> None:
        which = FIRST if folder.name == FIRST else "last"
        if which not in steps:
            steps[which] = steps_of(comparison, entrant.name, alike, known, share * amount)
        folder.mkdir(parents=True, exist_ok=True)
        text = with_steps(stage, known, steps[which]).to_yaml()
        (folder / "recipe.yaml").write_text(text, encoding="utf-8")
        keep(folder / "facts.json", asdict(known))

    if not entrant.then:
        write(place, recipe, facts, 1.0, recipe)
        return
    first = first_of(recipe, place)
    write(place / FIRST, first, facts_of(first), 1 - entrant.then.share, first)
    begun = second_of(recipe, entrant, first.output.dir / "model")
    write(place, begun, facts, entrant.then.share, second_of(recipe, entrant, None))


def reader_jobs(comparison: Comparison, share: Budget, out: Path) -> dict[str, Path]:
    """By entrant, the folder of the job that judges the model whose understanding it must not lose."""
    places = {}
    for entrant in comparison.entrants:
        reader = entrant.reader or comparison.reader
        place = out / "readers" / re.sub(r"[^A-Za-z0-9._-]+", "-", reader).strip("-.")
        what = {"tasks": WORDS, "model": reader, "mark": mark_of(reader)}
        job = Job("reader", "integrated", 0, comparison.split, share.n, comparison.seed, **what)
        if (place / "job.json").is_file() and read(place / "job.json") != job.as_dict():
            shutil.rmtree(place)  # minutes of judging, and no training
        place.mkdir(parents=True, exist_ok=True)
        keep(place / "job.json", job.as_dict())
        places[entrant.name] = place
    return places
