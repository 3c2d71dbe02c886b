"""Held-out rows: what was converted is parted into train and val, so that no picture is on both sides.

Rows hang together by the files of their pictures, also by way of other rows; rows without pictures by what
the user says.  Which side such a group falls on is a hash of its smallest digest: order does not matter.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from unimodal.data.importers.write import Writer
from unimodal.errors import UserError

SIDES = ("train", "val")


class Grouped:
    """A writer that remembers which rows hang together; `split` parts its file when it is closed."""

    def __init__(self, writer: Writer):
        self._writer = writer
        self._first: list[bytes] = []  # of each row, one of its group's digests
        self._above: dict[bytes, bytes] = {}  # union-find: a smaller digest of the same group, or itself

    @property
    def pictures(self) -> int:
        """How many pictures were stored."""
        return self._writer.pictures

    def add(self, row: dict) -> None:
        """Write one row."""
        self._writer.add(row)
        digests = [hashlib.sha256(data).digest()[:16] for data in row.get("images") or [_asked(row).encode()]]
        roots = [self._root(digest) for digest in digests]
        for root in roots:
            self._above[root] = min(roots)
        self._first.append(digests[0])

    def _root(self, digest: bytes) -> bytes:
        path = []
        while self._above.setdefault(digest, digest) != digest:
            path.append(digest)
            digest = self._above[digest]
        for passed in path:
            self._above[passed] = digest
        return digest

    def close(self) -> None:
        """Close the file."""
        self._writer.close()

    def split(self, folder: Path, form: str, val: float) -> tuple[int, int]:
        """FOLDER/rows.FORM becomes FOLDER/train.FORM and FOLDER/val.FORM; gives their numbers of rows.

        Raises UserError if either would be empty.
        """
        held = [_share(self._root(first)) < val for first in self._first]
        if all(held) or not any(held):
            groups = len({self._root(first) for first in self._first})
            raise UserError(
                f"--val {val}: all {len(held)} rows fall on one side; they are {groups} groups that share "
                "pictures or questions. Give more rows, or another share."
            )
        part = {"jsonl": _part_lines, "parquet": _part_table}[form]
        part(folder / f"rows.{form}", [folder / f"{side}.{form}" for side in SIDES], held)
        (folder / f"rows.{form}").unlink()
        return len(held) - sum(held), sum(held)


def _share(digest: bytes) -> float:
    """A number between 0 and 1; hashed again, because the first digest of many is a small one."""
    return int.from_bytes(hashlib.sha256(digest).digest()[:8], "big") / 2**64


def _asked(row: dict) -> str:
    """What the user says in a row without pictures; where nobody asks, all that is said."""
    messages = row.get("messages") or [{"role": "user", "content": row.get("text", "")}]
    asked = [message for message in messages if message["role"] == "user"] or messages
    return "\n".join(_words(message["content"]) for message in asked)


def _words(content: str | list) -> str:
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _part_lines(path: Path, sides: list[Path], held: list[bool]) -> None:
    with path.open("rb") as rows, sides[0].open("wb") as train, sides[1].open("wb") as val:
        for line, aside in zip(rows, held, strict=True):
            (val if aside else train).write(line)


def _part_table(path: Path, sides: list[Path], held: list[bool]) -> None:
    """Row group by row group, so that no more than one is in memory."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def groups(rows) -> Iterator[tuple]:
        at = 0
        for number in range(rows.num_row_groups):
            table = rows.read_row_group(number)
            aside = held[at : at + len(table)]
            at += len(table)
            yield table.filter(pa.array([not one for one in aside])), table.filter(pa.array(aside))

    with pq.ParquetFile(path) as rows:
        schema = rows.schema_arrow
        with pq.ParquetWriter(sides[0], schema) as train, pq.ParquetWriter(sides[1], schema) as val:
            for parts in groups(rows):
                for writer, part in zip((train, val), parts):
                    if len(part):
                        writer.write_table(part)
