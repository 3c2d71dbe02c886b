"""Writing rows: JSONL with the pictures beside it, or parquet with the pictures in it.

Either writer is given bytes as they came and never encodes a picture anew.  `published` makes the folder
appear whole or not at all.
"""

import hashlib
import io
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from PIL import Image as Pillow

from unimodal.data.rows import MARK
from unimodal.errors import UserError

ENDINGS = {"JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif"}
GROUP = 64 * 1024 * 1024  # bytes of pictures in a row group: little enough to be read one at a time


class Writer(Protocol):
    """Takes rows whose `images` are bytes; `pictures` counts what was stored."""

    pictures: int

    def add(self, row: dict) -> None:
        """Write one row."""
        ...

    def close(self) -> None:
        """Bring what is left to the file."""
        ...


class JsonlWriter:
    """FOLDER/rows.jsonl and FOLDER/images/HASH.ending; a picture that is in many rows is stored once."""

    def __init__(self, folder: Path):
        self.pictures = 0
        self._images = folder / "images"
        self._names: dict[bytes, str] = {}
        self._file = (folder / "rows.jsonl").open("w", encoding="utf-8", newline="\n")

    def add(self, row: dict) -> None:
        """Write one row and those of its pictures that are new."""
        if "images" in row:
            row = {**row, "images": [self._store(data) for data in row["images"]]}
        self._file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")

    def _store(self, data: bytes) -> str:
        digest = hashlib.sha256(data).digest()
        if digest not in self._names:
            name = f"images/{digest.hex()[:32]}{_ending(data)}"
            self._images.mkdir(exist_ok=True)
            (self._images.parent / name).write_bytes(data)
            self._names[digest] = name
            self.pictures += 1
        return self._names[digest]

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _ending(data: bytes) -> str:
    kind = Pillow.open(io.BytesIO(data)).format or ""
    return ENDINGS.get(kind, f".{kind.lower()}")


class ParquetWriter:
    """FOLDER/rows.parquet, pictures as bytes.  Contents are lists of parts: a column has one type."""

    def __init__(self, folder: Path):
        import pyarrow as pa
        import pyarrow.parquet

        part = pa.struct({"type": pa.string(), "text": pa.string()})
        message = pa.struct({"role": pa.string(), "content": pa.list_(part), "trained": pa.bool_()})
        image = pa.struct({"bytes": pa.binary(), "path": pa.string()})
        self._schema = pa.schema(
            {"messages": pa.list_(message), "images": pa.list_(image), "text": pa.string()}
        )
        self._file = pyarrow.parquet.ParquetWriter(folder / "rows.parquet", self._schema)
        self._waiting: list[dict] = []
        self._bytes = 0
        self.pictures = 0

    def add(self, row: dict) -> None:
        """Keep one row until there are enough for a row group."""
        images = row.get("images") or ()
        self.pictures += len(images)
        self._bytes += sum(map(len, images))
        if "messages" in row:
            messages = [{**m, "content": _parts(m["content"])} for m in row["messages"]]
            row = {"messages": messages, "images": [{"bytes": data} for data in images]}
        self._waiting.append(row)
        if self._bytes >= GROUP or len(self._waiting) >= 1000:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._waiting:
            self._file.write_table(pa.Table.from_pylist(self._waiting, schema=self._schema))
        self._waiting, self._bytes = [], 0

    def close(self) -> None:
        """Write the last row group and the file's end."""
        self._flush()
        self._file.close()


def _parts(content: str | list) -> list[dict[str, Any]]:
    if isinstance(content, list):
        return content
    parts: list[dict[str, Any]] = []
    for i, run in enumerate(content.split(MARK)):
        parts += [{"type": "image"}] if i else []
        parts += [{"type": "text", "text": run}] if run else []
    return parts


WRITERS = {"jsonl": JsonlWriter, "parquet": ParquetWriter}


@contextmanager
def published(out: Path) -> Iterator[Path]:
    """Give an empty folder; if it is still there at the end, it becomes `out`.

    Raises UserError if `out` has something in it.  After an error, or when the folder was deleted by
    `withdraw`, nothing is left.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not an empty folder. Name a new one, or empty it.")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as temporary:
        folder = Path(temporary) / "rows"
        folder.mkdir()
        yield folder
        if folder.exists():
            if out.exists():
                out.rmdir()
            folder.rename(out)


def withdraw(folder: Path) -> None:
    """Delete the folder that `published` gave, so that nothing comes of it."""
    shutil.rmtree(folder)
