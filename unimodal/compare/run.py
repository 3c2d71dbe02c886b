"""`unimodal compare`: train and judge every entrant, then write the report.

What is finished is never done again: a comparison that was killed goes on where it was, and a failed
run is told in the report and tried again the next time.
"""

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from unimodal.compare.alone import alone_in, terminable
from unimodal.compare.kept import read
from unimodal.compare.plan import Comparison, Entrant, budget_of, check_there, load_comparison
from unimodal.compare.prepare import Say, prepare, reader_jobs
from unimodal.compare.report import write_report
from unimodal.compare.results import check_words, results_of
from unimodal.compare.stages import FIRST
from unimodal.errors import UserError

LOOK = 0.5  # seconds between two looks at a process
TOLD = 60.0  # seconds between two lines about it, where no bar can be drawn


def compare(path: Path, budget: str, out: Path) -> dict[str, Any]:
    """Run the comparison of a file and return what results.json holds.

    OUT/entrants/NAME/seed-S   recipe, log, checkpoints, model and result of every training run; `first` in it
                               is the first of two stages
    OUT/readers/NAME           what the models that entrants start from understand
    OUT/geneval/NAME           pictures in GenEval's layout
    OUT/results.json, report.md, report.html, plots/

    Raises UserError before any training if the file is wrong, the comparison unfair, something to start
    from missing, or OUT holds another comparison or is worked in by another process.
    """
    comparison = load_comparison(path)
    budget_of(comparison, budget, path)
    for reader in filter(None, (comparison.reader, *(entrant.reader for entrant in comparison.entrants))):
        check_there(reader, f"{path}: reader")
    out = out.resolve()  # as it is written into recipes: the same folder, however it is named
    with alone_in(out), terminable():
        return _compare(comparison, budget, path, out)


def _compare(comparison: Comparison, budget: str, path: Path, out: Path) -> dict[str, Any]:
    share = comparison.budgets[budget]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    progress = Progress(*columns)

    def say(words: str) -> None:
        progress.console.print(words, markup=False, highlight=False)

    folders, unbuilt = prepare(comparison, share, path, out, say)
    readers = reader_jobs(comparison, share, out) if comparison.reader else {}
    results: dict[str, list[dict]] = {}
    failures = {name: dict.fromkeys(range(share.seeds), why) for name, why in unbuilt.items()}
    with progress:
        for place in dict.fromkeys(readers.values()):
            _run(place, "judge", "reader", progress)
        judged = {name: read(place / "result.json") for name, place in readers.items()}
        for entrant in comparison.entrants:
            name = entrant.name
            if name in folders:
                results[name], failures[name] = _all_seeds(
                    entrant, folders[name], judged.get(name), progress, say
                )
    if not any(results.values()):
        told = "; ".join(f"{name}: {why}" for name, seeds in failures.items() for why in set(seeds.values()))
        raise UserError(f"every entrant failed, so there is nothing to compare: {told}")
    found = results_of(comparison, budget, results, failures, judged)
    write_report(found, out)
    return found


def _all_seeds(
    entrant: Entrant, places: list[Path], reader: dict | None, progress: Progress, say: Say
) -> tuple[list[dict], dict[int, str]]:
    """Train and judge an entrant's runs: the results of those that finished, and why the others did not."""
    results, failures = [], {}
    for seed, place in enumerate(places):
        told = f"{entrant.name}, seed {seed}"
        try:
            if (place / FIRST / "recipe.yaml").is_file():
                _run(place / FIRST, "train", f"{told}, first stage", progress)
            _run(place, "train", told, progress)
            _run(place, "judge", told, progress)
            result = read(place / "result.json")
            if reader and entrant.family == "external":
                check_words(result, reader)
            results.append(result)
        except UserError as error:
            failures[seed] = str(error)
            say(f"{told} failed: {error}")
    return results, failures


def _run(place: Path, part: str, told: str, progress: Progress) -> None:
    """Do one part in a process of its own, which ends when this one does.

    Raises UserError with its last words if it fails.
    """
    done = place / ("training.json" if part == "train" else "result.json")
    if done.is_file():
        return
    words, failure = place / f"{part}.log", place / "failure.txt"
    failure.unlink(missing_ok=True)
    total = _steps(place) if part == "train" else None
    bar = progress.add_task(f"{told}: {part}", total=total)
    due = 0.0 if not progress.console.is_terminal else math.inf
    with words.open("a", encoding="utf-8") as log:
        command = [sys.executable, "-m", "unimodal.compare.entrant", part, str(place), str(os.getpid())]
        # In a session of its own, Ctrl-C reaches it through us alone: a second signal would quit at once.
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            while process.poll() is None:
                time.sleep(LOOK)
                step = _last_step(place) if total else 0
                progress.update(bar, completed=step)
                if time.monotonic() >= due:
                    due = time.monotonic() + TOLD
                    far = f", step {step} of {total}" if total else ""
                    progress.console.print(f"{told}: {part}{far}", markup=False, highlight=False)
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
