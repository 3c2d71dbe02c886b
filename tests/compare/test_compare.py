"""A whole comparison of tiny models: fair or refused, resumed without redoing, failures told, one report."""

import json
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import yaml
from PIL import Image
from rich.progress import Progress

from data_tools.shapes.render import render
from data_tools.shapes.rows import example
from tests.compare.forked import Forked, until
from tests.models import SIZES
from unimodal.compare import crew, run
from unimodal.compare import prepare as preparing
from unimodal.compare.crew import Crew
from unimodal.compare.entrant import Job, result_at
from unimodal.compare.fairness import Facts
from unimodal.compare.geneval import write_pictures
from unimodal.compare.grid import picture_grid
from unimodal.compare.kept import keep
from unimodal.compare.plan import load_comparison, maker
from unimodal.compare.plots import plots, spread
from unimodal.compare.prepare import prepare, reader_jobs
from unimodal.compare.results import results_of
from unimodal.compare.run import compare
from unimodal.errors import UserError
from unimodal.evaluation.scores import share
from unimodal.images.codec import PixelPatches
from unimodal.training import loop
from unimodal.training.checkpoint import complete_checkpoints
from unimodal.training.config import load_recipe

RECIPE = {
    "model": SIZES | {"sampling": {"steps": 2}},
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


@pytest.fixture
def forks(monkeypatch, brief):
    """Jobs run in forks of this process; elsewhere they have new ones."""
    monkeypatch.setattr(crew, "subprocess", SimpleNamespace(Popen=Forked, STDOUT=subprocess.STDOUT))


def test_trains_judges_reports_and_does_nothing_twice(forks, write, tmp_path):
    broken = entrant("broken", "train.learning_rate=1e30", "train.max_grad_norm=null")
    path = write(entrants=[entrant("plain"), entrant("experts", "model.experts=mot"), broken])
    out = tmp_path / "out"
    found = compare(path, "5m", out, jobs=2)
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
    assert {(pair["name"], pair["against"]) for pair in found["pairs"]} == {("experts", "plain")}
    took = plain["training"]
    assert took["rows_per_second"] == pytest.approx(took["rows"]["read"] / took["seconds"])
    assert took["rows"]["read"] == sum(
        json.loads(line)["rows"]["read"]
        for line in (out / "entrants/plain/seed-0/run/log.jsonl").read_text().splitlines()
    )
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
        (
            {"entrants": [entrant("a"), entrant("b"), entrant("c", "model.codec=other") | {"codec": "own"}]}
            | {"budgets": {"5m": {"amount": 1}}},
            "less than one step",
        ),
        *(
            ({"entrants": [entrant("a"), entrant("b") | {key: value}]}, f"entrant b sets `{key}`")
            for key, value in (("judge", "mine"), ("split", "unseen"), ("seed", 3), ("n", 4))
        ),
        ({"entrants": [entrant("a"), entrant("b", "train.seed=3")]}, "train.seed=3.*comparison's"),
        ({"entrants": [entrant("a"), entrant("b", "data.seed=3")]}, "data.seed=3.*comparison's"),
        ({"pairs": [["plain", "expert"]]}, "no entrant is named 'expert'.*'experts'"),
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


def test_equal_seconds_are_timed_and_one_whose_trial_fails_is_left_out(write, tmp_path, monkeypatch):
    broken = entrant("broken", "train.learning_rate=1e30", "train.max_grad_norm=null")
    path = write(
        equal="seconds",
        budgets={"5m": {"amount": 3, "n": 1}},
        entrants=[entrant("plain"), broken, entrant("experts", "model.experts=mot")],
    )
    comparison, said = load_comparison(path), []
    places, failures = prepare(comparison, comparison.budgets["5m"], path, tmp_path / "out", said.append)
    assert list(places) == ["plain", "experts"] and "not finite" in failures["broken"]
    assert sum("timing a few steps" in line for line in said) == 3
    for (place,) in places.values():
        assert load_recipe(place / "recipe.yaml").train.steps > 3

    def stopped(recipe):  # as if it were done; the comparison must not go on then
        recipe.output.dir.mkdir(parents=True)
        (recipe.output.dir / "log.jsonl").write_text('{"step": 4, "step_seconds": 1.0}\n')

    monkeypatch.setattr(loop, "train", stopped)
    with pytest.raises(KeyboardInterrupt):
        prepare(comparison, comparison.budgets["5m"], path, tmp_path / "other", print)


def test_seconds_are_not_held_equal_among_runs_that_share_the_machine(write, tmp_path):
    with pytest.raises(UserError, match="Leave --jobs out"):
        compare(write(equal="seconds"), "5m", tmp_path / "out", jobs=2)
    assert not (tmp_path / "out").exists()


def test_a_part_that_was_trained_anew_is_not_mixed_with_the_old(write, tmp_path):
    path, out = write(), tmp_path / "out"
    comparison = load_comparison(path)
    share = comparison.budgets["5m"]
    prepare(comparison, share, path, out, print)
    prepare(comparison, share, path, out, print)
    codec = PixelPatches(32)
    codec.mean += 1
    codec.save(tmp_path / "codec")
    with pytest.raises(UserError, match="trained anew since"):
        prepare(comparison, share, path, out, print)
    comparison.reader = "codec"  # any folder with weights
    place = reader_jobs(comparison, share, out)["plain"]
    (place / "judged.json").write_text("{}")
    assert (reader_jobs(comparison, share, out)["plain"] / "judged.json").exists()
    PixelPatches(32).save(tmp_path / "codec")
    assert not (reader_jobs(comparison, share, out)["plain"] / "judged.json").exists()


def test_other_settings_are_not_mixed_into_an_old_folder(write, tmp_path):
    out = tmp_path / "out"
    path = write()
    comparison = load_comparison(path)
    prepare(comparison, comparison.budgets["5m"], path, out, print)
    path = write(budgets={"5m": {"amount": 2e9, "n": 1}})
    with pytest.raises(UserError, match="other settings"):
        compare(path, "5m", out)
    with pytest.raises(UserError, match="no budget '30m'"):
        compare(path, "30m", tmp_path / "new")


def test_what_is_prepared_is_not_counted_again_and_one_that_breaks_is_left_out(write, tmp_path, monkeypatch):
    path, out, counted, said = write(), tmp_path / "out", [], []
    comparison = load_comparison(path)
    share = comparison.budgets["5m"]

    def facts_of(recipe):
        counted.append(recipe.output.dir.parent.parent.name)
        if counted[-1] == "experts" and len(counted) < 3:
            raise RuntimeError("a bug")
        return Facts(10, 20, 1e6, "codec", 64)

    monkeypatch.setattr(preparing, "facts_of", facts_of)
    folders, failures = prepare(comparison, share, path, out, said.append)
    assert list(folders) == ["plain"] and "RuntimeError: a bug" in failures["experts"]
    assert any("plain" in line and "10 trained" in line for line in said)
    assert "a bug" in (out / "entrants/experts/prepare.log").read_text()
    folders, failures = prepare(comparison, share, path, out, said.append)
    assert list(folders) == ["plain", "experts"] and not failures
    prepare(comparison, share, path, out, said.append)
    assert counted == ["plain", "experts", "experts"]


def test_a_folder_is_the_same_however_it_is_named(write, tmp_path, monkeypatch):
    places = []
    monkeypatch.setattr(run, "_compare", lambda comparison, budget, path, out, jobs: places.append(out))
    path = write()
    compare(path, "5m", Path("out"))
    compare(path, "5m", tmp_path / "out")
    assert places == [tmp_path.resolve() / "out"] * 2


RESULT = {
    "scores": {"vqa/colour": share([True]).as_dict()},
    "cases": {"vqa/colour": [True, False]},
    "params": {"trained": 1, "total": 2},
    "training": {"steps": 3},
}


def answered(*words):
    return RESULT | {"answers": {"vqa/colour": list(words)}}


def test_a_seed_that_failed_is_told_beside_those_that_finished(write, tmp_path, monkeypatch):
    """And an external entrant that says anything else than its reader has failed, be it as often right."""
    comparison, out = load_comparison(write()), tmp_path / "out"
    one = comparison.entrants[0]
    places = [out / f"seed-{seed}" for seed in range(3)]
    judged = {"scores": RESULT["scores"], "cases": RESULT["cases"], "total": 2}
    for seed, place in enumerate(places):
        place.mkdir(parents=True)
        said = ("red", "no") if seed == 2 else ("red", "blue")
        keep(place / "job.json", Job("plain", "external", seed, "val", 1, 0).as_dict())
        keep(place / "judged.json", judged | {"answers": {"vqa/colour": said}})
        keep(place / "training.json", {"trained": 1, "model": "m", "steps": 3})

    def fails_once(self, place, part, told):
        if (place, part) == (places[0], "train"):
            raise UserError("out of luck")
        yield

    monkeypatch.setattr(Crew, "do", fails_once)
    external, alone = one.model_copy(update={"family": "external"}), Crew(Progress())
    runs = {f"plain, seed {seed}": (external, seed, place) for seed, place in enumerate(places)}
    assert run._train_judge_measure(runs, {}, alone, alone) == {"plain, seed 0": "out of luck"}
    understood = {"plain": answered("red", "blue")}
    wrong = run._train_judge_measure(runs, understood, alone, alone)
    assert wrong.keys() == {"plain, seed 0", "plain, seed 2"}
    assert "prompt 1 of vqa/colour it says 'no', the reader 'blue'" in wrong["plain, seed 2"]
    results = [result_at(places[1])]
    failures = {0: "out of luck", 2: wrong["plain, seed 2"]}
    told, other = results_of(
        comparison, "5m", {"plain": results}, {"plain": failures, "experts": {0: "never"}}, {}
    )["entrants"]
    assert told["scores"]["vqa/colour"]["n"] == 2 and "failed" not in told
    assert [one["seed"] for one in told["failed_seeds"]] == [0, 2]
    assert other["failed"] == "never" and "scores" not in other


@pytest.mark.parametrize("pairs", [None, [["c", "a"]]])
def test_all_pairs_are_told_or_those_that_are_asked_for(write, pairs):
    comparison = load_comparison(write(entrants=[entrant("a"), entrant("b"), entrant("c")], pairs=pairs))
    results = {name: [answered("x", "y") | {"seed": 0}] for name in "abc"}
    found = results_of(comparison, "5m", results, {}, {})["pairs"]
    wanted = [["a", "b"], ["a", "c"], ["b", "c"]] if pairs is None else pairs
    assert [[pair["against"], pair["name"]] for pair in found if pair["task"] == "vqa"] == wanted


def test_the_worst_pictures_come_first_of_all_not_of_the_first(tmp_path):
    """Of 40 prompts the last was drawn wrong by all, the one before it by one of two."""
    asked = [example("t2i", "val", 0, i, "single") for i in range(40)]
    right = [Image.fromarray(render(one.steps[0].scene, 64)) for one in asked]
    blank = Image.new("RGB", (64, 64), (1, 2, 3))
    write_pictures(tmp_path / "a", asked, [*right[:39], blank], 1)  # its seed 0 failed
    write_pictures(tmp_path / "b", asked, [*right[:38], blank, blank], 0)
    told = [{"name": "a", "seeds": [{"seed": 1}]}, {"name": "b", "seeds": [{"seed": 0}]}, {"failed": "x"}]
    rows = picture_grid(tmp_path, {"entrants": told})
    assert [row["wrong"] for row in rows] == [2, 1] + [0] * 28
    assert [row["prompt"] for row in rows[:2]] == [asked[39].steps[0].text, asked[38].steps[0].text]
    assert [picture["right"] for picture in rows[1]["pictures"]] == [True, False]


@pytest.mark.skipif(sys.platform != "linux", reason="only there a child can ask to end with its parent")
def test_killed_in_the_middle_it_ends_whole_and_goes_on(forks, write, tmp_path):
    twins = [entrant("one"), entrant("two", "train.learning_rate=2e-3")]
    path = write(equal="parameters", budgets={"5m": {"amount": 60, "n": 1}}, entrants=twins)
    out = tmp_path / "out"
    first, second = (out / "entrants" / name / "seed-0" for name in ("one", "two"))
    command = [sys.executable, "-m", "unimodal", "compare", str(path), "--out", "out"]
    whole = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        until(lambda: (second / "run/log.jsonl").is_file() and (second / "run/log.jsonl").read_text())
        (trainer,) = psutil.Process(whole.pid).children()
        trainer.suspend()  # so that it is in the middle, however quick the machine is
        with pytest.raises(UserError, match="another process works there"):
            compare(path, "5m", out)
    finally:
        whole.kill()
        whole.wait()
    trainer.resume()
    trainer.wait(60)
    assert complete_checkpoints(second / "run"), "a trainer saves before it goes"
    assert not (second / "training.json").exists()
    done = {file: file.stat().st_mtime_ns for file in first.rglob("*") if file.name != "lock"}
    assert first / "judged.json" in done
    found = compare(path, "5m", out)
    assert [told["training"]["steps"] for told in found["entrants"]] == [60, 60]
    assert {file: file.stat().st_mtime_ns for file in done} == done
    assert (first / "costs.json").is_file(), "what a picture costs is measured last"
    assert "resumed from" in (second / "train.log").read_text()


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


def test_where_flops_are_alike_training_is_plotted_by_its_minutes():
    def training(flops, seconds):
        score = {"value": 0.5, "low": 0.4, "high": 0.6}
        told = [
            {"name": name, "family": "external", "scores": {"t2i/mean": score}, "seconds_per_picture": 1.0}
            | {"training": {"flops": flops[k], "seconds": seconds[k]}}
            for k, name in enumerate("ab")
        ]
        return plots({"entrants": told})["training"]

    assert training([1e13, 1.01e13], [60, 90]) != training([1e13, 1.01e13], [60, 120])
    assert training([1e13, 2e13], [60, 90]) == training([1e13, 2e13], [60, 120])
