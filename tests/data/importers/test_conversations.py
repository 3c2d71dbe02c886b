"""LLaVA and ShareGPT, OpenAI's parts, and rows themselves: every turn and picture arrives where it stood."""

import base64
import json

import pytest

from tests.data.importers.made import dropped, exchange, png, put, put_lines, run, say
from unimodal.data.check import check
from unimodal.errors import UserError


def turn(speaker, value):
    return {"from": speaker, "value": value}


def url(link):
    return {"type": "image_url", "image_url": {"url": link}}


def text(words):
    return {"type": "text", "text": words}


def test_llava(tmp_path):
    put(tmp_path / "coco/1.png", png("red"))
    put(tmp_path / "coco/2.png", png("blue"))
    data = [
        {
            "id": "a",
            "image": "coco/1.png",
            "conversations": [
                turn("human", "<image>\nWhat colour?"),
                turn("gpt", "Red."),
                turn("human", "Sure?"),
                turn("gpt", "Yes."),
            ],
        },
        {
            "id": "b",
            "image": ["coco/2.png", "coco/1.png"],
            "conversations": [turn("human", "From <image> to <image>?"), turn("gpt", "Blue, then red.")],
        },
        {
            "id": "c",
            "image": "",
            "conversations": [turn("system", "Be brief."), turn("human", "Hi"), turn("gpt", "Hi!")],
        },
    ]
    path = put(tmp_path / "llava.json", json.dumps(data, indent=2))
    report, rows = run(path)
    assert report.importer == "llava" and "'conversations'" in report.why
    assert rows == [
        (exchange("<image>\nWhat colour?", "Red.") + exchange("Sure?", "Yes."), ["red"]),
        (exchange("From <image> to <image>?", "Blue, then red."), ["blue", "red"]),
        ([say("system", "Be brief."), *exchange("Hi", "Hi!")], []),
    ]
    assert report.pictures == 2  # one of the three uses is of a file that is there already
    assert report.unused == {"id": 3}
    assert not report.dropped
    stored = {file.read_bytes() for file in report.out.glob("images/*")}
    assert stored == {png("red"), png("blue")}  # byte for byte


def test_what_llava_leaves_out_is_told_by_line(tmp_path):
    put(tmp_path / "in/a.png", png("red"))
    put(tmp_path / "secret.png", png("red"))
    put(tmp_path / "in/broken.png", png("red")[:45])
    good = [turn("human", "<image> ?"), turn("gpt", "red")]
    lines = [
        {"image": "a.png", "conversations": good},
        {"image": "a.png", "conversations": [turn("human", "?"), turn("gpt", "red")]},
        {"conversations": good},
        {"image": "gone.png", "conversations": good},
        {"image": "../secret.png", "conversations": good},
        {"image": "http://example.org/a.png", "conversations": good},
        {"image": "broken.png", "conversations": good},
        {"conversations": [turn("human", "hi"), turn("function_call", "f()")]},
        {"conversations": [turn("human", "hi"), turn("gpt", " ")]},
        {"conversations": "hi"},
        {"conversations": [turn("human", "only a question")]},
        {"conversations": [turn("human", "half \ud83d"), turn("gpt", "?")]},
    ]
    path = put_lines(tmp_path / "in/rows.jsonl", *lines)
    path.write_bytes(path.read_bytes() + b'{"conversations": [\n[1]\n')
    report, rows = run(path)
    assert rows == [(exchange("<image> ?", "red"), ["red"])]
    assert report.read == 14 and report.written == 1 and report.drops == 13
    firsts = {
        reason: (count, sentence.split(": ")[0]) for reason, (count, sentence) in report.dropped.items()
    }
    assert firsts == {
        "marks and pictures differ in number": (2, f"{path}:2"),
        "picture not found below the image root": (2, f"{path}:4"),
        "picture is a link": (1, f"{path}:6"),
        "picture not readable": (1, f"{path}:7"),
        "a turn of 'function_call'": (1, f"{path}:8"),
        "'value' is empty": (1, f"{path}:9"),
        "'conversations' is no list of turns": (1, f"{path}:10"),
        "not a valid row": (1, f"{path}:11"),
        "'value' holds half a character": (1, f"{path}:12"),
        "not a readable line": (1, f"{path}:13"),
        "not an object": (1, f"{path}:14"),
    }
    assert "Download it first" in report.dropped["picture is a link"][1]


def test_a_wider_root_lets_pictures_in(tmp_path):
    put(tmp_path / "pictures/a.png", png("red"))
    good = [turn("human", "<image> ?"), turn("gpt", "red")]
    path = put_lines(tmp_path / "text/a.jsonl", {"image": "a.png", "conversations": good})
    assert run(path)[0].refusal
    assert run(path, image_root=tmp_path / "pictures")[1] == [(exchange("<image> ?", "red"), ["red"])]


def test_lines_of_json_are_those_of_the_objects(tmp_path):
    objects = [
        {"conversations": [turn("human", "a\nb"), turn("gpt", "c")]},
        {"conversations": [turn("tool", "x")]},
    ]
    path = put(tmp_path / "a.json", json.dumps(objects, indent=1))
    where = path.read_text().splitlines().index(" {", 2) + 1
    report, _ = run(path)
    assert report.dropped["a turn of 'tool'"][1].startswith(f"{path}:{where}: ")
    one_after_another = put(tmp_path / "b.json", "\n".join(json.dumps(one, indent=1) for one in objects))
    assert run(one_after_another)[1] == run(path)[1] == [(exchange("a\nb", "c"), [])]


def test_objects_of_one_line_are_told_by_number(tmp_path):
    good, bad = {"conversations": [turn("human", "a"), turn("gpt", "c")]}, {"conversations": 1}
    path = put(tmp_path / "a.json", json.dumps([good, bad, bad]))
    report, _ = run(path)
    [(count, first)] = report.dropped.values()
    assert count == 2 and first.startswith(f"{path}:1 (object 2): ")
    put(path, json.dumps([good])[:-1] + ",\n" + json.dumps(bad) + "," + '{"conversations": [}]')
    with pytest.raises(UserError, match=r"a\.json:2 \(object 3\): not JSON"):
        run(path, "llava")


def test_openai(tmp_path):
    put(tmp_path / "a.png", png("green"))
    absolute = put(tmp_path / "b c.png", png("grey"))
    encoded = base64.b64encode(png("blue")).decode()
    path = put_lines(
        tmp_path / "chat.jsonl",
        {
            "messages": [
                say("developer", "Be brief."),
                say("user", [text("Compare "), url("a.png"), url(f"data:image/png;base64,{encoded}")]),
                say("assistant", "Green and blue."),
            ]
        },
        {
            "messages": [
                say("user", [{"type": "image_url", "image_url": absolute.as_uri()}, text("And <image>?")]),
                {**say("assistant", "A guess."), "weight": 0},
                say("user", "Go on."),
                {**say("assistant", "A mark."), "weight": 1},
            ]
        },
        {"messages": exchange([url("https://example.org/a.png")], "?")},
        {"messages": exchange([url("data:image/png;base64,AAAA")], "?")},
        {"messages": exchange([url("data:nothing")], "?")},
        {"messages": exchange([{"type": "input_audio", "input_audio": {}}], "?")},
        {"messages": [say("user", "?"), {**say("assistant", None), "tool_calls": [{"id": "x"}]}]},
        {"messages": [say("user", "?"), say("tool", "4")]},
    )
    report, rows = run(path)
    assert report.importer == "openai"
    literal = [{"type": "image"}, {"type": "text", "text": "And <image>?"}]
    assert rows == [
        (
            [say("system", "Be brief."), *exchange("Compare <image><image>", "Green and blue.")],
            ["green", "blue"],
        ),
        (
            [
                say("user", literal),
                {**say("assistant", "A guess."), "trained": False},
                *exchange("Go on.", "A mark."),
            ],
            ["grey"],
        ),
    ]
    assert dropped(report) == {
        "picture is a link": 1,
        "picture not readable": 1,
        "broken data: URL": 1,
        "a part of type 'input_audio'": 1,
        "a message with 'tool_calls'": 1,
        "a turn of 'tool'": 1,
    }
    assert "Download it first" in report.dropped["picture is a link"][1]


def test_the_name_of_who_speaks_is_told(tmp_path):
    named = [{**say("user", "hi"), "name": "ann"}, say("assistant", "ho")]
    unnamed = [{**say("user", "hi"), "name": None}, {**say("assistant", "ho"), "weight": 1}]
    path = put_lines(tmp_path / "a.jsonl", {"messages": named + named}, {"messages": unnamed})
    report, rows = run(path)
    assert report.importer == "openai" and len(rows) == 2
    assert report.unused == {"messages.name": 1}


def test_how_closely_a_server_should_look_is_told(tmp_path):
    put(tmp_path / "a.png", png("red"))
    closely = {"type": "image_url", "image_url": {"url": "a.png", "detail": "high"}}
    path = put_lines(tmp_path / "a.jsonl", {"messages": [say("user", [closely]), say("assistant", "Red.")]})
    report, rows = run(path)
    assert len(rows) == 1 and report.unused == {"image_url.detail": 1}


def test_rows_are_gathered(tmp_path):
    put(tmp_path / "in/a.png", png("red"))
    put(tmp_path / "in/b.png", png("blue"))
    in_place = [{"type": "image", "image": "b.png"}, text("to "), {"type": "image"}]
    path = put_lines(
        tmp_path / "in/r.jsonl",
        {"messages": exchange("draw", "<image>"), "images": ["a.png"], "id": 7},
        {"messages": exchange(in_place, "yes"), "images": ["a.png"]},
        {"messages": [*exchange("a", "b"), {**say("assistant", "c"), "trained": False}]},
    )
    report, rows = run(path)
    assert report.importer == "rows" and report.unused == {"id": 1}
    assert rows == [
        (exchange("draw", "<image>"), ["red"]),
        (exchange("<image>to <image>", "yes"), ["blue", "red"]),
        ([*exchange("a", "b"), {**say("assistant", "c"), "trained": False}], []),
    ]
    plain = put_lines(tmp_path / "plain.jsonl", {"text": "one"}, {"text": "two <image>"}, {"text": ""})
    report, rows = run(plain)
    assert rows == [("one", []), ("two <image>", [])]
    assert dropped(report) == {"'text' is empty": 1}


def test_a_blank_system_prompt_is_none(tmp_path):
    said = [turn("human", "hi"), turn("gpt", "ho")]
    llava = put_lines(
        tmp_path / "llava.jsonl",
        {"conversations": said, "system": ""},
        {"conversations": said, "system": " \n"},
        {"conversations": [turn("system", ""), *said]},
        {"conversations": [turn("system", None), *said], "system": "Be brief."},
    )
    openai = put_lines(
        tmp_path / "openai.jsonl",
        {"messages": [say("developer", ""), *exchange("hi", "ho")]},
        {"messages": [say("system", [text(""), text(" ")]), *exchange("hi", "ho")]},
        {"messages": [say("system", None), *exchange("hi", "ho")]},
        {"messages": [say("system", "Be brief."), *exchange("hi", "ho")]},
    )
    alpaca = put_lines(
        tmp_path / "alpaca.jsonl",
        *({"instruction": "hi", "input": " ", "output": "ho", "system": blank} for blank in ("", " ", None)),
        {"instruction": "hi", "output": "ho", "system": "Be brief."},
    )
    for path in (llava, openai, alpaca):
        report, rows = run(path, strict=True)
        assert rows == [(exchange("hi", "ho"), [])] * 3 + [
            ([say("system", "Be brief."), *exchange("hi", "ho")], [])
        ]
        assert not report.unused


def test_rows_are_kept_if_training_takes_them(tmp_path):
    kept = [
        [say("system", ""), *exchange("hi", "ho")],
        exchange("", "once upon a time"),
        exchange("", [text(" "), text("well")]),
    ]
    refused = [exchange("hi", ""), exchange("hi", [text(" ")])]
    path = put_lines(tmp_path / "r.jsonl", *({"messages": messages} for messages in kept + refused))
    assert check(path).mistakes == len(refused)
    report, rows = run(path)
    assert [[m["content"] for m in messages] for messages, _ in rows] == [
        ["", "hi", "ho"],
        ["", "once upon a time"],
        ["", " well"],
    ]
    assert dropped(report) == {"not a valid row": len(refused)}
    assert "of the assistant is empty" in report.dropped["not a valid row"][1]
    packed, same = run(path, form="parquet")
    assert packed.written == len(kept) == len(same)
