"""`unimodal compare`: check, train and judge every entrant, then write the report.

What is finished is never done again: a comparison that was killed goes on where it was, and a failed
entrant is told in the report and tried again the next time.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from unimodal.compare.entrant import WORDS, Job
from unimodal.compare.fairness import Facts, check_fair, facts_of, steps_of, with_steps
from unimodal.compare.kept import keep, read
from unimodal.compare.plan import (
    Budget,
    Comparison,
    Entrant,
    budget_of,
    check_there,
    load_comparison,
    parts_of,
    recipe_of,
)
from unimodal.compare.report import write_report
from unimodal.compare.results import results_of
from unimodal.compare.stages import FIRST, first_of, second_of
from unimodal.errors import UserError
from unimodal.training.config import Recipe

LOOK = 0.5  # seconds between two looks at a process


def compare(path: Path, budget: str, out: Path) -> dict[str, Any]:
    """Run the comparison of a file and return what results.json holds.

    OUT/entrants/NAME/seed-S   recipe, log, checkpoints, model and result of every training run; `first` in it
                               is the first of two stages
    OUT/readers/NAME           what the models that entrants start from understand
    OUT/geneval/NAME           pictures in GenEval's layout
    OUT/results.json, report.md, report.html, plots/

    Raises UserError before any training if the file is wrong, the comparison unfair, something to start
    from missing, or OUT holds another comparison.
    """
    comparison = load_comparison(path)
    share = budget_of(comparison, budget, path)
    for reader in filter(None, (comparison.reader, *(entrant.reader for entrant in comparison.entrants))):
        check_there(reader, f"{path}: reader")
    folders = _prepare(comparison, share, path, out)
    readers = _reader_jobs(comparison, share, out) if comparison.reader else {}
    results: dict[str, list[dict]] = {}
    failures: dict[str, str] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns) as progress:
        for place in dict.fromkeys(readers.values()):
            _run(place, "judge", "reader", progress)
        for name, places in folders.items():
            failure = _all_seeds(name, places, progress)
            if failure:
                failures[name] = failure
                progress.console.print(f"{name} failed: {failure}", markup=False, highlight=False)
            else:
                results[name] = [read(place / "result.json") for place in places]
    if not results:
        told = "; ".join(f"{name}: {why}" for name, why in failures.items())
        raise UserError(f"every entrant failed, so there is nothing to compare: {told}")
    judged = {name: read(place / "result.json") for name, place in readers.items()}
    found = results_of(comparison, budget, results, failures, judged)
    write_report(found, out)
    return found


def _prepare(comparison: Comparison, share: Budget, path: Path, out: Path) -> dict[str, list[Path]]:
    """Check everything, write every entrant's folders, and return them by entrant."""
    recipes, facts = {}, {}
    for entrant in comparison.entrants:
        place = out / "entrants" / entrant.name
        recipes[entrant.name] = [
            recipe_of(comparison, entrant, path, seed, place / f"seed-{seed}" / "run")
            for seed in range(share.seeds)
        ]
        whole = recipes[entrant.name][0]
        facts[entrant.name] = facts_of(second_of(whole, entrant, None) if entrant.then else whole)
    check_fair(comparison, facts)
    folders: dict[str, list[Path]] = {}
    for entrant in comparison.entrants:
        steps: dict[str, int] = {}  # of each stage, the same for all seeds
        for seed, recipe in enumerate(recipes[entrant.name]):
            place = recipe.output.dir.parent
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
            if entrant.then:
                plan["then"] = entrant.then.model_dump(mode="json")
            if not _planned(place, job, plan):
                _write_stages(comparison, entrant, recipe, share.amount, facts[entrant.name], steps)
                keep(place / "job.json", job.as_dict())
                keep(place / "plan.json", plan)  # the last one: with it the folder is whole
            folders.setdefault(entrant.name, []).append(place)
    return folders


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


def _planned(place: Path, job: Job, plan: dict[str, Any]) -> bool:
    """Whether the folder is prepared for just this.  Raises UserError if for something else."""
    if not (place / "plan.json").is_file():
        return False
    if read(place / "plan.json") == plan and read(place / "job.json") == job.as_dict():
        return True
    raise UserError(
        f"{place} belongs to a comparison with other settings (see plan.json and job.json in it). Name "
        "another --out, or remove that folder to do the entrant again."
    )


def _reader_jobs(comparison: Comparison, share: Budget, out: Path) -> dict[str, Path]:
    """By entrant, the folder of the job that judges the model whose understanding it must not lose."""
    places = {}
    for entrant in comparison.entrants:
        reader = entrant.reader or comparison.reader
        place = out / "readers" / re.sub(r"[^A-Za-z0-9._-]+", "-", reader).strip("-.")
        job = Job("reader", "integrated", 0, comparison.split, share.n, comparison.seed, WORDS, model=reader)
        if (place / "job.json").is_file() and read(place / "job.json") != job.as_dict():
            shutil.rmtree(place)  # minutes of judging, and no training
        place.mkdir(parents=True, exist_ok=True)
        keep(place / "job.json", job.as_dict())
        places[entrant.name] = place
    return places


def _all_seeds(name: str, places: list[Path], progress: Progress) -> str | None:
    """Train and judge an entrant's runs; why it failed, or None."""
    for seed, place in enumerate(places):
        told = f"{name}, seed {seed}"
        try:
            if (place / FIRST / "recipe.yaml").is_file():
                _run(place / FIRST, "train", f"{told}, first stage", progress)
            _run(place, "train", told, progress)
            _run(place, "judge", told, progress)
        except UserError as error:
            return str(error)
    return None


def _run(place: Path, part: str, told: str, progress: Progress) -> None:
    """Do one part in a process of its own.  Raises UserError with its last words if it fails."""
    done = place / ("training.json" if part == "train" else "result.json")
    if done.is_file():
        return
    words, failure = place / f"{part}.log", place / "failure.txt"
    failure.unlink(missing_ok=True)
    total = _steps(place) if part == "train" else None
    bar = progress.add_task(f"{told}: {part}", total=total)
    with words.open("a", encoding="utf-8") as log:
        command = [sys.executable, "-m", "unimodal.compare.entrant", part, str(place)]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=os.environ)
        try:
            while process.poll() is None:
                time.sleep(LOOK)
                progress.update(bar, completed=_last_step(place) if total else 0)
        except BaseException:
            process.terminate()  # a trainer saves before it goes
            process.wait()
            raise
    progress.update(bar, completed=total or 1, total=total or 1)
    if process.returncode or not done.is_file():
        last = words.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        said = failure.read_text(encoding="utf-8") if failure.is_file() else " ".join(last)
        raise UserError(f"{said} (exit code {process.returncode}; {words} has the rest)")


def _steps(place: Path) -> int:
    from unimodal.training.config import load_recipe

    return load_recipe(place / "recipe.yaml").train.steps


def _last_step(place: Path) -> int:
    log = place / "run" / "log.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    whole = [line for line in lines[-2:] if line.endswith("}")]  # the last one may be half written
    return json.loads(whole[-1])["step"] if whole else 0
