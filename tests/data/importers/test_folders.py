"""Folders: ImageFolder's metadata, captions by stem, and controls; what has no partner is told."""

import shutil

import pytest

from tests.data.importers.made import dropped, exchange, png, put, put_lines, run
from unimodal.errors import UserError


def test_imagefolder(tmp_path):
    folder = tmp_path / "in"
    put(folder / "a.png", png("red"))
    put(folder / "deep/b.png", png("blue"))
    put(folder / "deep/nobody.png", png("grey"))
    put(folder / "README.md", "# Pictures")
    put(folder / ".gitattributes", "")
    put_lines(
        folder / "metadata.jsonl",
        {"file_name": "a.png", "text": "a red one", "source": "web"},
        {"file_name": "./deep/b.png", "text": "a blue one"},
        {"file_name": "gone.png", "text": "nothing"},
        {"file_name": "a.png"},
    )
    for path in (folder, folder / "metadata.jsonl"):
        report, rows = run(path)
        assert report.importer == "imagefolder"
        assert rows == [
            (exchange("a red one", "<image>"), ["red"]),
            (exchange("a blue one", "<image>"), ["blue"]),
        ]
        assert dropped(report) == {
            "picture not found below the image root": 1,
            "no 'text'": 1,
            "picture that no line names": 1,
            "other file that no line names": 1,
        }
        assert report.dropped["no 'text'"][1].startswith(f"{folder / 'metadata.jsonl'}:4: ")
        assert "nobody.png" in report.dropped["picture that no line names"][1]
        assert report.unused == {"source": 1}


@pytest.mark.parametrize("mapping", [{}, {"file_name": "file", "text": "caption"}])
def test_splits_of_an_imagefolder(tmp_path, mapping):
    folder = tmp_path / "in"
    named = {"file_name": "file_name", "text": "text"} | mapping
    for split, colour in ("train", "red"), ("test", "blue"):
        put(folder / split / "a.png", png(colour))
        put(folder / split / f"{colour}.png", png("grey"))
        line = {named["file_name"]: "a.png", named["text"]: colour}
        put_lines(folder / split / "metadata.jsonl", line)
    for split, colour in ("train", "red"), ("test", "blue"):
        report, rows = run(folder, split=split, mapping=mapping)
        assert report.importer == "imagefolder" and "/metadata.jsonl" in report.why
        assert rows == [(exchange(colour, "<image>"), [colour])]
        assert dropped(report) == {"picture that no line names": 1}
    assert run(folder, split="test", mapping=mapping, image_root=folder / "train")[1] == [
        (exchange("blue", "<image>"), ["red"])
    ]
    with pytest.raises(UserError, match=r"splits test, train.*--split test"):
        run(folder)
    with pytest.raises(UserError, match=r"no split 'tests' \(did you mean 'test'\?\)"):
        run(folder, split="tests")
    shutil.rmtree(folder / "train")
    assert run(folder, mapping=mapping)[1] == [(exchange("blue", "<image>"), ["blue"])]


def test_imagefolder_of_edits(tmp_path):
    for name in ("red", "blue"):
        put(tmp_path / f"in/{name}.png", png(name))
    put(
        tmp_path / "in/metadata.csv",
        "input_image_file_name,edited_image_file_name,prompt\nred.png,blue.png,make it blue\n",
    )
    report, rows = run(tmp_path / "in", mapping={"edit_prompt": "prompt"})
    assert report.importer == "imagefolder"
    assert rows == [(exchange("<image>make it blue", "<image>"), ["red", "blue"])]
    put_lines(tmp_path / "in/metadata.jsonl", {"file_name": "red.png", "text": "x"})
    with pytest.raises(UserError, match=r"has metadata\.jsonl and metadata\.csv"):
        run(tmp_path / "in")


def test_captions_by_stem(tmp_path):
    folder = tmp_path / "in"
    put(folder / "a.png", png("red"))
    put(folder / "a.txt", "a red one\n")
    put(folder / "a.json", "{}")
    put(folder / "deep/a.PNG", png("blue"))
    put(folder / "deep/a.txt", "\ufeffa blue <image>")
    put(folder / "alone.png", png("grey"))
    put(folder / "only.txt", "words")
    put(folder / "empty.png", png("grey"))
    put(folder / "empty.txt", " \n")
    put(folder / "latin.png", png("grey"))
    put(folder / "latin.txt", "caf\xe9".encode("latin-1"))
    put(folder / "two.png", png("grey"))
    put(folder / "two.jpg", png("grey"))
    put(folder / "two.txt", "which?")
    put(folder / "README.md", "# Pictures")
    put(folder / ".DS_Store", b"\0")
    report, rows = run(folder)
    assert report.importer == "captions"
    literal = [{"type": "text", "text": "a blue <image>"}]
    assert rows == [
        (exchange("a red one", "<image>"), ["red"]),
        (exchange(literal, "<image>"), ["blue"]),
    ]
    assert dropped(report) == {
        "neither picture nor caption": 1,
        "picture without a caption": 1,
        "caption without a picture": 1,
        "'text' is empty": 1,
        "caption not readable": 1,
        "two pictures of one stem": 1,
    }
    assert report.unused == {".json": 1}
    assert report.dropped["picture without a caption"][1].startswith(f"{folder / 'alone.png'}: ")


@pytest.mark.parametrize("beside", [True, False])
def test_controls(tmp_path, beside):
    folder, mapping = tmp_path / "in", {"conditions": "depth"}
    put(folder / "depth/1.png", png("grey"))
    put(folder / "depth/2.png", png("grey"))
    put(folder / "targets/1.png", png("red"))
    put(folder / "targets/3.png", png("red"))
    for stem in "123":
        put(folder / ("targets" if beside else "captions") / f"{stem}.txt", f"number {stem}")
    report, rows = run(folder, mapping=mapping)
    assert report.importer == "control"
    assert rows == [(exchange("<image>number 1", "<image>"), ["grey", "red"])]
    assert dropped(report) == {"no partner in targets": 1, "no partner in conditions": 1}
    (folder / "depth").rename(folder / "conditions")
    assert run(folder)[1] == rows
    with pytest.raises(UserError, match="--map targets=FOLDER"):
        run(folder, "control", mapping={"targets": "none"})


def test_every_file_of_controls_is_accounted_for(tmp_path):
    folder = tmp_path / "in"
    for stem in "12":
        put(folder / f"conditions/{stem}.png", png("grey"))
        put(folder / f"targets/{stem}.png", png("red"))
        put(folder / f"captions/{stem}.txt", f"number {stem}")
    put(folder / "targets/1.jpg", png("blue"))
    put(folder / "targets/notes.json", "{}")
    put(folder / "captions/2.json", "{}")
    put(folder / "extra/9.png", png("grey"))
    report, rows = run(folder)
    assert rows == [(exchange("<image>number 2", "<image>"), ["grey", "red"])]
    assert dropped(report) == {"two files of one stem": 1, "file of no stem's": 3}
    assert "1.jpg and" in report.dropped["two files of one stem"][1]


def test_controls_elsewhere_are_found_below_a_wider_root(tmp_path):
    put(tmp_path / "depth/1.png", png("grey"))
    put(tmp_path / "in/targets/1.png", png("red"))
    put(tmp_path / "in/targets/1.txt", "one")
    for named in (str(tmp_path / "depth"), "../depth"):
        report, _ = run(tmp_path / "in", "control", mapping={"conditions": named})
        assert dropped(report) == {"picture not found below the image root": 1}
        assert "name a wider image_root" in report.dropped["picture not found below the image root"][1]
        _, rows = run(tmp_path / "in", "control", mapping={"conditions": named}, image_root=tmp_path)
        assert rows == [(exchange("<image>one", "<image>"), ["grey", "red"])]


def test_captions_that_are_named_have_to_be_there(tmp_path):
    for name in ("conditions", "targets"):
        put(tmp_path / f"in/{name}/1.png", png("red"))
    put(tmp_path / "in/targets/1.txt", "one")
    put(tmp_path / "in/words/1.txt", "another")
    with pytest.raises(
        UserError, match=r"no such folder \(did you mean 'words'\?\); expected one of captions"
    ):
        run(tmp_path / "in", "control", mapping={"captions": "word"})
    assert run(tmp_path / "in", mapping={"captions": "words"})[1][0][0] == exchange(
        "<image>another", "<image>"
    )
