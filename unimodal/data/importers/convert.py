"""Convert: read records by an importer, check each row as training would, write it, and account for the rest.

Every picture is decoded once to be sure of it, then stored as the bytes it came in.  What is left out is
counted by reason, with the sentence about the first of each.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from unimodal.data.check import TASKS, task
from unimodal.data.importers import choose
from unimodal.data.importers.held_out import SIDES, Grouped
from unimodal.data.importers.importer import Drop, Importer, Options, Record, never_seen
from unimodal.data.importers.write import WRITERS, Writer, published, withdraw
from unimodal.data.pictures import MAX_PIXELS, open_picture
from unimodal.data.rows import locate, parse_row
from unimodal.errors import UserError, nearest

STAND_IN = np.zeros((1, 1, 3), np.uint8)  # for a picture that is known to be good


@dataclass
class Report:
    """What was read, written and left out.

    importer  its name, and `why` it was chosen
    read      records read
    written   rows written, by task in `tasks`; a record may give several rows or none
    pictures  picture files written, or pictures in the parquet file
    dropped   reason -> [how many, the sentence about the first]
    unused    field -> in how many records it was there but no row was made from it
    refusal   why nothing was written, or ""
    sides     rows of train and of val, if rows were held out
    """

    path: Path
    out: Path
    importer: str
    why: str
    read: int = 0
    written: int = 0
    pictures: int = 0
    tasks: Counter = field(default_factory=Counter)
    dropped: dict[str, list] = field(default_factory=dict)
    unused: Counter = field(default_factory=Counter)
    refusal: str = ""
    sides: tuple[int, int] | None = None

    @property
    def drops(self) -> int:
        """How many records, or rows of records, were left out."""
        return sum(count for count, _ in self.dropped.values())

    def drop(self, error: UserError, otherwise: str = "not a valid row") -> None:
        """Count something left out, for the reason it has or `otherwise`."""
        reason = error.reason if isinstance(error, Drop) else otherwise
        self.dropped.setdefault(reason, [0, str(error)])[0] += 1


def convert(
    path: str | Path,
    out: str | Path,
    importer: str = "auto",
    options: Options | None = None,
    form: str = "jsonl",
    strict: bool = False,
    max_pixels: int = MAX_PIXELS,
    progress: Callable[[int], None] | None = None,
    val: float | None = None,
) -> Report:
    """Write OUT/rows.jsonl and OUT/images, or OUT/rows.parquet, from data of another format.

    importer  a name of IMPORTERS, or `auto`
    form      jsonl or parquet
    strict    write nothing if anything would be left out
    progress  called with how many records are done
    val       which share of the rows is held out: OUT/train and OUT/val are then written in place of OUT/rows
    Nothing is written either if no row is left; the report's `refusal` then says so.
    Raises UserError if the path cannot be read, is of no known or of several formats, or `out` is not empty.
    """
    path, out, options = Path(path), Path(out), options or Options()
    if form not in WRITERS:
        raise UserError(f"format {form!r}{nearest(form, WRITERS)}; expected {' or '.join(WRITERS)}.")
    if val is not None and not 0 < val < 1:
        raise UserError(f"--val {val} is no share; expected a number between 0 and 1, as 0.1.")
    name, chosen, why = choose(path, importer, options)
    report = Report(path, out, name, why)
    try:
        with published(out) as folder:
            made = WRITERS[form](folder)
            with closing(made if val is None else Grouped(made)) as writer:
                for done in _records(chosen, path, options, writer, report, max_pixels):
                    if progress is not None:
                        progress(done)
            report.pictures = writer.pictures
            report.refusal = _refusal(report, strict)
            if report.refusal:
                withdraw(folder)
            elif isinstance(writer, Grouped):
                report.sides = writer.split(folder, form, val)
    except OSError as error:
        raise UserError(f"{path} could not be converted: {error}. Nothing was written to {out}.") from error
    return report


def _refusal(report: Report, strict: bool) -> str:
    if not report.read:
        return f"{report.path}: it has no records; expected at least one. Nothing was written."
    if not report.written:
        return f"{report.path}: no row came of {report.read} records, so nothing was written."
    if strict and report.drops:
        return f"{report.path}: {report.drops} would be left out and --strict is set: nothing was written."
    return ""


def _records(
    importer: Importer, path: Path, options: Options, writer: Writer, report: Report, max_pixels: int
) -> Iterator[int]:
    """Convert record after record; yields how many are done.

    Raises UserError at the end if a mapped name was in no record.
    """
    root = options.image_root or (path if path.is_dir() else path.parent)
    good: set[bytes] = set()
    seen: set[str] = set()
    for where, values in importer.read(path, options):
        report.read += 1
        if isinstance(values, UserError):
            report.drop(values, "not a readable line")
        elif not isinstance(values, dict):
            report.drop(Drop("not an object", f"{where}: found {values!r:.60}; expected an object. Mend it."))
        else:
            seen |= values.keys()
            record = Record(values, where, options.mapping)
            try:
                for row in importer.rows(record):
                    try:
                        _write(row, where, root, writer, report, good, max_pixels)
                    except UserError as error:
                        report.drop(error)
            except UserError as error:
                report.drop(error)
            else:
                report.unused.update(record.unused)
        yield report.read
    if seen and not importer.maps_folders and (missing := never_seen(options.mapping, seen, path)):
        raise UserError(missing)


def _write(
    row: dict | Drop, where: str, root: Path, writer: Writer, report: Report, good: set, max_pixels: int
) -> None:
    """Write one row whose pictures all open and which training would take; raises UserError if not."""
    if isinstance(row, Drop):
        raise row
    if "images" in row:
        row = {**row, "images": [_bytes(source, where, root, good, max_pixels) for source in row["images"]]}
    checked = {**row, "images": [STAND_IN] * len(row["images"])} if "images" in row else row
    document = parse_row(checked, where)
    writer.add(row)
    report.written += 1
    report.tasks[task(document)] += 1


def _bytes(source, where: str, root: Path, good: set[bytes], max_pixels: int) -> bytes:
    """The bytes of a picture, decoded once to be sure that they are one."""
    try:
        found = locate(source, where, root)
    except UserError as error:
        link = isinstance(source, str) and "://" in source
        raise Drop(
            "picture is a link" if link else "picture not found below the image root", str(error)
        ) from error
    try:
        data = found if isinstance(found, bytes) else found.read_bytes()
    except OSError as error:
        raise Drop("picture not readable", f"{where}: {found}: {error.strerror}. Mend it.") from error
    digest = hashlib.sha256(data).digest()
    if digest not in good:
        try:
            open_picture(data, where, max_pixels)
        except UserError as error:
            name = f" ({source})" if isinstance(source, (str, Path)) else ""
            raise Drop("picture not readable", f"{error}{name}") from error
        good.add(digest)
    return data


def print_report(report: Report, console: Console | None = None) -> None:
    """Show a report as a table, then what was left out, with the first of each reason."""
    console = console or Console()
    console.print(f"{report.path} read as {report.importer}: {report.why}.", markup=False, highlight=False)
    table = Table("", "count", title=escape(str(report.out)))
    table.columns[1].justify = "right"
    table.add_row("records read", str(report.read))
    table.add_row("rows written" if not report.refusal else "rows that could be written", str(report.written))
    for name, meaning in TASKS.items():
        if report.tasks[name]:
            table.add_row(f"  {name} ({meaning})", str(report.tasks[name]))
    for side, count in zip(SIDES, report.sides or ()):
        table.add_row(f"  in {side}", str(count))
    table.add_row("pictures", str(report.pictures))
    table.add_row("left out", str(report.drops))
    for reason, (count, _) in report.dropped.items():
        table.add_row(f"  {escape(reason)}", str(count))
    console.print(table)
    for reason, (_, sentence) in report.dropped.items():
        first = f"left out, {reason}: {sentence}"
        console.print(first, style="yellow", markup=False, highlight=False, soft_wrap=True)
    if report.unused:
        fields = ", ".join(f"{name} ({count})" for name, count in sorted(report.unused.items()))
        console.print(f"fields that rows have no place for: {fields}", markup=False, soft_wrap=True)
    if report.refusal:
        console.print(report.refusal, style="bold red", markup=False, highlight=False, soft_wrap=True)
