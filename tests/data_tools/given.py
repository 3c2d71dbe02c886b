"""Where the tests find real data, which is no part of the project; they skip, saying so, without it."""

import json
import os
from pathlib import Path

import pytest

BESIDE = Path(__file__).parents[3] / "shared" / "data"
DATA = Path(os.environ.get("UNIMODAL_TEST_DATA") or BESIDE)


def real(name: str) -> Path:
    """The folder of one corpus; skips the test if it is not there."""
    folder = DATA / name
    if not folder.exists():
        pytest.skip(f"no {folder}; set UNIMODAL_TEST_DATA to a folder with {name} in it")
    return folder


def lines(path: Path) -> list[dict]:
    """The objects of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def examples(out: Path, split: str) -> list[tuple[dict, dict]]:
    """Rows with their truth."""
    rows, truths = lines(out / f"{split}.jsonl"), lines(out / f"{split}.truth.jsonl")
    assert len(rows) == len(truths)
    return list(zip(rows, truths))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
