"""Files of rows: JSONL and parquet, read line by line; what is wrong with one is told as a sentence."""

import json
from collections.abc import Iterator
from pathlib import Path

from unimodal.errors import UserError


def read_rows(path: str | Path) -> Iterator[tuple[str, dict]]:
    """Yield `("file:line", row)` of a JSONL or parquet file, in order; parquet rows count from 1.

    Raises UserError if the file is missing, of another kind, or a line is no JSON object.
    """
    path = Path(path)
    kind = file_kind(path)
    if kind == "parquet":
        number = 0
        for batch in _batches(path):
            for row in batch:
                number += 1
                yield f"{path}:{number}", row
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield f"{path}:{number}", parse_line(line, f"{path}:{number}")


def _batches(path: Path) -> Iterator[list[dict]]:
    import pyarrow.parquet

    batches = open_parquet(path, pyarrow.parquet.ParquetFile).iter_batches(batch_size=64)
    while (batch := open_parquet(path, lambda _: next(batches, None))) is not None:
        yield open_parquet(path, lambda _: batch.to_pylist())


def file_kind(path: Path) -> str:
    """`jsonl` or `parquet`.  Raises UserError if the file is missing or ends otherwise."""
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise UserError(
            f"{path}: found {found}; expected a JSONL or parquet file. Mend the path.{advice_on(path)}"
        )
    kinds = {".jsonl": "jsonl", ".parquet": "parquet"}
    if path.suffix not in kinds:
        raise UserError(
            f"{path}: ends in {path.suffix!r}; expected .jsonl or .parquet. Convert or rename it."
            f"{advice_on(path)}"
        )
    return kinds[path.suffix]


def advice_on(path: Path | str, row: dict | None = None) -> str:
    """Which importer makes rows of this, if one does."""
    from unimodal.data.importers import advice  # it stands on this file

    return advice(path, row)


def open_parquet(path: Path, opener):
    """`opener(path)`, its errors told as a sentence."""
    try:
        return opener(str(path))
    except UserError:
        raise
    except Exception as error:  # pyarrow and datasets raise types of their own
        raise UserError(
            f"{path}: not a readable parquet file ({root_cause(error)}). Write it again."
        ) from error


def root_cause(error: BaseException) -> BaseException:
    """The error that the others were raised from: those of `datasets` say only that there was one."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def parse_line(line: bytes, where: str) -> dict:
    """One JSON line to a row.  Raises UserError at broken JSON, bytes that are no UTF-8, or no object."""
    try:
        row = json.loads(line)
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8 at byte {error.start}. Save the file as UTF-8.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON ({error}); expected one object a line. Mend the line.") from error
    return row
