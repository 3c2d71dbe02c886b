"""Scores side by side: what a column is called, and what is refused."""

import json

import pytest
from typer.testing import CliRunner

from unimodal.cli import app
from unimodal.errors import UserError
from unimodal.evaluation.markdown import read_reports


@pytest.fixture
def written(tmp_path):
    def write(name: str, model: str = "one", suite: str = "shapes", split: str = "val"):
        scores = {"t2i/mean": {"value": 0.5, "low": 0.25, "high": 0.75, "n": 8}}
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps({"model": model, "suite": suite, "split": split, "scores": scores}))
        return file

    return write


def test_columns_are_splits_of_one_model_and_files_of_several(written):
    val, unseen = written("a"), written("b", split="unseen")
    assert list(read_reports([val, unseen])) == ["val", "unseen"]
    assert list(read_reports([val, written("c", model="two")])) == ["a", "c"]
    assert list(read_reports([val, written("d")])) == ["a", "d"]  # judged twice


def test_costs_join_the_scores_of_their_model(written):
    def costs(name: str, model: str):
        file = written(name, model, suite="cost")
        report = json.loads(file.read_text())
        report["scores"] = {"cost/gflop": {"value": 2.0, "low": 2.0, "high": 2.0, "n": 1}}
        file.write_text(json.dumps(report))
        return file

    files = [
        written("flow"),
        costs("flow-cost", "one"),
        written("masked", "two"),
        costs("masked-cost", "two"),
    ]
    found = read_reports(files)
    assert list(found) == ["flow", "masked"]
    assert all(set(report["scores"]) == {"t2i/mean", "cost/gflop"} for report in found.values())
    assert list(read_reports([files[1], files[3]])) == ["flow-cost", "masked-cost"]
    with pytest.raises(UserError, match="masked-cost says what two costs, and no other file has its scores"):
        read_reports([files[0], files[3]])


def test_the_command_prints_a_row_a_score(written):
    told = CliRunner().invoke(app, ["table", str(written("flow")), str(written("masked", model="two"))])
    assert told.output.splitlines() == [
        "| score | `flow` | `masked` |",
        "|---|---|---|",
        "| `t2i/mean` | 0.500 (0.250 to 0.750, n = 8) | 0.500 (0.250 to 0.750, n = 8) |",
    ]


def test_what_is_no_scores_is_a_sentence(written, tmp_path):
    good = written("good")
    with pytest.raises(UserError, match=r"missing\.json does not exist; `unimodal eval"):
        read_reports([tmp_path / "missing.json"])
    for text in ("{", "[1]", '{"model": "one"}'):
        (tmp_path / "other.json").write_text(text)
        with pytest.raises(UserError, match=r"other\.json holds no scores"):
            read_reports([tmp_path / "other.json"])
    with pytest.raises(UserError, match=r"several suites \(emoji, shapes\)"):
        read_reports([good, written("emoji", suite="emoji")])
    with pytest.raises(UserError, match="two files are called good"):
        read_reports([good, good])
