"""Columns of `datasets`: parquet, arrow, saved folders and hub layouts, in the names that are published."""

import datasets
import pyarrow as pa
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from tests.data.importers.made import dropped, exchange, png, put, put_lines, run
from unimodal.cli import app
from unimodal.errors import UserError

T2I = {"image": [png("red"), png("blue")], "text": ["a red thing", "a blue thing"]}
T2I_ROWS = [(exchange("a red thing", "<image>"), ["red"]), (exchange("a blue thing", "<image>"), ["blue"])]
EDITS = [
    ("input_image", "edit_prompt", "edited_image"),
    ("original_image", "edit_prompt", "edited_image"),
    ("source_img", "instruction", "target_img"),
]


def table(columns: dict[str, list]) -> datasets.Dataset:
    """Columns of bytes become `datasets` images, undecoded and stored as their bytes."""
    made = {
        k: [{"bytes": x, "path": None} if isinstance(x, bytes) else x for x in v] for k, v in columns.items()
    }
    types = {
        k: datasets.Image() if isinstance(v[0], bytes) else datasets.Value("string")
        for k, v in columns.items()
        if not isinstance(v[0], (list, int))
    }
    if len(types) < len(columns):
        return datasets.Dataset.from_dict(made)
    return datasets.Dataset.from_dict(made, features=datasets.Features(types))


def test_pictures_and_texts_in_every_file(tmp_path):
    made = table(T2I)
    made.to_parquet(tmp_path / "a.parquet")
    made.save_to_disk(tmp_path / "saved")
    arrow = next((tmp_path / "saved").glob("*.arrow")).rename(tmp_path / "a.arrow")
    made.save_to_disk(tmp_path / "saved")
    for path in (tmp_path / "a.parquet", arrow, tmp_path / "saved"):
        report, rows = run(path)
        assert report.importer == "columns-t2i"
        assert rows == T2I_ROWS
    assert {file.read_bytes() for file in report.out.glob("images/*")} == {png("red"), png("blue")}


def test_splits_have_to_be_named(tmp_path):
    made = table(T2I)
    datasets.DatasetDict({"train": made, "test": made.select([1])}).save_to_disk(tmp_path / "saved")
    (tmp_path / "hub/data").mkdir(parents=True)
    made.to_parquet(tmp_path / "hub/data/train-00000-of-00001.parquet")
    made.select([1]).to_parquet(tmp_path / "hub/data/test-00000-of-00001.parquet")
    for name in ("saved", "hub"):
        with pytest.raises(UserError, match="splits train, test"):
            run(tmp_path / name)
        assert run(tmp_path / name, split="train")[1] == T2I_ROWS
        assert run(tmp_path / name, split="test")[1] == T2I_ROWS[1:]
        with pytest.raises(UserError, match=r"no split 'tests' \(did you mean 'test'\?\)"):
            run(tmp_path / name, split="tests")
    (tmp_path / "hub/data/test-00000-of-00001.parquet").unlink()
    assert run(tmp_path / "hub")[1] == T2I_ROWS


@pytest.mark.parametrize("names", EDITS)
def test_edits(tmp_path, names):
    before, told, after = names
    columns = {
        before: [png("red"), png("grey")],
        told: ["make it blue", "make it green"],
        after: [png("blue"), png("green")],
        "mask_img": [png("grey"), png("grey")],
    }
    table(columns).to_parquet(tmp_path / "a.parquet")
    report, rows = run(tmp_path / "a.parquet")
    assert report.importer == "columns-edit"
    assert rows == [
        (exchange("<image>make it blue", "<image>"), ["red", "blue"]),
        (exchange("<image>make it green", "<image>"), ["grey", "green"]),
    ]
    assert report.tasks == {"edit": 2} and report.unused == {"mask_img": 2}


def test_questions_and_paths_in_csv(tmp_path):
    put(tmp_path / "p/a.png", png("red"))
    path = put(
        tmp_path / "a.csv",
        'image,question,answer\np/a.png,"which, really?",red\n'
        'p/a.png,"two\nlines?",\np/a.png,too,many,cells\n',
    )
    report, rows = run(path)
    assert report.importer == "columns-vqa"
    assert rows == [(exchange("<image>which, really?", "red"), ["red"])]
    assert dropped(report) == {"no 'answer'": 1, "not a readable line": 1}
    assert report.dropped["no 'answer'"][1].startswith(f"{path}:3: ")
    assert report.dropped["not a readable line"][1].startswith(f"{path}:5: ")


def test_numbers_are_answers(tmp_path):
    columns = {"image": [png("red")] * 3, "question": ["how many?"] * 3}
    for n, (answers, words) in enumerate(
        {(3, -1, 0): ["3", "-1", "0"], (0.5, 2.0, float("nan")): ["0.5", "2.0"]}.items()
    ):
        path = tmp_path / f"{n}.parquet"
        pyarrow.parquet.write_table(pa.table({**columns, "answer": list(answers)}), path)
        report, rows = run(path)
        assert [messages[1]["content"] for messages, _ in rows] == words
        assert dropped(report) == ({} if len(words) == 3 else {"'answer' is no text": 1})


def test_other_names_are_mapped(tmp_path):
    table({"picture": T2I["image"], "caption": T2I["text"]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(UserError, match="Its fields are caption, picture") as error:
        run(tmp_path / "a.parquet")
    assert "columns-t2i: fields image, text" in str(error.value)
    assert run(tmp_path / "a.parquet", mapping={"image": "picture", "text": "caption"})[1] == T2I_ROWS
    with pytest.raises(UserError, match=r"no field 'txt' \(did you mean 'text'\?\)"):
        run(tmp_path / "a.parquet", "columns-t2i", mapping={"txt": "caption"})


def test_a_mapped_field_goes_before_one_of_its_name(tmp_path):
    columns = {**T2I, "long": ["a long text", "another"]}
    table(columns).to_parquet(tmp_path / "a.parquet")
    _, rows = run(tmp_path / "a.parquet", mapping={"text": "long"})
    assert [messages[0]["content"] for messages, _ in rows] == ["a long text", "another"]


def test_several_texts_are_several_rows(tmp_path):
    columns = {"image": [png("red"), None], "text": [["red", "crimson"], ["nothing to see"]]}
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
    report, rows = run(tmp_path / "a.parquet")
    assert rows == [(exchange("red", "<image>"), ["red"]), (exchange("crimson", "<image>"), ["red"])]
    assert report.pictures == 1
    assert dropped(report) == {"no 'image'": 1}
    assert report.dropped["no 'image'"][1].startswith(f"{tmp_path / 'a.parquet'}:2: ")


def test_a_broken_file_is_a_sentence(tmp_path):
    put(tmp_path / "a.parquet", b"PAR1 no")
    put(tmp_path / "a.arrow", b"no")
    put(tmp_path / "saved/state.json", "{}")
    put(tmp_path / "saved/dataset_info.json", "{")
    for name in ("a.parquet", "a.arrow", "saved"):
        with pytest.raises(UserError, match=r"not (a )?readable"):
            run(tmp_path / name)


def test_a_name_that_no_record_has_is_refused(tmp_path):
    table({**T2I, "caption": T2I["text"]}).to_parquet(tmp_path / "a.parquet")
    told = r"--map text=captoin: no record of .* has 'captoin' \(did you mean 'caption'\?\); they have"
    for importer in ("auto", "columns-t2i"):
        with pytest.raises(UserError, match=told):
            run(tmp_path / "a.parquet", importer, mapping={"text": "captoin"})
    (tmp_path / "a.csv").write_text("image,caption\na.png,b\n")
    with pytest.raises(UserError, match=told):  # neither field is there, so nothing is recognised either
        run(tmp_path / "a.csv", mapping={"text": "captoin"})
    assert not list(tmp_path.glob("out-*"))
    lines = [{"text": "x"}] * 40 + [{"text": "x", "late": "y"}]  # fields may come later than any first look
    assert run(put_lines(tmp_path / "a.jsonl", *lines), mapping={"text": "late"})[1][-1] == ("y", [])


def test_a_page_that_is_broken_is_a_sentence(tmp_path):
    path = tmp_path / "a.parquet"
    words = {"text": [f"text {i} {i * i}" for i in range(2000)]}
    pyarrow.parquet.write_table(pa.table(words), path, compression="zstd", row_group_size=1000)
    group = pyarrow.parquet.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    begin = group.dictionary_page_offset or group.data_page_offset
    data[begin + 40 : begin + group.total_compressed_size] = bytes(group.total_compressed_size - 40)
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"a\.parquet: not a readable parquet file"):
        run(path, "rows")
    done = CliRunner().invoke(app, ["data", "check", str(path)])
    assert isinstance(done.exception, (UserError, SystemExit))
    said = done.output + str(done.exception)
    assert "not a readable parquet file" in said and "An error occurred while generating" not in said
