"""Tables of records: JSON, JSON lines, CSV, parquet, arrow, and folders that `datasets` loads.

All give `("file:line", record)` in order, pictures undecoded; a line that cannot be read is given as the
UserError that says so, so that one broken line does not end the reading.  Of a folder `datasets` says which
files are its splits; tables that are in none of them are given as Drops.
"""

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path

from unimodal.data.files import parse_line, read_rows
from unimodal.errors import UserError, nearest

Records = Iterator[tuple[str, dict | UserError]]

SPACE = re.compile(r"[ \t\r\n]*")
FORMATS = (".json", ".jsonl", ".csv", ".parquet", ".arrow")
METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")  # of an ImageFolder
# What `datasets` and others write beside tables.
NO_TABLES = re.compile(r"(config|dataset_infos?|dataset_dict|state)\.json|cache-.*\.arrow")
GLIMPSE = 100_000  # entries of a folder that tell what it is; one of tables has far fewer
PICTURES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".avif"))


class Drop(UserError):
    """What is left out, as a record or a file: `reason` is one for all alike, the text tells which."""

    def __init__(self, reason: str, sentence: str):
        super().__init__(sentence)
        self.reason = reason


def is_table(path: Path) -> bool:
    """Whether `records` would read it: a file by its ending, a folder by what is in it."""
    if not path.is_dir():
        return path.suffix.lower() in FORMATS and path.is_file()
    if _saved(path):
        return True
    found = (file for file in islice(path.rglob("*"), GLIMPSE) if file.name not in METADATA)
    endings = {file.suffix.lower() for file in found if _is_data(file, path)}
    lines = {".jsonl", ".json", ".csv"} & endings and not PICTURES & endings
    return bool({".parquet", ".arrow"} & endings or lines)


def _is_data(file: Path, folder: Path) -> bool:
    """Whether a file below a folder is neither hidden nor written by a library for itself."""
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return not hidden and not NO_TABLES.fullmatch(file.name) and file.is_file()


def records(path: Path, split: str | None = None) -> Records:
    """Every record of a table.

    split  which part, where a folder holds several
    Raises UserError if there is no such table, or the rest of it cannot be read.
    """
    if not is_table(path):
        found = "a folder without tables" if path.is_dir() else "no file" if not path.exists() else "a file"
        raise UserError(
            f"{path}: found {found}; expected a file that ends in {', '.join(FORMATS)}, or a folder that the "
            "datasets library loads. Mend the path."
        )
    if path.is_dir():
        return _folder(path, split)
    if split is not None:
        raise UserError(f"{path}: a file has no splits, but --split {split} was given. Leave it out.")
    readers = {".json": _json, ".jsonl": _lines, ".csv": _csv, ".parquet": read_rows, ".arrow": _arrow}
    return readers[path.suffix.lower()](path)


def _lines(path: Path) -> Records:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                where = f"{path}:{number}"
                try:
                    yield where, parse_line(line, where)
                except UserError as error:
                    yield where, error


def _json(path: Path) -> Records:
    """An array of objects, or objects one after another; each is decoded alone, so that its line is known."""
    text = read_text(path)
    decoder = json.JSONDecoder()

    def skip(at: int) -> int:
        return SPACE.match(text, at).end()

    at = skip(0)
    array = text.startswith("[", at)
    at = skip(at + array)
    line, counted, number, last = 1, 0, 0, 0
    while at < len(text) and not (array and text.startswith("]", at)):
        line += text.count("\n", counted, at)
        counted, number = at, number + 1
        where = f"{path}:{line} (object {number})" if line == last else f"{path}:{line}"
        last = line
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: not JSON ({error}). Mend the file from here on.") from error
        yield where, value
        at = skip(at)
        if array and text.startswith(",", at):
            at = skip(at + 1)
        elif array and not text.startswith("]", at):
            raise UserError(f"{where}: the object is followed by neither , nor ]. Is the file whole?")
    if array and (at >= len(text) or skip(at + 1) < len(text)):
        raise UserError(f"{path}: the file goes on after its array, or ends within it. Is the file whole?")


def read_text(path: Path) -> str:
    """A file's text, without a byte order mark.  Raises UserError if it is not UTF-8 or cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}. Save the file as UTF-8.") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). Mend the path.") from error


def _csv(path: Path) -> Records:
    """The first line names the fields; an empty cell is an absent value."""
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
    start = 2
    try:
        for row in reader:
            where = f"{path}:{start}"
            start = reader.line_num + 1
            if None in row or None in row.values():
                yield where, UserError(f"{where}: the line has not as many cells as the first. Mend it.")
            else:
                yield where, {name: cell for name, cell in row.items() if cell != ""}
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: not CSV ({error}). Mend the file.") from error


def _arrow(path: Path) -> Records:
    """Undecoded: the arrow format leaves pictures as bytes and paths."""
    import datasets

    opened = told(path, lambda: datasets.Dataset.from_file(str(path))).with_format("arrow")

    def tables() -> Iterable:
        try:
            yield from opened.iter(batch_size=64)
        except Exception as error:  # pyarrow and datasets raise types of their own
            raise UserError(f"{path}: cannot be read on ({error}). Fetch it again.") from error

    number = 0
    for table in tables():
        for row in table.to_pylist():
            number += 1
            yield f"{path}:{number}", row


def _saved(path: Path) -> bool:
    return (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()


def _folder(path: Path, split: str | None) -> Records:
    """A split of a folder, each file read as it would be alone: `datasets` recodes values of mixed types.

    Raises UserError if no split or several are meant, or one is not made of tables.
    """
    parts = _parts(path)
    names = [name for name in parts if name]
    if split is not None and not names:
        raise UserError(f"{path}: it has no splits, but --split {split} was given. Leave it out.")
    if split is None and len(names) > 1:
        raise UserError(f"{path}: it has the splits {', '.join(names)}. Say which: --split {names[0]}.")
    if split is not None and split not in names:
        raise UserError(
            f"{path}: no split {split!r}{nearest(split, names)}; it has {', '.join(names)}. Name one of them."
        )
    files = parts[split or next(iter(parts))]
    for file in files:
        if not is_table(file):
            raise UserError(
                f"{path}: the datasets library takes {file.name} of it; expected files that end in "
                f"{', '.join(FORMATS)}. Name the file that is meant, or move it to a folder of its own."
            )
    return chain(chain.from_iterable(map(records, files)), _left_out(path, parts))


def _parts(path: Path) -> dict[str, list[Path]]:
    """The files of each split, as `save_to_disk` wrote it or `datasets` tells it by names; "": no split."""
    import datasets

    datasets.disable_progress_bars()
    if _saved(path):
        loaded = told(path, lambda: datasets.load_from_disk(str(path), keep_in_memory=False))
        saved = loaded if isinstance(loaded, dict) else {"": loaded}
        return {name: [Path(one["filename"]) for one in part.cache_files] for name, part in saved.items()}
    whole = path.resolve()
    builder = told(path, lambda: datasets.load_dataset_builder(str(whole)))
    return {
        str(name): [path / os.path.relpath(file, whole) for file in files]
        for name, files in builder.config.data_files.items()
    }


def _left_out(path: Path, parts: dict[str, list[Path]]) -> Records:
    """A Drop for every table below a folder that is in none of its splits."""
    taken = {file.resolve() for files in parts.values() for file in files}
    one = min(taken, default=path).name
    for file in sorted(path.rglob("*")):
        if _is_data(file, path) and is_table(file) and file.resolve() not in taken:
            sentence = (
                f"{file}: the datasets library takes {one} of {path}, and not this file. "
                "Name both alike, or convert it by itself."
            )
            yield str(file), Drop("table that datasets leaves out", sentence)


def told(path: Path, open_it):
    """`open_it()`, its errors told as a sentence."""
    try:
        return open_it()
    except Exception as error:  # pyarrow and datasets raise types of their own
        raise UserError(f"{path}: not readable as a dataset ({error}). Mend it or name the file.") from error
