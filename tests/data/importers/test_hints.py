"""Hints: who gives other data to training, checking or converting reads the command that makes rows of it."""

import json

import pytest
from typer.testing import CliRunner

from tests.data.importers.made import exchange, png, put, put_lines, run
from unimodal.cli import app
from unimodal.data.importers import advice
from unimodal.data.importers.convert import convert
from unimodal.data.rows import parse_row
from unimodal.data.source import FileSource
from unimodal.errors import UserError


def refused(path) -> str:
    """What `data check` says of a file with one row."""
    done = CliRunner().invoke(app, ["data", "check", str(path)])
    assert done.exit_code == 1
    return f"{done.output} {done.exception}".replace("\n", "")


def follow(told: str, out) -> int:
    """Run the command that a message names, word by word; gives how many rows came of it."""
    words = told[told.index("unimodal data ") :].partition("--out FOLDER")[0].split()
    done = CliRunner().invoke(app, [*words[1:], "--out", str(out)])
    assert done.exit_code == 0, done.output
    return sum(len(file.read_text().splitlines()) for file in out.glob("*.jsonl"))


ROWS = {
    "metadata": ("metadata.jsonl", {"file_name": "a.png", "text": "x"}, "--from imagefolder --out"),
    "metadata of edits": (
        "metadata.jsonl",
        {"input_image_file_name": "a.png", "edited_image_file_name": "a.png", "edit_prompt": "x"},
        "--from imagefolder --out",
    ),
    "no metadata": (
        "a.jsonl",
        {"file_name": "a.png", "text": "x"},
        "--from columns-t2i --map image=file_name --out",
    ),
    "an id": ("a.jsonl", {"messages": exchange("a", "b"), "id": 3}, "--from rows --out"),
    "a text's url": ("a.jsonl", {"text": "a", "url": "b"}, "--from rows --out"),
    "completions": (
        "a.jsonl",
        {"prompt": "a", "completion": "b"},
        "--from alpaca --map instruction=prompt --map output=completion --out",
    ),
    "captions": (
        "a.jsonl",
        {"image": "a.png", "caption": "b"},
        "--from columns-t2i --map text=caption --out",
    ),
    "answers": (
        "a.jsonl",
        {"image": "a.png", "prompt": "a", "response": "b"},
        "--from columns-vqa --map question=prompt --map answer=response --out",
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_of_another_kind_names_the_command_that_makes_rows_of_it(name, tmp_path):
    file, record, words = ROWS[name]
    put(tmp_path / "a.png", png("red"))
    path = put_lines(tmp_path / file, record)
    told = refused(path)
    assert f"unimodal data convert {path} {words}" in told
    assert follow(told, tmp_path / "out") == 1


@pytest.mark.parametrize(
    "row",
    [
        {
            "messages": exchange("a", "<image>"),
            "image": ["a.png"],
        },  # a name mistyped: taking it off is no mend
        {"messages": exchange("a", "b"), "videos": ["a.mp4"]},
        {"messages": exchange("a", "b"), "text": "c", "id": 3},
        {"prompt": exchange("a", "b"), "completion": exchange("a", "b")},
        {"colour": "red"},
    ],
)
def test_no_command_is_named_that_would_not_help(row):
    with pytest.raises(UserError) as error:
        parse_row(row, "a.jsonl:1")
    assert "unimodal data" not in str(error.value)


def test_files_of_another_kind(tmp_path):
    text = put(tmp_path / "in/a.txt", "One.\n\nTwo.\n")
    for path in (text, text.parent):
        told = f"unimodal data make plain {path} --out FOLDER"
        for tried in (FileSource, lambda path: convert(path, tmp_path / "out")):
            with pytest.raises(UserError) as error:
                tried(path)
            assert told in str(error.value)
    array = put(tmp_path / "a.json", json.dumps([{"messages": exchange("a", "b")}]))
    assert f"convert {array} --from rows" in advice(array)
    pairs = put(tmp_path / "a.csv", "prompt,completion\na,b\n")
    with pytest.raises(UserError, match=r"no format that is known(.|\n)*--map instruction=prompt"):
        run(pairs)
    assert advice(tmp_path / "none.txt") == ""


@pytest.mark.parametrize(
    ("name", "data"), [("a.json", ""), ("a.json", "[]"), ("a.jsonl", "\n"), ("a.csv", "a,b\n")]
)
def test_without_records_it_is_said_so(name, data, tmp_path):
    path = put(tmp_path / name, data)
    with pytest.raises(UserError, match=f"{name}: it has no records"):
        run(path)
    assert f"{name}: it has no records" in run(path, "alpaca")[0].refusal
