"""Sources: numbered rows, from a file or from a generator that makes them as they are asked for.

A source has a `length` (None if endless), an `image_root` (None if its rows carry their pictures) and
`row(i)`.  It holds no position; `Mixture` decides which number is read next.
"""

from pathlib import Path
from typing import Protocol

import numpy as np

from unimodal.data.files import file_kind, open_parquet, parse_line, root_cause
from unimodal.errors import UserError, nearest


class Source(Protocol):
    """Numbered rows; `row(i)` is a pure function of i, for 0 <= i < length, or any i if endless."""

    length: int | None

    def row(self, i: int) -> tuple[str, dict]:
        """`(where, row)`: where it came from, for messages, and the row itself."""
        ...


class FileSource:
    """A JSONL or parquet file with random access; the rows stay on disk.

    path        .jsonl or .parquet
    image_root  where relative image paths start; the file's folder if None
    Raises UserError if the file is missing, of another kind, or empty.
    """

    def __init__(self, path: str | Path, image_root: str | Path | None = None):
        self.path = Path(path)
        kind = file_kind(self.path)
        self.image_root = Path(image_root) if image_root is not None else self.path.parent
        if not self.image_root.is_dir():
            raise UserError(f"image_root {self.image_root} is no folder. Mend the path.")
        self._table = None
        if kind == "jsonl":
            self._starts, self._lines = _index_lines(self.path)
            self.length = len(self._starts)
        else:
            self._table = _open_table(self.path)
            self.length = len(self._table)
        if not self.length:
            raise UserError(f"{self.path}: the file has no rows; expected at least one.")

    def row(self, i: int) -> tuple[str, dict]:
        """Row `i`, counted from 0, and its `file:line`, counted from 1."""
        if self._table is not None:
            return f"{self.path}:{i + 1}", self._table[i].to_pylist()[0]
        where = f"{self.path}:{self._lines[i]}"
        with self.path.open("rb") as file:
            file.seek(self._starts[i])
            return where, parse_line(file.readline(), where)


def _index_lines(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Byte offset and line number (from 1) of every line that is not blank."""
    starts, lines, offset = [], [], 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                starts.append(offset)
                lines.append(number)
            offset += len(line)
    return np.array(starts, np.int64), np.array(lines, np.int64)


def _open_table(path: Path):
    """The rows as a memory-mapped `datasets.Dataset`; pictures stay bytes: `pictures` alone decodes."""
    import datasets

    def copied(file: str):
        try:
            return datasets.Dataset.from_parquet(file)
        except Exception as error:  # pyarrow and datasets raise types of their own
            cause = root_cause(error)
            # A number is the system's: pyarrow raises OSError without one where a file is broken.
            if isinstance(cause, OSError) and cause.errno is not None and cause.filename != file:
                raise UserError(
                    f"{path}: could not be copied to the cache of `datasets`, from where it is read "
                    f"({cause}). Make room there, or let HF_DATASETS_CACHE name another folder."
                ) from error
            raise

    datasets.disable_progress_bars()
    return open_parquet(path, copied).with_format("arrow")


def live_source(name: str, split: str = "train", seed: int = 0, **options) -> Source:
    """A generator of `data_tools.LIVE` by name.  Raises UserError if there is none of that name."""
    from data_tools import LIVE

    if name not in LIVE:
        raise UserError(f"no live source {name!r}{nearest(name, LIVE)}; expected one of {', '.join(LIVE)}.")
    return LIVE[name](split=split, seed=seed, **options)
