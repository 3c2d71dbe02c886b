"""`unimodal compare`: train and judge every entrant, then write the report.

What is finished is never done again: a comparison that was killed goes on where it was, and a failed
run is told in the report and tried again the next time.
"""

from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from unimodal.compare.alone import alone_in, terminable
from unimodal.compare.crew import Crew, Task
from unimodal.compare.entrant import result_at
from unimodal.compare.plan import Comparison, Entrant, budget_of, check_there, load_comparison
from unimodal.compare.prepare import prepare, reader_jobs
from unimodal.compare.report import write_report
from unimodal.compare.results import check_words, results_of
from unimodal.compare.stages import FIRST
from unimodal.errors import UserError


def compare(path: Path, budget: str, out: Path, jobs: int = 1) -> dict[str, Any]:
    """Run the comparison of a file and return what results.json holds.

    jobs  runs that are trained and judged at once, each with its share of the threads. What a picture costs
          is measured afterwards, one model alone at a time.

    OUT/entrants/NAME/seed-S   recipe, log, checkpoints, model and findings of every training run; `first` in
                               it is the first of two stages
    OUT/readers/NAME           what the models that entrants start from understand
    OUT/geneval/NAME           pictures in GenEval's layout
    OUT/results.json, report.md, report.html, plots/

    Raises UserError before any training if the file is wrong, the comparison unfair, something to start
    from missing, or OUT holds another comparison or is worked in by another process.
    """
    comparison = load_comparison(path)
    budget_of(comparison, budget, path)
    if comparison.equal == "seconds" and jobs > 1:
        raise UserError(
            f"{path} holds seconds of training equal, which are told of runs that are alone, but {jobs} are "
            "to be trained at once. Leave --jobs out, or hold something else equal."
        )
    for reader in filter(None, (comparison.reader, *(entrant.reader for entrant in comparison.entrants))):
        check_there(reader, f"{path}: reader")
    out = out.resolve()  # as it is written into recipes: the same folder, however it is named
    with alone_in(out), terminable():
        return _compare(comparison, budget, path, out, jobs)


def _compare(comparison: Comparison, budget: str, path: Path, out: Path, jobs: int) -> dict[str, Any]:
    share = comparison.budgets[budget]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    progress = Progress(*columns)

    def say(words: str) -> None:
        progress.console.print(words, markup=False, highlight=False)

    folders, unbuilt = prepare(comparison, share, path, out, say)
    readers = reader_jobs(comparison, share, out) if comparison.reader else {}
    with progress:
        crew = Crew(progress, jobs)
        judge = {place.name: crew.do(place, "judge", place.name) for place in readers.values()}
        for name, why in crew.all(judge).items():
            raise UserError(f"the reader {name} cannot be judged: {why}")
        understood = {name: result_at(place) for name, place in readers.items()}
        runs = {
            f"{entrant.name}, seed {seed}": (entrant, seed, place)
            for entrant in comparison.entrants
            for seed, place in enumerate(folders.get(entrant.name, ()))
        }
        wrong = _train_judge_measure(runs, understood, crew, Crew(progress))
    failures = {name: dict.fromkeys(range(share.seeds), why) for name, why in unbuilt.items()}
    results: dict[str, list[dict]] = {}
    for run, (entrant, seed, place) in runs.items():
        if why := wrong.get(run):
            failures.setdefault(entrant.name, {})[seed] = why
        else:
            results.setdefault(entrant.name, []).append(result_at(place))
    if not results:
        told = "; ".join(f"{name}: {why}" for name, seeds in failures.items() for why in set(seeds.values()))
        raise UserError(f"every entrant failed, so there is nothing to compare: {told}")
    found = results_of(comparison, budget, results, failures, understood)
    write_report(found, out)
    return found


def _train_judge_measure(
    runs: dict[str, tuple[Entrant, int, Path]], understood: dict[str, dict], crew: Crew, alone: Crew
) -> dict[str, str]:
    """Train and judge all runs, several at once, then measure one after the other.

    runs        entrant, training seed and folder, by what the run is called
    understood  by entrant, the result of the model whose understanding it must not lose
    Returns why those that failed did.
    """
    wrong = crew.all(
        {
            run: _learn(crew, run, entrant, place, understood.get(entrant.name))
            for run, (entrant, _, place) in runs.items()
        }
    )
    places = {run: place for run, (_, _, place) in runs.items() if run not in wrong}
    return wrong | alone.all({run: alone.do(place, "measure", run) for run, place in places.items()})


def _learn(crew: Crew, run: str, entrant: Entrant, place: Path, reader: dict | None) -> Task:
    """Train and judge one run.  Raises UserError if it fails, or no longer says what its reader does."""
    if (place / FIRST / "recipe.yaml").is_file():
        yield from crew.do(place / FIRST, "train", f"{run}, first stage")
    yield from crew.do(place, "train", run)
    yield from crew.do(place, "judge", run)
    if reader and entrant.family == "external":
        check_words(result_at(place), reader)
