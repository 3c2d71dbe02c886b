"""WebDataset tars: neighbours of one stem are a sample, endings are fields, a .json adds more."""

import io
import json
import tarfile

import pytest

from tests.data.importers.made import dropped, exchange, png, put, run
from unimodal.errors import UserError


def pack(path, mode="w", **files):
    """A tar of files in order; __ stands for a dot, as in `a__png`."""
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name.replace("__", "."))
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def test_pictures_and_texts(tmp_path):
    path = pack(
        tmp_path / "a.tar",
        a__png=png("red"),
        a__txt=b"a red one\n",
        a__cls=b"7",
        b__PNG=png("blue"),
        b__json=json.dumps({"text": "a blue one", "url": "x"}).encode(),
        c__png=png("grey"),
        c__txt=b"words",
        c__json=json.dumps({"text": "other words"}).encode(),
        d__png=png("grey"),
        e__png=png("grey"),
        e__txt=b"\xff",
        f__png=png("grey"),
        f__jpg=png("grey"),
        f__txt=b"?",
        g__png=png("grey"),
        g__json=b"{",
        README=b"of no sample",
    )
    report, rows = run(path)
    assert report.importer == "webdataset"
    assert rows == [
        (exchange("a red one", "<image>"), ["red"]),
        (exchange("a blue one", "<image>"), ["blue"]),
        (exchange("words", "<image>"), ["grey"]),
    ]
    assert report.unused == {"cls": 1, "url": 1, "json.text": 1}
    assert dropped(report) == {
        "no 'text'": 1,
        "text not UTF-8": 1,
        "two files for one field": 1,
        "broken JSON in a sample": 1,
        "file of no sample": 1,
    }
    assert report.dropped["no 'text'"][1].startswith(f"{path}:d: ")


def test_shards_of_edits_questions_and_conversations(tmp_path):
    talk = [{"from": "human", "value": "<image>?"}, {"from": "gpt", "value": "grey"}]
    edit = {
        "a__input_image__png": png("red"),
        "a__edited_image__png": png("blue"),
        "a__edit_prompt__txt": b"blue",
    }
    (tmp_path / "in").mkdir()
    pack(tmp_path / "in/0.tar", **edit)
    pack(
        tmp_path / "in/1.tar.gz",
        "w:gz",
        a__png=png("green"),
        a__json=json.dumps({"question": "colour?", "answer": "green"}).encode(),
        b__png=png("grey"),
        b__json=json.dumps({"conversations": talk}).encode(),
    )
    put(tmp_path / "in/index.json", "{}")
    put(tmp_path / "in/deep/2.tar", b"")
    report, rows = run(tmp_path / "in")
    assert rows == [
        (exchange("<image>blue", "<image>"), ["red", "blue"]),
        (exchange("<image>colour?", "green"), ["green"]),
        (exchange("<image>?", "grey"), ["grey"]),
    ]
    assert dropped(report) == {"no tar file of the folder": 2}


def test_captions_of_json_by_another_name(tmp_path):
    path = pack(tmp_path / "a.tar", a__png=png("red"), a__json=b'{"caption": "red"}')
    assert run(path)[0].refusal
    assert run(path, mapping={"text": "caption"})[1] == [(exchange("red", "<image>"), ["red"])]


def test_a_cut_tar_is_a_sentence(tmp_path):
    whole = pack(tmp_path / "a.tar", a__png=png("red"), a__txt=b"red", b__txt=b"x" * 5000)
    for name, data in (("cut.tar", whole.read_bytes()[:3000]), ("no.tar", b"no tar" * 200)):
        with pytest.raises(UserError, match="not readable to its end"):
            run(put(tmp_path / name, data))
    assert not list(tmp_path.glob("out*")) and not list(tmp_path.glob(".out*"))
