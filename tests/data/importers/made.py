"""Fixtures of every importer's tests: four pictures, and reading back what was written without its code."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet
from PIL import Image as Pillow

from unimodal.data.check import check
from unimodal.data.importers.convert import Report, convert
from unimodal.data.importers.importer import Options

COLOURS = {"red": (255, 0, 0), "green": (0, 128, 0), "blue": (0, 0, 255), "grey": (90, 90, 90)}
SIDES = {"red": (4, 3), "green": (5, 5), "blue": (6, 4), "grey": (3, 7)}  # rows, columns


def pixels(name: str) -> np.ndarray:
    """A picture of one colour and of its own size, with one white pixel near the top left."""
    made = np.full((*SIDES[name], 3), COLOURS[name], np.uint8)
    made[1, 0] = 255
    return made


def png(name: str) -> bytes:
    """The picture as a file's bytes; PNG, so that pixels come back exactly."""
    file = io.BytesIO()
    Pillow.fromarray(pixels(name)).save(file, "PNG")
    return file.getvalue()


def put(path: Path, content: bytes | str) -> Path:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def put_lines(path: Path, *objects) -> Path:
    """Write JSON lines."""
    return put(path, "".join(json.dumps(one) + "\n" for one in objects))


def say(role: str, content) -> dict:
    """A message."""
    return {"role": role, "content": content}


def exchange(user, assistant) -> list[dict]:
    """What most rows are."""
    return [say("user", user), say("assistant", assistant)]


def run(path: Path, importer: str = "auto", form: str = "jsonl", strict: bool = False, **options):
    """Convert into a new folder beside the data; gives the report and the rows as `read_back` does."""
    out = path.parent / f"out-{len(list(path.parent.glob('out-*')))}"
    report = convert(path, out, importer, Options(**options), form, strict)
    return report, read_back(report)


def read_back(report: Report) -> list[tuple[list | str, list[str]]]:
    """Each row as (messages or text, names of the pictures whose pixels its images have)."""
    if report.refusal:
        assert not report.out.exists()
        return []
    jsonl = report.out / "rows.jsonl"
    if jsonl.exists():
        rows = [json.loads(line) for line in jsonl.read_text("utf-8").splitlines()]
        stored = [[(report.out / image).read_bytes() for image in row.get("images", [])] for row in rows]
        assert len(list(report.out.glob("images/*"))) == report.pictures
    else:
        rows = pyarrow.parquet.read_table(report.out / "rows.parquet").to_pylist()
        stored = [[image["bytes"] for image in row["images"] or []] for row in rows]
    assert len(rows) == report.written == report.tasks.total()
    checked = check(jsonl if jsonl.exists() else report.out / "rows.parquet")
    assert checked.ok, checked.errors
    assert checked.tasks == report.tasks
    return [(row.get("text") or row["messages"], [name_of(d) for d in s]) for row, s in zip(rows, stored)]


def name_of(data: bytes) -> str:
    """Which of the four pictures it is; all but its pixels and its bytes would be a copy of another kind."""
    found = np.asarray(Pillow.open(io.BytesIO(data)).convert("RGB"))
    names = [name for name in COLOURS if np.array_equal(pixels(name), found)]
    assert len(names) == 1
    return names[0]


def dropped(report: Report) -> dict[str, int]:
    """How many were left out for each reason."""
    return {reason: count for reason, (count, _) in report.dropped.items()}
