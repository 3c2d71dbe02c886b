"""Held-out rows: pictures and questions are on one side alone, and order does not matter."""

import io
import json
import random

import pyarrow.parquet
import pytest
from PIL import Image as Pillow
from rich.console import Console
from typer.testing import CliRunner

from tests.data.importers.made import exchange, put, put_lines
from unimodal.cli import app
from unimodal.data.check import check
from unimodal.data.importers.convert import convert, print_report
from unimodal.errors import UserError


def pictures(folder, count: int) -> None:
    for n in range(count):
        file = io.BytesIO()
        Pillow.new("RGB", (2, 2), (n, 7, 9)).save(file, "PNG")
        put(folder / f"{n}.png", file.getvalue())


def rows_of(path) -> list[dict]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    return pyarrow.parquet.read_table(path).to_pylist()


def sides_of(out, form: str) -> list[list[dict]]:
    assert sorted(p.name for p in out.iterdir() if p.is_file()) == [f"train.{form}", f"val.{form}"]
    assert check(out / f"train.{form}").ok and check(out / f"val.{form}").ok
    return [rows_of(out / f"{side}.{form}") for side in ("train", "val")]


def of(row: dict) -> set:
    return {image if isinstance(image, str) else image["bytes"] for image in row["images"]}


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_no_picture_is_on_both_sides(tmp_path, form):
    pictures(tmp_path, 200)
    rng = random.Random(0)
    rows = [
        {"messages": exchange("<image>" * count + f"what is {n}?", "x"), "images": images}
        for n in range(260)
        for count in [rng.choice([1, 1, 1, 2])]
        for images in [[f"{rng.randrange(200)}.png" for _ in range(count)]]
    ]
    report = convert(put_lines(tmp_path / "a.jsonl", *rows), tmp_path / "out", form=form, val=0.3)
    train, val = sides_of(tmp_path / "out", form)
    assert report.sides == (len(train), len(val)) and len(train) + len(val) == 260
    assert not set().union(*map(of, train)) & set().union(*map(of, val))
    assert 0.15 < len(val) / 260 < 0.45


def test_chains_of_pictures_stay_together(tmp_path):
    pictures(tmp_path, 6)
    links = [
        (0, 1),
        (2, 3),
        (4, 5),
        (1, 2),
        (3, 4),
    ]  # one chain, though rows 0 and 4 have no picture in common
    rows = [
        {"messages": exchange("<image><image>?", "x"), "images": [f"{a}.png", f"{b}.png"]} for a, b in links
    ]
    for n, order in enumerate((rows, rows[::-1])):
        out = tmp_path / f"out{n}"
        with pytest.raises(UserError, match="all 5 rows fall on one side; they are 1 groups"):
            convert(put_lines(tmp_path / "a.jsonl", *order), out, val=0.5)
        assert not out.exists()


def test_texts_fall_by_what_is_asked_in_any_order(tmp_path):
    rows = [{"messages": exchange(f"question {n // 2}", f"answer {n}")} for n in range(400)]
    rows += [{"text": f"text {n}"} for n in range(200)]
    found = []
    for name, some in (("a", rows), ("b", rows[::-1]), ("c", rows[:300])):
        convert(put_lines(tmp_path / f"{name}.jsonl", *some), tmp_path / name, val=0.1)
        train, val = sides_of(tmp_path / name, "jsonl")
        assert 0.05 < len(val) / len(some) < 0.16
        asked = [
            {row["messages"][0]["content"] for row in side if "messages" in row} for side in (train, val)
        ]
        assert not asked[0] & asked[1]
        found.append({json.dumps(row) for row in val})
    assert found[0] == found[1] and found[2] == found[0] & {
        json.dumps(row | {"images": []}) for row in rows[:300]
    }


def test_the_command_holds_out(tmp_path):
    path = put_lines(tmp_path / "a.jsonl", *({"text": f"text {n}"} for n in range(50)), {"text": ""})

    def unimodal(*args):
        return CliRunner().invoke(app, ["data", "convert", str(path), *map(str, args)])

    done = unimodal("--out", tmp_path / "out", "--val", 0.2)
    assert done.exit_code == 0 and "in train" in done.output and "in val" in done.output
    _, val = sides_of(tmp_path / "out", "jsonl")
    shown = io.StringIO()
    print_report(convert(path, tmp_path / "again", val=0.2), Console(file=shown, width=120))
    assert f"in val │ {len(val)}" in " ".join(shown.getvalue().split())
    assert unimodal("--out", tmp_path / "strict", "--val", 0.2, "--strict").exit_code == 1
    for wrong in (0, 1, -0.1, "nan"):
        refused = unimodal("--out", tmp_path / "none", "--val", wrong)
        assert isinstance(refused.exception, UserError) and "is no share" in str(refused.exception)
    assert not (tmp_path / "none").exists() and not (tmp_path / "strict").exists()
