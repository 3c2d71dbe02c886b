"""A whole comparison of tiny models: fair or refused, resumed without redoing, failures told, one report."""

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from unimodal.compare.plan import load_comparison, maker
from unimodal.compare.plots import spread
from unimodal.compare.run import compare
from unimodal.errors import UserError
from unimodal.images.codec import PixelPatches

RECIPE = {
    "model": {
        "vocab_size": 300,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "sampling": {"steps": 2},
    },
    "train": {"steps": 100, "warmup_steps": 10, "logging_steps": 1, "precision": "fp32"},
    "output": {"dir": "never/used"},
}


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a comparison of two tiny entrants with changes and gives its file."""
    monkeypatch.chdir(tmp_path)
    PixelPatches(32).save(tmp_path / "codec")
    recipe = RECIPE | {"model": RECIPE["model"] | {"codec": str(tmp_path / "codec")}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(recipe))

    def make(**changes):
        plain = {"name": "plain", "family": "integrated", "recipe": "tiny.yaml"}
        said = {
            "title": "Tiny models",
            "equal": "flops",
            "budgets": {"5m": {"amount": 1e9, "n": 1}},
            "data": {
                "sources": [{"source": "shapes", "tasks": {"t2i": 1, "vqa": 1}}],
                "tokens": 512,
                "workers": 0,
            },
            "entrants": [plain, plain | {"name": "experts", "overrides": ["model.experts=mot"]}],
        }
        path = tmp_path / "comparison.yaml"
        path.write_text(yaml.safe_dump(said | changes))
        return path

    return make


def entrant(name, *overrides, recipe="tiny.yaml"):
    return {"name": name, "family": "integrated", "recipe": recipe, "overrides": list(overrides)}


def test_trains_judges_reports_and_does_nothing_twice(write, tmp_path):
    broken = entrant("broken", "train.learning_rate=1e30", "train.max_grad_norm=null")
    path = write(entrants=[entrant("plain"), entrant("experts", "model.experts=mot"), broken])
    out = tmp_path / "out"
    found = compare(path, "5m", out)
    plain, experts, failed = found["entrants"]
    assert "not finite" in failed["failed"] and failed["name"] == "broken"
    steps = [told["training"]["steps"] for told in (plain, experts)]
    for told in (plain, experts):
        assert told["training"]["flops"] == pytest.approx(1e9, rel=0.6 / min(steps))
        assert told["params"]["trained"] < told["params"]["total"] + 1
        assert told["seconds_per_picture"] > 0 and told["flops_per_picture"] > 1e5 and told["memory_gb"] > 0
        assert told["scores"]["t2i/mean"]["n"] == 6
    assert experts["params"]["trained"] > plain["params"]["trained"]
    assert {pair["task"] for pair in found["pairs"]} == {"t2i", "edit", "vqa", "text", "chat"}
    assert json.loads((out / "results.json").read_text()) == found

    page = (out / "report.html").read_text()
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", page), "the page must need nothing else"
    assert page.count("data:image/png") == 2 * 6 and page.count("<svg") == 2
    words = (out / "report.md").read_text()
    tables = [line.count("|") for line in words.splitlines() if line.startswith("|")]
    assert "not finite" in words and set(tables) == {4, 7}  # scores and costs; five tasks
    assert len(list((out / "geneval" / "plain").glob("*/samples/0000.png"))) == 6

    done = {file: file.stat().st_mtime_ns for file in out.glob("entrants/*/*/*.json")}
    (out / "report.html").unlink()
    again = compare(path, "5m", out)
    assert again["entrants"][0] == plain and (out / "report.html").is_file()
    assert {file: file.stat().st_mtime_ns for file in out.glob("entrants/*/*/*.json")} == done


DEEP = entrant("b", "model.num_hidden_layers=8")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"equal": "luck"}, "equal"),
        ({"entrants": [entrant("a"), entrant("a")]}, "two entrants are named 'a'"),
        ({"budgets": {"full": {"amount": 1, "seeds": 1}}}, "at least 2"),
        ({"entrant": []}, "entrants"),
        ({"entrants": [entrant("a"), entrant("b", recipe="none.yaml")]}, "no recipe 'none.yaml'"),
        (
            {"entrants": [entrant("a"), entrant("b", "model.codec=runs/codec-shapes/model")]},
            "codec/shapes` makes",
        ),
        ({"entrants": [entrant("a"), entrant("b", "model.image_size=32")]}, "entrant b draws pictures of 32"),
        ({"entrants": [entrant("a"), entrant("b", "model.codec=other")]}, "another codec than a"),
        ({"equal": "parameters", "entrants": [entrant("a"), DEEP]}, "trains"),
        ({"budgets": {"5m": {"amount": 1}}}, "less than one step"),
        ({"reader": "runs/shapes-base/model"}, "shapes_base` makes it"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_training(write, tmp_path, changes, message):
    PixelPatches(16).save(tmp_path / "other")
    path = write(**changes)
    with pytest.raises(UserError, match=message):
        compare(path, next(iter(changes.get("budgets", {"5m": 0}))), tmp_path / "out")
    assert not list((tmp_path / "out").rglob("training.json"))


def test_other_settings_are_not_mixed_into_an_old_folder(write, tmp_path):
    from unimodal.compare.run import _prepare

    out = tmp_path / "out"
    path = write()
    comparison = load_comparison(path)
    _prepare(comparison, comparison.budgets["5m"], path, out)
    path = write(budgets={"5m": {"amount": 2e9, "n": 1}})
    with pytest.raises(UserError, match="other settings"):
        compare(path, "5m", out)
    with pytest.raises(UserError, match="no budget '30m'"):
        compare(path, "30m", tmp_path / "new")


def test_the_command_that_makes_a_missing_folder():
    assert maker(Path("runs/codec-shapes/model")) == "unimodal train codec/shapes"
    assert maker(Path("somewhere/else")) is None


@pytest.mark.parametrize(
    "values", [[0.4, 0.41, 0.42], [0.0, 0.0, 0.01], [0.98, 1.0, 1.0], [0.2, 0.9], [0.5] * 40]
)
def test_names_beside_a_plot_do_not_cover_each_other(values):
    heights = spread(values, 0.05)
    gap = min(0.05, 1 / (len(values) - 1))
    assert all(above - below >= gap - 1e-9 for below, above in pairwise(heights))
    assert min(heights) >= -1e-9
    assert max(heights) <= 1 + 1e-9
    if values == [0.2, 0.9]:
        assert heights == values
