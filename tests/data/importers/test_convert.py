"""Converting as a whole: which importer, what is refused, what is written all or nothing, the command."""

import errno
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from rich.console import Console
from typer.testing import CliRunner

from tests.data.importers.made import exchange, png, put, put_lines, run, say
from unimodal.cli import app
from unimodal.commands.convert import NAMES
from unimodal.data.files import read_rows
from unimodal.data.importers import IMPORTERS, advice, recognise
from unimodal.data.importers.convert import convert, print_report
from unimodal.data.preview import sheet
from unimodal.data.rows import parse_row
from unimodal.data.source import FileSource
from unimodal.errors import UserError

TALK = {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]}
ALPACA = {"instruction": "a", "input": "", "output": "b"}


def captioned(folder: Path, **captions: str) -> Path:
    for name, caption in captions.items():
        put(folder / f"{name}.png", png(name))
        put(folder / f"{name}.txt", caption)
    return folder


def test_the_command_names_every_importer():
    assert set(NAMES) == set(IMPORTERS)


def test_each_table_is_recognised_by_its_fields(tmp_path):
    picture = {"image": "a.png"}
    for name, record in {
        "llava": TALK,
        "alpaca": ALPACA,
        "openai": {"messages": exchange([{"type": "image_url", "image_url": {"url": "a.png"}}], "b")},
        "columns-t2i": {**picture, "text": "b"},
        "columns-edit": {"input_image": "a", "edit_prompt": "b", "edited_image": "c"},
        "columns-vqa": {**picture, "question": "b", "answer": "c"},
        "bagel": {**picture, "captions": "{}"},
        "rows": {"messages": exchange("a", "b")},
        None: {**picture, "colour": "b"},
    }.items():
        path = put_lines(tmp_path / f"{name}.jsonl", record)
        assert recognise(path) == name
        told = f"unimodal data convert {path} --from {name} --out FOLDER"
        assert advice(path) == advice(path, record)
        assert told in advice(path) if name not in (None, "rows") else not advice(path)
    assert recognise(tmp_path / "none") is None
    assert recognise(captioned(tmp_path / "in", red="a")) == "captions"
    assert recognise(put(tmp_path / "broken.json", "[{")) is None


def test_rows_of_another_kind_are_refused_by_the_name_of_their_importer(tmp_path):
    path = put(tmp_path / "llava.json", json.dumps([TALK]))
    with pytest.raises(UserError, match=rf"ends in '\.json'.*convert {path} --from llava"):
        FileSource(path)
    lines = put_lines(tmp_path / "llava.jsonl", TALK)
    with pytest.raises(UserError, match=rf"convert {lines} --from llava"):
        parse_row(*reversed(FileSource(lines).row(0)))
    with pytest.raises(UserError, match=r"rows\.jsonl:7: .*convert rows\.jsonl --from alpaca"):
        parse_row(ALPACA, "rows.jsonl:7")


@pytest.mark.parametrize(("name", "record"), [("llava", TALK), ("alpaca", ALPACA)])
def test_checking_rows_of_another_kind_names_their_importer(tmp_path, name, record):
    lines = put_lines(tmp_path / f"{name}.jsonl", record)
    done = CliRunner().invoke(app, ["data", "check", str(lines)])
    assert done.exit_code == 1
    assert f"unimodal data convert {lines} --from {name} --out FOLDER" in done.output.replace("\n", "")
    array = put(tmp_path / f"{name}.json", json.dumps([record]))
    refused = CliRunner().invoke(app, ["data", "check", str(array)])
    assert f"--from {name} --out FOLDER" in str(refused.exception)


@pytest.mark.parametrize("messages", [5, "hi", True, {"role": "user"}, [5], [[]]])
def test_messages_of_any_other_kind_are_a_sentence(tmp_path, messages):
    path = put_lines(tmp_path / "a.jsonl", {"messages": messages})
    done = CliRunner().invoke(app, ["data", "check", str(path)])
    assert done.exit_code == 1 and f"{path}:1: " in done.output.replace("\n", "")
    for importer in ("auto", "rows", "openai"):
        report, _ = run(path, importer)
        assert list(report.dropped) == ["'messages' is no list of turns"]


def test_what_fits_twice_or_not_at_all_is_refused(tmp_path):
    both = put_lines(tmp_path / "a.jsonl", {"image": "a", "text": "b", "question": "c", "answer": "d"})
    with pytest.raises(UserError, match=r"several ways: columns-t2i.*columns-vqa.*--from columns-t2i"):
        convert(both, tmp_path / "out")
    captioned(tmp_path / "in", red="a")
    put_lines(tmp_path / "in/metadata.jsonl", {"file_name": "red.png", "text": "b"})
    with pytest.raises(UserError, match=r"several ways: imagefolder.*captions"):
        convert(tmp_path / "in", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="of no format that is known") as error:
        convert(tmp_path / "empty", tmp_path / "out")
    for name, importer in IMPORTERS.items():
        assert f"{name}: {importer.sign}" in str(error.value)
    with pytest.raises(UserError, match="there is nothing there"):
        convert(tmp_path / "gone", tmp_path / "out")
    with pytest.raises(UserError, match=r"no importer 'lava' \(did you mean 'llava'"):
        convert(both, tmp_path / "out", "lava")
    with pytest.raises(UserError, match=r"broken\.json:3: not JSON"):
        convert(put(tmp_path / "broken.json", '[\n{"conversations": []},\n{'), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_parquet_holds_the_pictures(tmp_path):
    put(tmp_path / "a.png", png("red"))
    plain, literal = {"text": "plain <image>"}, say("user", [{"type": "text", "text": "say <image>"}])
    lines = [
        {"messages": exchange("<image> to", "<image>"), "images": ["a.png", "a.png"]},
        {"messages": [literal, {**say("assistant", "no"), "trained": False}, say("assistant", "ok")]},
        plain,
    ]
    report, rows = run(put_lines(tmp_path / "a.jsonl", *lines), "rows", form="parquet")
    mark, words = {"type": "image", "text": None}, lambda text: {"type": "text", "text": text}
    assert rows == [
        (
            [
                {**say("user", [mark, words(" to")]), "trained": None},
                {**say("assistant", [mark]), "trained": None},
            ],
            ["red", "red"],
        ),
        (
            [
                {**say("user", [words("say <image>")]), "trained": None},
                {**say("assistant", [words("no")]), "trained": False},
                {**say("assistant", [words("ok")]), "trained": None},
            ],
            [],
        ),
        ("plain <image>", []),
    ]
    stored = pyarrow.parquet.read_table(report.out / "rows.parquet").to_pylist()
    assert [image["bytes"] for image in stored[0]["images"]] == [png("red")] * 2
    again, same = run(report.out / "rows.parquet")
    assert again.importer == "rows" and [images for _, images in same] == [["red", "red"], [], []]
    documents = [parse_row(row, where) for where, row in read_rows(report.out / "rows.parquet")]
    assert sheet(documents).width > 0


def test_strict_and_empty_write_nothing(tmp_path):
    path = put_lines(tmp_path / "a.jsonl", ALPACA, {"instruction": "x"})
    assert run(path)[0].refusal == ""
    report, _ = run(path, strict=True)
    assert "1 would be left out" in report.refusal and report.written == 1
    assert run(put_lines(tmp_path / "good.jsonl", ALPACA), strict=True)[0].refusal == ""
    report, _ = run(put_lines(tmp_path / "bad.jsonl", {"instruction": "x"}), "alpaca")
    assert "no row came of 1 records" in report.refusal
    assert not list(tmp_path.glob(".out*"))


def test_an_output_is_whole_or_not_there(tmp_path, monkeypatch):
    folder = captioned(tmp_path / "in", red="a", blue="b")
    full = put(tmp_path / "full/notes.txt", "mine").parent
    with pytest.raises(UserError, match="not an empty folder"):
        convert(folder, full)
    assert (full / "notes.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    assert convert(folder, tmp_path / "empty").written == 2

    def disk_full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", disk_full)
    with pytest.raises(UserError, match=r"No space left on device.*Nothing was written"):
        convert(folder, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "full", "in"]


def test_endings_follow_the_format(tmp_path):
    from PIL import Image as Pillow

    for name, kind in (("a.png", "JPEG"), ("b.jpg", "WEBP"), ("c.bmp", "PNG")):
        file = io.BytesIO()
        Pillow.new("RGB", (4, 4), (9 * len(kind), 0, 0)).save(file, kind)
        put(tmp_path / "in" / name, file.getvalue())
        put(tmp_path / "in" / f"{name[0]}.txt", "x")
    report = convert(tmp_path / "in", tmp_path / "out")
    assert sorted(file.suffix for file in report.out.glob("images/*")) == [".jpg", ".png", ".webp"]


def test_the_report_says_everything(tmp_path):
    path = put_lines(
        tmp_path / "a.jsonl", {**ALPACA, "id": 1}, {**ALPACA, "output": ""}, {"instruction": "[b]"}
    )
    report = convert(path, tmp_path / "out")
    file = io.StringIO()
    print_report(report, Console(file=file, width=200))
    shown = " ".join(file.getvalue().split())
    for words in (
        f"{path} read as alpaca: its objects have 'instruction' and 'output'.",
        "records read │ 3",
        "rows written │ 1",
        "text (text alone) │ 1",
        "left out │ 2",
        "'output' is empty │ 1",
        f"left out, 'output' is empty: {path}:2: 'output' is empty",
        f"left out, no 'output': {path}:3: no 'output'",
        "fields that rows have no place for: id (1)",
    ):
        assert words in shown


def test_the_command(tmp_path):
    folder = captioned(tmp_path / "in", red="a red one", blue="a blue one")

    def unimodal(*args):
        return CliRunner().invoke(app, ["data", "convert", *map(str, args)])

    done = unimodal(folder, "--out", tmp_path / "out")
    assert done.exit_code == 0 and "rows written" in done.output
    first = json.loads((tmp_path / "out/rows.jsonl").read_text().splitlines()[0])
    assert first["messages"] == exchange("a blue one", "<image>")
    checked = CliRunner().invoke(app, ["data", "check", str(tmp_path / "out/rows.jsonl")])
    assert checked.exit_code == 0
    pyarrow.parquet.write_table(
        pa.table({"picture": [png("red"), None], "caption": ["x", "y"]}), tmp_path / "a.parquet"
    )
    args = (tmp_path / "a.parquet", "--map", "image=picture", "--map", "text=caption", "--format", "parquet")
    assert unimodal(*args, "--out", tmp_path / "packed").exit_code == 0
    assert (tmp_path / "packed/rows.parquet").is_file()
    strict = unimodal(*args, "--strict", "--out", tmp_path / "strict")
    assert strict.exit_code == 1 and "nothing was written" in strict.output
    assert not (tmp_path / "strict").exists()
    for wrong in ("image", "image=", "=picture"):
        refused = unimodal(folder, "--out", tmp_path / "x", "--map", wrong)
        assert isinstance(refused.exception, UserError) and "FIELD=NAME" in str(refused.exception)
