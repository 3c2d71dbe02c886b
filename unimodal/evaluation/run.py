"""`unimodal eval`: load a model, run a suite, write scores and a sheet of the first failures."""

from pathlib import Path
from typing import Any

from rich.progress import Progress

from unimodal.errors import UserError, nearest
from unimodal.evaluation.report import Report, print_report

__all__ = ["SUITES", "evaluate", "print_report"]

SUITES = ("shapes", "emoji", "rows", "codec", "cost")
DRAWN = ("t2i", "edit")  # tasks that need no words of the model
TASKS = (*DRAWN, "vqa", "text", "chat")


def evaluate(
    model: Any,
    suite: str = "shapes",
    split: str = "val",
    n: int = 64,
    seed: int = 0,
    json: Path | None = None,
    sheet: Path | None = None,
    sheet_all: bool = False,
    tasks: tuple[str, ...] | None = None,
    data: Path | None = None,
    cost: bool = False,
    device: str | None = None,
    dtype: str | None = None,
) -> Report:
    """Judge a model on `n` fresh prompts of every kind.

    model  a loaded model, or the name or folder of one
    suite  shapes, emoji, rows, codec or cost;  split  val or unseen;  tasks  a part of the shapes suite;
           by default all that the model can: one without a language model only draws and edits
    json, sheet  files to write the scores and the first failures to;
    sheet_all  whether the sheet shows what was right as well
    data   the folder that `unimodal data make` wrote, for the suites emoji and rows
    cost   whether to measure what a picture costs as well: forwards, operations, seconds, which are all of
           the suite cost
    device, dtype  of a model that is told by its name (see `unimodal.load`)
    Raises UserError for an unknown suite, split or task, or a count below 1.
    """
    from data_tools.shapes.rows import world_of

    if suite not in SUITES:
        raise UserError(f"suite {suite!r}; expected one of {', '.join(SUITES)}{nearest(suite, SUITES)}")
    if unknown := [task for task in tasks or () if task not in TASKS]:
        raise UserError(
            f"task {unknown[0]!r}; expected one of {', '.join(TASKS)}{nearest(unknown[0], TASKS)}"
        )
    if n < 1:
        raise UserError(f"n {n}; expected at least one prompt of each kind")
    if suite not in ("emoji", "rows"):
        world_of(split)
    if isinstance(model, str | Path):
        model = _opened(str(model), suite, device, dtype, cost)
    report = Report(getattr(model, "name", "model"), suite, split, seed)
    with Progress(transient=True) as progress:
        if suite == "emoji":
            from unimodal.evaluation.emoji import judge_emoji

            bar = progress.add_task("emoji", total=None)
            found = [
                judge_emoji(
                    model, data, split, n, seed, lambda k, of: progress.update(bar, completed=k, total=of)
                )
            ]
        elif suite == "rows":
            found = [_rows(model, data, split, n, seed, progress)]
        elif suite == "cost":
            found, cost = [], True
        else:
            found = _shapes(model, suite, split, n, seed, tasks or _able(model, progress), progress, data)
    if cost:
        from unimodal.evaluation.cost import judge_cost

        found.append((judge_cost(model), []))
    for scores, cases in found:
        report.scores |= scores
        report.cases += cases
    if json is not None:
        report.save(Path(json))
    if sheet is not None:
        _save_sheet(report, Path(sheet), sheet_all)
    return report


def _opened(name: str, suite: str, device: str | None, dtype: str | None, cost: bool) -> Any:
    """A loaded model; for the suite of codecs the folder of a codec does as well."""
    if suite == "codec":
        from unimodal.evaluation.codec import open_codec
        from unimodal.pretrained.choices import device_of

        if (codec := open_codec(name)) is not None:
            if cost:
                raise UserError(f"{name} is a codec, which draws nothing; leave out what a picture costs.")
            if dtype:
                raise UserError(f"{name} is a codec, which computes in float32; leave dtype out.")
            codec.codec.to(device_of(device or "cpu"))
            return codec
    from unimodal.generation.load import load

    return load(name, device, dtype=dtype)


def _able(model: Any, progress: Progress) -> tuple[str, ...]:
    """The tasks that a model can do; it is said which others there are."""
    if getattr(model, "writes", True):
        return TASKS
    words = ", ".join(task for task in TASKS if task not in DRAWN)
    progress.console.print(f"not judged, since this model has no language model: {words}")
    return DRAWN


def _rows(model: Any, data: Path | None, split: str, n: int, seed: int, progress: Progress) -> tuple:
    """Rows of real data; kinds that nothing here can judge are named."""
    from unimodal.evaluation.rows import judge_rows

    bar = progress.add_task("rows", total=None)
    scores, cases, left = judge_rows(
        model, data, split, n, seed, lambda k, of: progress.update(bar, completed=k, total=of)
    )
    if left:
        kinds = ", ".join(f"{kind} ({count} rows)" for kind, count in left.items())
        progress.console.print(f"not judged, since nothing here can tell: {kinds}")
    return scores, cases


def _shapes(
    model: Any,
    suite: str,
    split: str,
    n: int,
    seed: int,
    tasks: tuple[str, ...],
    progress: Progress,
    data: Path | None,
) -> list[tuple]:
    from data_tools.shapes.render import CANVAS
    from unimodal.evaluation.codec import judge_codec
    from unimodal.evaluation.shapes import examples, judge_shapes

    if suite == "codec":
        return [judge_codec(model, split, n, seed, data)]
    found = []
    for task in tasks:
        bar = progress.add_task(task, total=len(examples(task, split, n, seed, CANVAS)))
        found.append(judge_shapes(model, split, n, seed, lambda k, b=bar: progress.advance(b, k), (task,)))
    if hasattr(getattr(model, "model", None), "codec"):
        found.append(judge_codec(model, split, n, seed))
    return found


def _save_sheet(report: Report, path: Path, every_case: bool) -> None:
    """Write the sheet, or say why there is none."""
    picture = report.sheet(every_case)
    if picture is None:
        from rich.console import Console

        Console().print("There is no picture to show (nothing failed that has one), so no sheet is written.")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
