"""Plain text: rows put together are the file again, cut at pauses, the end of every file held out."""

from random import Random

import pytest
from typer.testing import CliRunner

from data_tools.plain.build import chunks, make_plain
from tests.data_tools.given import contents, examples, lines, real
from unimodal.data.check import check
from unimodal.errors import UserError


def pieces(text: str, characters: int) -> list[str]:
    return [text[start:end] for start, end in chunks(text, characters)]


def test_cuts_come_after_the_strongest_pause_that_fits():
    assert pieces("one two\n\nthree four\nfive", 20) == ["one two\n\nthree four\n", "five"]
    assert pieces("aaaa bbbb\n\ncccc dddd eeee", 16) == ["aaaa bbbb\n\n", "cccc dddd eeee"]
    assert pieces("One is. Two is three four", 14) == ["One is. ", "Two is three ", "four"]
    assert pieces("word another", 9) == ["word ", "another"]
    assert pieces("abcdefghij", 4) == ["abcd", "efgh", "ij"]
    assert pieces("short", 9) == ["short"]
    assert pieces("", 9) == []


def test_pieces_are_the_text_again_and_never_too_long():
    rng = Random(0)
    for _ in range(300):
        text = "".join(rng.choices("ab.é漢 \n\n", k=rng.randint(0, 200)))
        most = rng.randint(1, 40)
        found = pieces(text, most)
        assert "".join(found) == text
        assert all(0 < len(piece) <= most for piece in found)


@pytest.fixture
def folder(tmp_path):
    source = tmp_path / "texts"
    (source / "deep").mkdir(parents=True)
    for name in ("a.txt", "deep/b.txt"):
        story = "\r\n\r\n".join(f"{name} tells of number {k}. It is {k}." for k in range(60))
        (source / name).write_bytes(story.encode())
    (source / "notes.md").write_text("not asked for")
    return source


def test_rows_are_where_the_truth_says_and_val_is_the_end_of_each_file(folder, tmp_path):
    out = tmp_path / "out"
    made = make_plain(folder, out, characters=200, val=0.2)
    last = {}
    for split in ("train", "val"):
        found = examples(out, split)
        assert made.rows[split].total() == len(found)
        assert check(out / f"{split}.jsonl").ok
        for row, truth in found:
            text = (folder / truth["file"]).read_bytes().decode().replace("\r\n", "\n")
            assert row == {"text": text[truth["start"] : truth["end"]]}
            assert row["text"].startswith(truth["file"])  # no paragraph is cut
            assert split == "val" or truth["end"] <= 0.8 * len(text) + 200
            if split == "train":
                last[truth["file"]] = max(truth["end"], last.get(truth["file"], 0))
            else:
                assert truth["start"] >= last[truth["file"]]
    assert set(last) == {"a.txt", "deep/b.txt"}
    again = tmp_path / "again"
    make_plain(folder, again, characters=200, val=0.2)
    assert contents(again) == contents(out)


def test_mistakes_are_told(folder, tmp_path):
    with pytest.raises(UserError, match="tinyshakespeare"):
        make_plain(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(UserError, match=r"expected \*\.rst"):
        make_plain(folder, tmp_path / "out", suffixes=(".rst",))
    with pytest.raises(UserError, match="no row for this split"):
        make_plain(folder, tmp_path / "whole", characters=100_000)
    (folder / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(UserError, match=r"latin\.txt: byte 3 is not UTF-8"):
        make_plain(folder, tmp_path / "out")


def test_command(folder, tmp_path):
    from unimodal.commands.data import app

    out = tmp_path / "out"
    result = CliRunner().invoke(app, ["make", "plain", str(folder), "--out", str(out), "--characters", "300"])
    assert result.exit_code == 0 and "text/plain" in result.output
    assert all(len(row["text"]) <= 300 for row in lines(out / "train.jsonl"))


def test_shakespeare_comes_out_whole(tmp_path):
    source = real("tinyshakespeare") / "data" / "tinyshakespeare" / "input.txt"
    make_plain(source, tmp_path / "out")
    rows = [row for split in ("train", "val") for row in lines(tmp_path / "out" / f"{split}.jsonl")]
    assert "".join(row["text"] for row in rows) == source.read_text(encoding="utf-8")
    assert len(rows[-1]["text"]) <= 1000
