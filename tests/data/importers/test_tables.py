"""Folders of tables: `datasets` says which files are splits, each is read as if alone, none is lost."""

import json

import datasets
import pyarrow as pa
import pyarrow.parquet
import pytest

from tests.data.importers.made import dropped, exchange, png, put, put_lines, run
from unimodal.data.importers import recognise
from unimodal.errors import UserError

LEFT = "table that datasets leaves out"


def words(text):
    return {"text": text}


def test_a_table_of_another_kind_is_told(tmp_path):
    (tmp_path / "in").mkdir()
    pyarrow.parquet.write_table(pa.table({"text": ["taken"]}), tmp_path / "in/a.parquet")
    other = put_lines(tmp_path / "in/b.jsonl", words("lost"))
    put_lines(tmp_path / "in/.cache/c.jsonl", words("hidden"))
    put(tmp_path / "in/dataset_infos.json", "{}")
    report, rows = run(tmp_path / "in")
    assert rows == [("taken", [])] and dropped(report) == {LEFT: 1}
    assert report.dropped[LEFT][1].startswith(f"{other}: the datasets library takes a.parquet")
    assert "1 would be left out" in run(tmp_path / "in", strict=True)[0].refusal


def test_a_table_of_no_split_is_told_and_those_of_other_splits_are_not(tmp_path):
    for name in ("train", "test", "extra"):
        put_lines(tmp_path / f"in/{name}.jsonl", words(name))
    report, rows = run(tmp_path / "in", split="train")
    assert rows == [("train", [])] and dropped(report) == {LEFT: 1}
    assert report.dropped[LEFT][1].startswith(f"{tmp_path / 'in/extra.jsonl'}: ")
    (tmp_path / "in/extra.jsonl").unlink()
    assert not run(tmp_path / "in", split="test", strict=True)[0].refusal


def test_what_lies_in_a_saved_dataset_is_told(tmp_path):
    made = datasets.Dataset.from_dict({"text": ["one"]})
    made.save_to_disk(tmp_path / "saved")
    datasets.load_from_disk(str(tmp_path / "saved")).map(lambda row: row)  # leaves a cache there
    assert len(list((tmp_path / "saved").glob("*.arrow"))) == 2
    assert not run(tmp_path / "saved", strict=True)[0].refusal
    put_lines(tmp_path / "saved/more.jsonl", words("two"))
    report, rows = run(tmp_path / "saved")
    assert rows == [("one", [])] and dropped(report) == {LEFT: 1}


def test_a_folder_of_json(tmp_path):
    first = [{"instruction": "a", "output": "b"}, {"instruction": "c", "output": ["d"]}]
    path = put(tmp_path / "in/1.json", json.dumps(first, indent=1))
    put(tmp_path / "in/2.json", '{"instruction": "e", "output": "f"}\n{"instruction": "g", "output": "h"}')
    report, rows = run(tmp_path / "in")
    assert rows == [(exchange(*pair), []) for pair in ("ab", "ef", "gh")]
    assert dropped(report) == {"'output' is no text": 1}
    assert report.dropped["'output' is no text"][1].startswith(f"{path}:6: ")


def test_values_of_mixed_types_stay_what_they_are(tmp_path):
    parts = [{"type": "text", "text": "in parts"}]
    lines = [{"messages": exchange("plain", "yes")}, {"messages": exchange(parts, "yes")}]
    put_lines(tmp_path / "in/a.jsonl", *lines)
    put(tmp_path / "csv/a.csv", "instruction,output\nhow many?,007\n")
    assert run(tmp_path / "in", "rows")[1] == run(tmp_path / "in/a.jsonl", "rows")[1]
    assert run(tmp_path / "csv")[1] == [(exchange("how many?", "007"), [])]


def test_a_broken_line_of_a_folder_is_told_by_its_file(tmp_path):
    path = put(tmp_path / "in/a.jsonl", '{"text": "one"}\n{"text":\n{"text": "three"}\n')
    report, rows = run(tmp_path / "in")
    assert rows == [("one", []), ("three", [])]
    assert report.dropped["not a readable line"][1].startswith(f"{path}:2: ")


def test_a_folder_that_is_no_tables_is_left_to_others(tmp_path):
    for name in ("1", "2"):
        put(tmp_path / f"in/{name}.txt", "plain text")
    put_lines(tmp_path / "in/a.json", {"instruction": "a", "output": "b"})
    with pytest.raises(UserError, match=r"takes 1\.txt of it; expected files that end in \.json.*make plain"):
        run(tmp_path / "in")
    put(tmp_path / "model/config.json", '{"text": "none"}')
    assert recognise(tmp_path / "model") is None
    put(tmp_path / "pictures/red.png", png("red"))
    put(tmp_path / "pictures/red.txt", "a red one")
    put(tmp_path / "pictures/red.json", '{"text": "none"}')
    assert recognise(tmp_path / "pictures") == "captions"
