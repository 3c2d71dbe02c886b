"""BAGEL's parquet: every caption and every wording of an instruction is used, in chains of any length."""

import json

import pyarrow as pa
import pyarrow.parquet

from tests.data.importers.made import dropped, exchange, png, run


def test_captions(tmp_path):
    columns = {
        "image": [png("red"), png("blue"), png("blue"), b"no picture"],
        "captions": [
            json.dumps({"short": "red", "long": "a red thing", "none": ""}),
            "{broken",
            json.dumps(["a list"]),
            json.dumps({"short": "?"}),
        ],
    }
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
    report, rows = run(tmp_path / "a.parquet")
    assert report.importer == "bagel"
    assert rows == [(exchange("red", "<image>"), ["red"]), (exchange("a red thing", "<image>"), ["red"])]
    assert dropped(report) == {
        "'captions' is empty": 1,
        "'captions' is not JSON": 1,
        "'captions' is no object": 1,
        "picture not readable": 1,
    }


def test_chains_of_edits(tmp_path):
    columns = {
        "image_list": [
            [png("red"), png("blue"), png("green")],
            [png("red"), png("grey")],
            [png("red"), png("grey")],
        ],
        "instruction_list": [
            [["make it blue", "blue, please", "turn blue"], ["now green", "green now"]],
            [["grey"], ["too many"]],
            [[]],
        ],
        "num": [1, 2, 3],
    }
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
    report, rows = run(tmp_path / "a.parquet")
    assert rows == [
        (exchange(f"<image>{first}", "<image>") + exchange(then, "<image>"), ["red", "blue", "green"])
        for first, then in (
            ("make it blue", "now green"),
            ("blue, please", "green now"),
            ("turn blue", "now green"),
        )
    ]
    assert dropped(report) == {
        "pictures and instructions do not alternate": 1,
        "a step without an instruction": 1,
    }
    assert report.unused == {"num": 1}
    assert report.pictures == 3
