"""Check a file of rows before anything is trained on it: what is in it, and every mistake by file and line.

`check` reads every row as training would and keeps going after a mistake; `print_report` shows the result.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from unimodal.data.document import Document, Image
from unimodal.data.pictures import MAX_PIXELS
from unimodal.data.rows import parse_row
from unimodal.data.source import FileSource
from unimodal.errors import UserError

TASKS = {
    "t2i": "text to image",
    "edit": "image and text to image",
    "vqa": "image and text to text",
    "chat": "several replies",
    "text": "text alone",
}


def task(document: Document) -> str:
    """Which of TASKS a document is: told from where its images stand, and how often the assistant speaks."""
    if sum(turn.role == "assistant" for turn in document.turns) > 1:
        return "chat"
    drawn = any(image.trained for image in document.images)
    read = document.reads_pictures
    if drawn:
        return "edit" if read else "t2i"
    return "vqa" if read else "text"


@dataclass
class Report:
    """What `check` found; `ok` if there is no mistake.

    rows        all rows, right or wrong
    tasks       right rows by task
    sizes       pictures by (width, height)
    characters  length of the text of each right row
    lengths     positions of each row that could be measured, those beyond the budget included
    errors      sentences that begin with file:line, the first of `mistakes`
    mistakes    how many rows are wrong
    """

    path: Path
    rows: int = 0
    tasks: Counter = field(default_factory=Counter)
    sizes: Counter = field(default_factory=Counter)
    characters: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    budget: int | None = None
    errors: list[str] = field(default_factory=list)
    mistakes: int = 0

    @property
    def ok(self) -> bool:
        """Whether training could use every row."""
        return self.mistakes == 0


def check(
    path: str | Path,
    measure: Callable[[Document], int] | None = None,
    budget: int | None = None,
    image_root: str | Path | None = None,
    max_pixels: int = MAX_PIXELS,
    max_errors: int = 20,
    progress: Callable[[int, int], None] | None = None,
    decode: bool = True,
) -> Report:
    """Read every row of a JSONL or parquet file as training would.

    measure     positions that a document takes, usually the length of its layout; it may raise UserError
    budget      how many positions a pack holds; needs `measure`
    max_errors  how many mistakes are kept as sentences; all are counted
    progress    called with (rows done, rows in all)
    decode      False: of pictures only the headers are read
    Raises UserError only if the file itself cannot be read.
    """
    source = FileSource(path, image_root)
    report = Report(Path(path), budget=budget)
    for i in range(source.length):
        report.rows += 1
        try:
            where, row = source.row(i)
            document = parse_row(row, where, source.image_root, max_pixels, decode=decode)
            if measure is not None:
                report.lengths.append(measure(document))
                _within(report.lengths[-1], budget, where)
            _count(document, report)
        except UserError as error:
            report.mistakes += 1
            if len(report.errors) < max_errors:
                report.errors.append(str(error))
        if progress is not None:
            progress(i + 1, source.length)
    return report


def check_sources(sources: Iterable[tuple[str | Path, str | Path | None]], max_errors: int = 5) -> None:
    """Look at every row of several files before training: all but pixels, for which `check` takes longer.

    sources  files, and what their image paths are relative to
    Raises UserError with the first mistakes, each by file and line.
    """
    reports = [check(path, image_root=root, max_errors=max_errors, decode=False) for path, root in sources]
    errors = [error for report in reports for error in report.errors][:max_errors]
    if more := sum(report.mistakes for report in reports) - len(errors):
        errors.append(f"... and {more} rows more with mistakes; `unimodal data check` lists them.")
    if errors:
        raise UserError("\n".join(errors))


def check_lengths(
    sources: Iterable[tuple[str | Path, str | Path | None]],
    beyond: Callable[[Document, int], int | None],
    budget: int,
    max_rows: int = 1000,
) -> None:
    """Look at every row of several files for those that no pack can hold, without decoding pictures.

    beyond    positions of a document, its pictures `unseen`, if they are more than the budget; else None
    max_rows  how many rows are named; all are counted
    Raises UserError that names the rows by file and line.  The rows are right otherwise (`check_sources`).
    """
    if long := rows_beyond(sources, beyond, budget):
        raise UserError(
            listed(long, f"the budget of {budget} positions (data.tokens)", max_rows)
            + f"\nNeither text nor image is ever cut: set data.tokens={max(long.values())} or more, use "
            "smaller pictures, or split or remove these rows. Nothing was trained."
        )


def rows_beyond(
    sources: Iterable[tuple[str | Path, str | Path | None]],
    beyond: Callable[[Document, int], int | None],
    most: int,
) -> dict[str, int]:
    """The lengths of those rows of several files that are beyond `most`, by file and line."""
    long: dict[str, int] = {}
    for path, root in dict.fromkeys(sources):
        source = FileSource(path, root)
        for i in range(source.length):
            where, row = source.row(i)
            document = parse_row(row, where, source.image_root, decode=False)
            if (length := beyond(document, most)) is not None:
                long[where] = length
    return long


def listed(long: dict[str, int], what: str, max_rows: int = 1000) -> str:
    """A line for each of the long rows, after one that says `what` they do not fit."""
    rows = "1 row does" if len(long) == 1 else f"{len(long)} rows do"
    named = [f"{where}: {length} positions" for where, length in list(long.items())[:max_rows]]
    more = [f"... and {len(long) - max_rows} rows more."] if len(long) > max_rows else []
    return "\n".join([f"{rows} not fit {what}:", *named, *more])


def _within(length: int, budget: int | None, where: str) -> None:
    if budget is not None and length > budget:
        raise UserError(
            f"{where}: the document takes {length} positions, the token budget is {budget}, and neither text "
            "nor image is ever cut. Split the row, scale its pictures down, or raise the budget."
        )


def _count(document: Document, report: Report) -> None:
    report.tasks[task(document)] += 1
    characters = 0
    for part in document.parts():
        if isinstance(part, Image):
            report.sizes[part.pixels.shape[1], part.pixels.shape[0]] += 1
        else:
            characters += len(part.text)
    report.characters.append(characters)


def print_report(report: Report, console: Console | None = None) -> None:
    """Show a report as a table, and each mistake that was kept as a sentence."""
    console = console or Console()
    table = Table("", "count", "smallest", "median", "largest", title=escape(str(report.path)))
    for column in table.columns[1:]:
        column.justify = "right"
    table.add_row("rows", str(report.rows))
    for name, meaning in TASKS.items():
        if report.tasks[name]:
            table.add_row(f"  {name} ({meaning})", str(report.tasks[name]))
    table.add_row("characters a row", "", *_spread(report.characters))
    if report.sizes:
        table.add_row("pictures", str(report.sizes.total()), *_spread_of_sizes(report.sizes))
    if report.lengths:
        table.add_row("positions a row", str(sum(report.lengths)), *_spread(report.lengths))
    console.print(table)
    for error in report.errors:
        console.print(error, style="red", markup=False, highlight=False, soft_wrap=True)
    if report.mistakes > len(report.errors):
        console.print(f"... and {report.mistakes - len(report.errors)} rows more with mistakes.", style="red")
    right = report.rows - report.mistakes
    if report.ok:
        budget = f" and fits {report.budget} positions" if report.budget and report.lengths else ""
        unknown = "" if report.lengths else " How many positions rows take is measured with --model."
        console.print(f"Every row is right{budget}.{unknown}", style="green", soft_wrap=True)
    else:
        console.print(
            f"{report.mistakes} of {report.rows} rows are wrong, {right} are right.", style="bold red"
        )


def _spread(values: list[int]) -> list[str]:
    return [f"{np.quantile(values, q, method='lower'):.0f}" for q in (0, 0.5, 1)] if values else []


def _spread_of_sizes(sizes: Counter) -> list[str]:
    ordered = sorted(sizes.elements(), key=lambda size: (size[0] * size[1], size))
    return [f"{w}x{h}" for w, h in (ordered[0], ordered[(len(ordered) - 1) // 2], ordered[-1])]
