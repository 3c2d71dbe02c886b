"""Nothing is lost or altered in silence: what a row cannot hold is left out by name; --strict stops there."""

import pytest
from typer.testing import CliRunner

from tests.data.importers.made import dropped, exchange, png, put, put_lines, run, say
from unimodal.cli import app
from unimodal.data.rows import parse_row
from unimodal.errors import UserError

HUMAN = {"from": "human", "value": "hi"}
GPT = {"from": "gpt", "value": "ho"}
HEARD = {"from": "human", "value": "<audio> what is said?"}


def test_turns_that_are_not_learned_stay_so(tmp_path):
    for key, no, yes in (("weight", 0, 1), ("train", False, True), ("trained", False, True)):
        turns = [HUMAN, {**GPT, key: no}, HUMAN, {**GPT, key: yes}, {**HUMAN, key: no}, {**GPT, key: None}]
        _, rows = run(put_lines(tmp_path / f"{key}.jsonl", {"conversations": turns}), strict=True)
        bad = {**say("assistant", "ho"), "trained": False}
        assert rows == [([say("user", "hi"), bad, *exchange("hi", "ho"), *exchange("hi", "ho")], [])]


def reply(**more) -> dict:
    return {"conversations": [HUMAN, {**GPT, **more}]}


def asked(content, **more) -> dict:
    return {"messages": exchange(content, "ho"), **more}


LOST = {
    "half a weight": ("llava", reply(weight=0.5), "a turn whose 'weight' is not 0 or 1"),
    "a weight of words": ("llava", reply(train="no"), "a turn whose 'train' is not true or false"),
    "a user to be learned": (
        "llava",
        {"conversations": [{**HUMAN, "train": True}, GPT]},
        "a turn of the user with 'train'",
    ),
    "a key of a turn": ("llava", reply(tool_calls=[1]), "a turn with 'tool_calls'"),
    "two texts": ("llava", reply(content="he"), "a turn with 'value' and 'content'"),
    "a video": ("llava", reply() | {"video": "a.mp4"}, "a record with 'video'"),
    "a mark of a sound": ("llava", {"conversations": [HEARD, GPT]}, "a mark <audio>"),
    "half a weight of OpenAI": (
        "openai",
        {"messages": [say("user", "hi"), {**say("assistant", "ho"), "weight": 0.5}]},
        "a turn whose 'weight' is not 0 or 1",
    ),
    "videos of alpaca": (
        "alpaca",
        {"instruction": "a", "output": "b", "videos": ["a.mp4"]},
        "a record with 'videos'",
    ),
    "videos of rows": ("rows", asked("hi", videos=["a.mp4"]), "a record with 'videos'"),
}
# What training refuses of a row, converting rows refuses too: it never writes the half that would be right.
NO_ROWS = {
    "images beside a text": ({"text": "x", "images": ["a.png"]}, "'text' beside 'messages' or 'images'"),
    "no images beside a text": ({"text": "x", "images": []}, "'text' beside 'messages' or 'images'"),
    "messages beside a text": (asked("hi", text="x"), "'text' beside 'messages' or 'images'"),
    "a thought": (asked([{"type": "thinking", "text": "hm"}]), "a part of type 'thinking'"),
    "a part without a type": (asked([{"text": "hm"}]), "a part of type None"),
    "a string as a part": (asked(["hm"]), "a part of type None"),
    "a key of a part": (asked([{"type": "text", "text": "a", "cited": "b"}]), "a part with 'cited'"),
}
LOST |= {name: ("rows", *case) for name, case in NO_ROWS.items()}


@pytest.mark.parametrize("name", LOST)
def test_what_a_row_cannot_hold_is_left_out_by_name(name, tmp_path):
    importer, record, reason = LOST[name]
    put(tmp_path / "a.png", png("red"))
    good = {"llava": reply(), "alpaca": {"instruction": "a", "output": "b"}}.get(importer, asked("hi"))
    path = put_lines(tmp_path / "a.jsonl", good, record)
    report, rows = run(path, importer)
    assert len(rows) == 1 and dropped(report) == {reason: 1}
    assert report.dropped[reason][1].startswith(f"{path}:2: ")
    command = ["data", "convert", str(path), "--from", importer, "--strict", "--out", str(tmp_path / "out")]
    assert CliRunner().invoke(app, command).exit_code == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", NO_ROWS)
def test_training_refuses_these_rows_too(name, tmp_path):
    put(tmp_path / "a.png", png("red"))
    with pytest.raises(UserError):
        parse_row(NO_ROWS[name][0], "a.jsonl:1", tmp_path)
