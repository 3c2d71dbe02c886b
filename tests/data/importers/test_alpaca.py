"""Alpaca: an instruction and its input ask, the output answers; a written "<image>" stays letters."""

import json

import pyarrow as pa
import pyarrow.parquet

from tests.data.importers.made import dropped, exchange, png, put, put_lines, run, say

RECORDS = [
    {"instruction": "Add.", "input": "2 and 3", "output": "5"},
    {"instruction": "Greet me.", "input": "", "output": "Hello!"},
    {"instruction": "Which tag?", "input": "", "output": "<image> it is"},
    {"instruction": "Say nothing.", "input": "", "output": ""},
    {"instruction": "Broken", "input": ""},
    {"instruction": "Number", "input": "", "output": 5},
]
ROWS = [
    (exchange("Add.\n2 and 3", "5"), []),
    (exchange("Greet me.", "Hello!"), []),
    (exchange("Which tag?", [{"type": "text", "text": "<image> it is"}]), []),
]


def test_alpaca_in_every_table(tmp_path):
    pyarrow.parquet.write_table(pa.Table.from_pylist(RECORDS[:5]), tmp_path / "a.parquet")
    put(tmp_path / "a.json", json.dumps(RECORDS))
    put_lines(tmp_path / "a.jsonl", *RECORDS)
    for name, drops in (
        ("a.json", {"'output' is empty": 1, "no 'output'": 1, "'output' is no text": 1}),
        ("a.jsonl", {"'output' is empty": 1, "no 'output'": 1, "'output' is no text": 1}),
        ("a.parquet", {"'output' is empty": 1, "no 'output'": 1}),
    ):
        report, rows = run(tmp_path / name)
        assert report.importer == "alpaca"
        assert rows == ROWS
        assert dropped(report) == drops
        assert "--map output=FIELD" in report.dropped["no 'output'"][1]


def test_additions_of_llama_factory(tmp_path):
    put(tmp_path / "a.png", png("red"))
    path = put_lines(
        tmp_path / "a.jsonl",
        {
            "system": "Be kind.",
            "history": [["Hi", "Hello"], ["How?", "Fine"]],
            "instruction": "<image> Colour?",
            "input": "",
            "output": "Red",
            "images": ["a.png"],
        },
        {"instruction": "a", "output": "b", "history": ["c"]},
    )
    report, rows = run(path)
    talk = [*exchange("Hi", "Hello"), *exchange("How?", "Fine"), *exchange("<image> Colour?", "Red")]
    assert rows == [([say("system", "Be kind."), *talk], ["red"])]
    assert dropped(report) == {"'history' is no list of pairs": 1}


def test_fields_by_other_names(tmp_path):
    path = put_lines(tmp_path / "a.jsonl", {"q": "2+2?", "a": "4", "source": "book"})
    report, rows = run(path, mapping={"instruction": "q", "output": "a"})
    assert report.importer == "alpaca"
    assert rows == [(exchange("2+2?", "4"), [])]
    assert report.unused == {"source": 1}
