"""GSM8K: the calculator's marks come out without a trace, the final answer stays, questions are held out."""

import json
import re
from pathlib import Path

import pytest

from data_tools.gsm8k.build import make_gsm8k
from tests.data_tools.given import contents, examples, lines, real
from unimodal.data.check import check
from unimodal.errors import UserError


def write(folder: Path, problems: list[dict]) -> Path:
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps(problem) + "\n" for problem in problems))
    return folder


def problem(k: int) -> dict:
    answer = f"{k} and {k} are <<{k}+{k}={2 * k}>>{2 * k}.\nThat is ${2 * k}.\n#### {2 * k:,}"
    return {"question": f"Ann has {k} pears\u2028and Bob has {k}. How many?", "answer": answer}


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "gsm8k", [problem(k) for k in range(400, 600)] + [problem(400)])


def test_marks_come_out_and_the_rest_stays(folder, tmp_path):
    made = make_gsm8k(folder, tmp_path / "out")
    found = [one for split in ("train", "val") for one in examples(tmp_path / "out", split)]
    assert len(found) == 200 and made.left_out == {"a question asked before": ["line 201"]}
    by_line = {truth["line"]: (row, truth) for row, truth in found}
    row, truth = by_line[101]
    assert row["messages"] == [
        {"role": "user", "content": "Ann has 500 pears\u2028and Bob has 500. How many?"},
        {"role": "assistant", "content": "500 and 500 are 1000.\nThat is $1000.\n#### 1,000"},
    ]
    assert truth["answer"] == "1,000"
    assert check(tmp_path / "out" / "train.jsonl").tasks == {"text": made.rows["train"].total()}


def test_marks_stay_when_asked_for(folder, tmp_path):
    make_gsm8k(folder, tmp_path / "out", calculations=True)
    for row, truth in examples(tmp_path / "out", "val"):
        assert row["messages"][1]["content"] == problem(399 + truth["line"])["answer"]


def test_a_question_keeps_its_split_whatever_else_is_there(folder, tmp_path):
    make_gsm8k(folder, tmp_path / "all", val=0.2)
    some = write(tmp_path / "some", [problem(k) for k in range(450, 550)])
    make_gsm8k(some, tmp_path / "part", val=0.2)
    held = {row["messages"][0]["content"] for row in lines(tmp_path / "all" / "val.jsonl")}
    assert 20 <= len(held) <= 60
    for split in ("train", "val"):
        for row in lines(tmp_path / "part" / f"{split}.jsonl"):
            assert (row["messages"][0]["content"] in held) == (split == "val")
    make_gsm8k(folder, tmp_path / "again", val=0.2)
    assert contents(tmp_path / "again") == contents(tmp_path / "all")
    make_gsm8k(folder, tmp_path / "other", val=0.2, seed=1)
    assert {row["messages"][0]["content"] for row in lines(tmp_path / "other" / "val.jsonl")} != held


@pytest.mark.parametrize(
    "wrong",
    [
        {"question": "How many?"},
        {"question": "How many?", "answer": "2"},
        {"question": "", "answer": "2\n#### 2"},
        {"question": "How many?", "answer": "<<1+1=2 2\n#### 2"},
        ["How many?", "2"],
    ],
)
def test_lines_of_another_shape_are_told(wrong, tmp_path):
    folder = write(tmp_path / "gsm8k", [problem(k) for k in range(9)] + [wrong])
    with pytest.raises(UserError, match=r"train\.jsonl:10: found .*grade-school-math"):
        make_gsm8k(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_folder_says_where_to_get_it(tmp_path):
    with pytest.raises(UserError, match=r"train\.jsonl is missing.*https://github.com/openai"):
        make_gsm8k(tmp_path, tmp_path / "out")


def test_the_corpus(tmp_path):
    folder = real("gsm8k")
    make_gsm8k(folder, tmp_path / "out")
    problems = lines(folder / "train.jsonl")
    found = [one for split in ("train", "val") for one in examples(tmp_path / "out", split)]
    assert len(found) == len(problems) == 7473
    for row, truth in found:
        said = row["messages"][1]["content"]
        assert "<<" not in said and ">>" not in said
        assert re.fullmatch(r"-?[\d,.]+", truth["answer"]) and said.endswith(f"#### {truth['answer']}")
