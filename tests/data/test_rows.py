"""Rows: both forms parse to the same documents; every mistake is told with file, line and a mend."""

import errno
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image as Pillow

from unimodal.data.document import Document, Image, Text, Turn
from unimodal.data.files import read_rows
from unimodal.data.rows import parse_row
from unimodal.data.source import FileSource
from unimodal.errors import UserError

RED = np.full((8, 6, 3), (255, 0, 0), np.uint8)
BLUE = np.full((8, 6, 3), (0, 0, 255), np.uint8)


def same(a: Document, b: Document) -> bool:
    def plain(document):
        return [
            (t.role, [(p.pixels.tobytes(), p.trained) if isinstance(p, Image) else p for p in t.parts])
            for t in document.turns
        ]

    return plain(a) == plain(b)


def row(user="x", assistant="y", images=(), **more):
    messages = [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
    return {"messages": messages, "images": list(images), **more}


EDIT = Document(
    (
        Turn("system", (Text("Be kind."),)),
        Turn("user", (Text("make it "), Image(RED), Text(" blue"))),
        Turn("assistant", (Image(BLUE, True), Text(" done", True))),
    )
)


def test_marks_take_the_images_in_order():
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "make it <image> blue"},
        {"role": "assistant", "content": "<image> done"},
    ]
    document = parse_row({"messages": messages, "images": [RED, BLUE]}, "a.jsonl:1")
    assert same(document, EDIT)
    assert document.id == "a.jsonl:1"


def test_parts_say_the_same_as_marks():
    content = [{"type": "text", "text": "make it "}, {"type": "image"}, {"type": "text", "text": " blue"}]
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "Be kind."}]},
        {"role": "user", "content": content},
        {
            "role": "assistant",
            "content": [{"type": "image", "image": BLUE}, {"type": "text", "text": " done"}],
        },
    ]
    assert same(parse_row({"messages": messages, "images": [RED]}, "x:1"), EDIT)


def test_a_mark_in_a_text_part_is_text():
    content = [{"type": "text", "text": "what is <image>?"}]
    assert parse_row(row(content), "x:1").turns[0].parts == (Text("what is <image>?"),)


def test_plain_text_is_all_trained():
    assert parse_row({"text": "a <image> b"}, "x:1").turns == (Turn(None, (Text("a <image> b", True),)),)


def test_an_assistant_may_be_left_untrained():
    messages = [
        {"role": "user", "content": "draw"},
        {"role": "assistant", "content": "<image>", "trained": False},
        {"role": "user", "content": "again"},
        {"role": "assistant", "content": "<image>", "trained": True},
    ]
    document = parse_row({"messages": messages, "images": [RED, RED]}, "x:1")
    assert [image.trained for image in document.images] == [False, True]


def test_absent_and_null_are_one():
    messages = [{"role": "user", "content": "x", "trained": None}, {"role": "assistant", "content": "y"}]
    document = parse_row({"messages": messages, "images": None, "text": None, "extra": None}, "x:1")
    assert [turn.parts for turn in document.turns] == [(Text("x"),), (Text("y", True),)]


def test_images_in_every_form_are_one(tmp_path):
    file = tmp_path / "sub" / "red.png"
    file.parent.mkdir()
    Pillow.fromarray(RED).save(file)
    data = file.read_bytes()
    forms = ["sub/red.png", "./sub/../sub/red.png", str(file), Path("sub/red.png"), data]
    forms += [
        {"bytes": data, "path": None},
        {"bytes": data, "path": "elsewhere.png"},
        {"path": "sub/red.png"},
    ]
    forms += [Pillow.open(file), RED]
    for form in forms:
        document = parse_row(row("<image>", images=[form]), "x:1", tmp_path)
        np.testing.assert_array_equal(document.images[0].pixels, RED)


def test_jsonl_and_parquet_read_alike(tmp_path):
    Pillow.fromarray(RED).save(tmp_path / "red.png")
    data = (tmp_path / "red.png").read_bytes()
    rows = [row("one <image>", "1", ["red.png"]), {"text": "two é"}, row("three", "3")]
    lines = [json.dumps(r, ensure_ascii=False) for r in rows]
    (tmp_path / "a.jsonl").write_text(lines[0] + "\n\n" + lines[1] + "\r\n" + lines[2], encoding="utf-8")
    table = {
        "messages": [r.get("messages") for r in rows],
        "images": [[{"bytes": data, "path": "red.png"}], None, []],
        "text": [r.get("text") for r in rows],
    }
    pa.parquet.write_table(pa.table(table), tmp_path / "a.parquet")
    parsed = {}
    for name, numbers in (("a.jsonl", (1, 3, 4)), ("a.parquet", (1, 2, 3))):
        found = list(read_rows(tmp_path / name))
        assert [where for where, _ in found] == [f"{tmp_path / name}:{n}" for n in numbers]
        source = FileSource(tmp_path / name)
        assert source.length == 3
        assert [source.row(i) for i in (2, 0, 1)] == [found[i] for i in (2, 0, 1)]
        parsed[name] = [parse_row(r, where, tmp_path) for where, r in found]
    assert all(same(a, b) for a, b in zip(parsed["a.jsonl"], parsed["a.parquet"]))
    assert parsed["a.jsonl"][1].turns[0].parts[0].text == "two é"


def test_parquet_with_the_image_feature(tmp_path):
    import datasets

    features = datasets.Features(
        {
            "messages": [{"role": datasets.Value("string"), "content": datasets.Value("string")}],
            "images": [datasets.Image()],
        }
    )
    rows = [row("<image>", "red", [Pillow.fromarray(RED)])]
    path = tmp_path / "b.parquet"
    datasets.Dataset.from_list(rows, features=features).to_parquet(path)
    for where, found in (next(read_rows(path)), FileSource(path).row(0)):
        np.testing.assert_array_equal(parse_row(found, where, tmp_path).images[0].pixels, RED)


def say(*turns):
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


BAD = {
    "a list": ([1], "row is a list", "expected an object"),
    "unknown key": ({"message": []}, "unknown key 'message'", "did you mean 'messages'?"),
    "neither": ({}, "neither 'messages' nor 'text'", "Add what"),
    "no messages": ({"messages": []}, "'messages' as []", "expected a list"),
    "text beside": ({"text": "x", "images": [RED]}, "'text' stands beside", "Use 'messages'"),
    "text no string": ({"text": 3}, "'text' is a number", "quotes"),
    "empty text": ({"text": " \n"}, "'text' is empty", "Remove the row"),
    "message": ({"messages": ["x"]}, "message 1 is a string", "expected an object"),
    "message key": (
        {"messages": [{"role": "user", "contents": "x"}]},
        "message 1 has the unknown key 'contents'",
        "did you mean 'content'?",
    ),
    "role": (say(("user", "x"), ("asistant", "y")), "message 2 has role 'asistant'", "mean 'assistant'?"),
    "no role": ({"messages": [{"content": "x"}]}, "role None", "expected one of system, user, assistant"),
    "list as role": (say((["user"], "x")), "role ['user']", "expected one of"),
    "late system": (say(("user", "x"), ("system", "y")), "message 2 is the system's", "to the front"),
    "content": (say(("user", 3)), "content of message 1 is a number", "expected a string"),
    "part": (say(("user", [{"type": "video"}])), "part 1 of message 1", "expected"),
    "part key": (
        say(("user", [{"type": "text", "txt": "x"}])),
        "unknown key 'txt'",
        "did you mean 'text'?",
    ),
    "part without text": (say(("user", [{"type": "text"}])), "has no text", "under 'text'"),
    "more marks": (row("<image> <image>", images=[RED]), "2 <image> marks but 1 images", "Add or remove"),
    "more images": (row("x", images=[RED]), "0 <image> marks but 1 images", "Add or remove"),
    "images no list": (row("<image>") | {"images": "a.png"}, "'images' is a string", "brackets"),
    "empty target": (row("x", ""), "message 2 of the assistant is empty", "Remove the row"),
    "blank target": (row("x", " \n"), "message 2 of the assistant is empty", "expected a text"),
    "empty parts": (row("x", []), "message 2 of the assistant is empty", "expected a text"),
    "nothing trained": (say(("user", "x")), "nothing in the row is trained", "Add one"),
    "trained user": (
        {"messages": [{"role": "user", "content": "x", "trained": True}]},
        "message 1 of the user is 'trained'",
        "assistant alone",
    ),
    "trained as text": (
        {"messages": [{"role": "assistant", "content": "x", "trained": "no"}]},
        "'trained' of message 1 is 'no'",
        "expected true or false",
    ),
    "array": (row("<image>", images=[RED.astype(np.float32)]), "float32 of shape (8, 6, 3)", "Convert"),
    "array shape": (row("<image>", images=[RED[..., 0]]), "uint8 of shape (8, 6)", "Convert"),
    "number": (row("<image>", images=[7]), "an image is 7", "expected a path or bytes"),
    "empty path": (row("<image>", images=[""]), "an image is ''", "expected a path or bytes"),
    "empty dict": (row("<image>", images=[{"bytes": None}]), "an image is None", "expected a path"),
    "image key": (row("<image>", images=[{"byte": b"x"}]), "unknown key 'byte'", "mean 'bytes'?"),
    "link": (row("<image>", images=["https://x.org/a.png"]), "is a link", "Download it first"),
    "missing": (row("<image>", images=["none.png"]), "there is no file at", "Mend the path"),
    "folder": (row("<image>", images=["sub"]), "there is a folder at", "Mend the path"),
    "nul": (row("<image>", images=["a\0.png"]), "does not resolve", "Mend it"),
    "dots": (row("<image>", images=["../out.png"]), "outside the image root", "Move the file"),
    "absolute": (row("<image>", images=["/etc/hostname"]), "outside the image root", "wider image_root"),
    "symlink": (row("<image>", images=["link.png"]), "outside the image root", "Move the file"),
    "linked folder": (row("<image>", images=["linked/out.png"]), "outside the image root", "Move"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_rows_are_told(name, tmp_path):
    (tmp_path / "root" / "sub").mkdir(parents=True)
    Pillow.fromarray(RED).save(tmp_path / "out.png")
    (tmp_path / "root" / "link.png").symlink_to(tmp_path / "out.png")
    (tmp_path / "root" / "linked").symlink_to(tmp_path)
    bad, *words = BAD[name]
    with pytest.raises(UserError) as caught:
        parse_row(bad, "rows.jsonl:7", tmp_path / "root")
    message = str(caught.value)
    assert message.startswith("rows.jsonl:7: ")
    assert all(word in message for word in words), message


def test_a_conversation_may_wait_for_its_answer():
    document = parse_row({"messages": [{"role": "user", "content": "draw"}]}, "x:1", open_turn=True)
    assert document.turns == (Turn("user", (Text("draw"),)),)
    assert parse_row({"text": ""}, "x:1", open_turn=True).turns[0].role is None


def test_a_path_needs_a_root():
    with pytest.raises(UserError, match=r"x:1: .*no image_root"):
        parse_row(row("<image>", images=["a.png"]), "x:1")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"text": "a"', ("not JSON", "Mend the line")),
        (b'{"text": "\xff"}', ("not UTF-8", "Save the file")),
        (b"[" * 100_000, ("not JSON", "Mend the line")),
    ],
)
def test_bad_lines_are_told(line, words, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "fine"}\n\n' + line + b"\n")
    with pytest.raises(UserError) as by_reading:
        list(read_rows(path))
    with pytest.raises(UserError) as by_number:
        FileSource(path).row(1)
    for caught in (by_reading, by_number):
        assert str(caught.value).startswith(f"{path}:3: ")
        assert all(word in str(caught.value) for word in words)


def test_a_full_disk_is_not_the_files_fault(tmp_path, monkeypatch):
    import datasets

    pa.parquet.write_table(pa.table({"text": ["a"]}), tmp_path / "a.parquet")

    def full(path):
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise datasets.exceptions.DatasetGenerationError("An error occurred") from error

    monkeypatch.setattr(datasets.Dataset, "from_parquet", full)
    with pytest.raises(UserError, match=r"No space left on device.*HF_DATASETS_CACHE") as caught:
        FileSource(tmp_path / "a.parquet")
    assert "not a readable" not in str(caught.value)


def test_bad_files_are_told(tmp_path):
    (tmp_path / "a.csv").write_text("x")
    (tmp_path / "empty.jsonl").write_text("\n\n")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    cases = {
        "none.jsonl": "found nothing",
        "": "found a folder",
        "a.csv": "expected .jsonl or .parquet",
        "empty.jsonl": "no rows",
        "bad.parquet": "not a readable parquet file",
    }
    for name, words in cases.items():
        with pytest.raises(UserError) as caught:
            FileSource(tmp_path / name)
        assert words in str(caught.value)
        assert str(tmp_path / name) in str(caught.value)
    with pytest.raises(UserError, match="image_root"):
        FileSource(tmp_path / "empty.jsonl", tmp_path / "nowhere")
