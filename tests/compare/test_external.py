"""Integrated and external entrants in one comparison, two stages, kept conditions, readers of their own.

Jobs run in this process, one after the other; in test_compare.py they have processes of their own.
"""

import json
import re
from pathlib import Path

import pytest
import torch
import yaml

import unimodal
from tests.documents import tokenizer
from tests.models import tiny_model
from unimodal.commands.recipes import find_recipe
from unimodal.compare import entrant
from unimodal.compare.crew import Crew
from unimodal.compare.entrant import DONE
from unimodal.compare.kept import read
from unimodal.compare.measure import cache_gain
from unimodal.compare.plan import load_comparison, maker, parts_of, recipe_of
from unimodal.compare.run import compare
from unimodal.compare.stages import FIRST, second_of
from unimodal.errors import UserError
from unimodal.images.codec import PixelPatches
from unimodal.model.folder import SHIPPED as MODELS
from unimodal.model.folder import save_model
from unimodal.training import external_trainee, precision
from unimodal.training.config import load_recipe
from unimodal.training.run import seed_everything
from unimodal.training.unified import CHANGEABLE

INTEGRATED = {
    "model": {"init_from": "reader", "sampling": {"steps": 2}},
    "train": {"steps": 100, "logging_steps": 1, "precision": "fp32"},
    "output": {"dir": "never/used"},
}
EXTERNAL = INTEGRATED | {
    "model": {
        "kind": "external",
        "reader": {"name": "reader"},
        "connector": {"kind": "queries", "options": {"count": 4, "width": 16, "depth": 1, "heads": 2}},
        "denoiser": {"options": {"width": 16, "depth": 1, "heads": 2, "condition": 16}},
        "sampling": {"steps": 2},
        "batch_size": 4,
    }
}
BUDGET = 1.5e9


@pytest.fixture
def write(tmp_path, monkeypatch, brief):
    """Writes a comparison of tiny entrants and gives its file; jobs run in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(precision, "gemm_rate", lambda device, dtype: 1e9)
    monkeypatch.setattr(Crew, "do", in_this_process)
    monkeypatch.setattr(external_trainee, "COUNTED", 6)
    save_model(tmp_path / "reader", tiny_model(codec=PixelPatches(32), image_size=64), tokenizer())
    save_model(tmp_path / "other", tiny_model(1, PixelPatches(32), image_size=64), tokenizer())
    (tmp_path / "inside.yaml").write_text(yaml.safe_dump(INTEGRATED))
    (tmp_path / "outside.yaml").write_text(yaml.safe_dump(EXTERNAL))
    hidden = EXTERNAL["model"] | {"connector": {"kind": "hidden"}}
    (tmp_path / "hidden.yaml").write_text(yaml.safe_dump(EXTERNAL | {"model": hidden}))

    def make(*entrants, **changes):
        said = {
            "title": "Inside or outside",
            "equal": "flops",
            "budgets": {"5m": {"amount": BUDGET, "n": 1}},
            "reader": "reader",
            "data": {
                "sources": [{"source": "shapes", "tasks": {"t2i": 1, "vqa": 1}}],
                "tokens": 2048,
                "workers": 0,
            },
            "entrants": list(entrants),
        }
        path = tmp_path / "comparison.yaml"
        path.write_text(yaml.safe_dump(said | changes))
        return path

    return make


def in_this_process(crew, place, part, told):
    if not (place / DONE[part]).is_file():
        jobs = {"train": entrant.train_job, "judge": entrant.judge_job, "measure": entrant.measure_job}
        jobs[part](place)
    yield


def inside(name="inside", **more):
    return {"name": name, "family": "integrated", "recipe": "inside.yaml"} | more


def outside(name, recipe="outside.yaml", **more):
    return {"name": name, "family": "external", "recipe": recipe} | more


STAGED = outside(
    "staged",
    overrides=["model.trained=[connector]"],
    then={"share": 0.25, "overrides": ["model.trained=[connector,denoiser]", "train.learning_rate=1e-4"]},
)


def test_both_families_in_one_report(write, tmp_path):
    path = write(inside(), outside("hidden", "hidden.yaml"), STAGED)
    out = tmp_path / "out"
    found = compare(path, "5m", out)
    assert not [told for told in found["entrants"] if "failed" in told]
    by_name = {told["name"]: told for told in found["entrants"]}

    # What an external model understands is its reader's to the letter.
    for name in ("hidden", "staged"):
        change = by_name[name]["understanding_change"]
        assert (change["value"], change["low"], change["high"]) == (0.0, 0.0, 0.0)
    # Half of the rows are questions: they teach an external model nothing, and are counted.
    for name in ("hidden", "staged"):
        rows, steps = (by_name[name]["training"][key] for key in ("rows", "steps"))
        assert rows["read"] - rows["without_picture"] == 4 * steps
        assert rows["without_picture"] > 0
    assert by_name["inside"]["training"]["rows"].keys() == {"read"}

    gain = by_name["hidden"]["condition_cache"]
    assert gain["gain"] == pytest.approx(gain["step_seconds"] / gain["cached_step_seconds"])
    assert by_name["inside"]["condition_cache"] is by_name["staged"]["condition_cache"] is None
    for told in found["entrants"]:
        assert told["training"]["flops"] == pytest.approx(BUDGET, rel=0.5)
        assert told["flops_per_picture"] > 0 and told["forwards_per_picture"] == 2
    assert by_name["staged"]["parts"] == {"reader": "reader"}
    assert by_name["inside"]["parts"] == {"init_from": "reader"}

    page, words = ((out / f"report.{kind}").read_text() for kind in ("html", "md"))
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", page), "the page must need nothing else"
    for text in (page, words):
        assert "conditions kept: a step is so many times as fast" in text
        assert "of them without a picture" in text
        assert "init_from" in text
    assert "| conditions kept: a step is so many times as fast | – |" in words

    again = compare(path, "5m", out)
    assert again == found


def test_a_second_stage_goes_on_from_the_first(write, tmp_path):
    """The denoiser does not move in the first and does in the second; the budget is shared."""
    compare(write(STAGED, inside()), "5m", tmp_path / "out")
    place = tmp_path / "out" / "entrants" / "staged" / "seed-0"
    whole, first = (read(folder / "training.json") for folder in (place, place / FIRST))
    assert first["flops"] == pytest.approx(0.75 * BUDGET, rel=0.5)
    assert whole["flops"] > first["flops"] and whole["steps"] > first["steps"]
    assert whole["trained"] > first["trained"]
    begun = load_recipe(place / FIRST / "recipe.yaml")
    seed_everything(begun.train.seed)
    before = begun.model.build(begun).module
    models = [before, *(unimodal.load(folder / "run" / "model").model for folder in (place / FIRST, place))]
    start, frozen, tuned = (list(model.denoiser.parameters()) for model in models)
    assert all(map(torch.equal, start, frozen))
    assert not all(map(torch.equal, frozen, tuned))
    second = load_recipe(place / "recipe.yaml")
    assert second.model.init_from == str(place / FIRST / "run" / "model")
    assert second.train.learning_rate == 1e-4 and begun.train.learning_rate != 1e-4
    # It reads on, with noise of its own.
    trained = load_recipe(place / "run" / "recipe.yaml")
    assert trained.data.first_row == first["rows"]["read"] > 0
    assert trained.train.seed != begun.train.seed


def test_an_entrant_may_have_a_reader_of_its_own(write, tmp_path):
    wrong = outside("wrong", overrides=["model.reader.name=other"])
    with pytest.raises(UserError, match=r"its reader is other, but .* compared with that of reader"):
        compare(write(inside(), wrong), "5m", tmp_path / "out")
    other = inside("other", overrides=["model.init_from=other"], reader="other")
    found = compare(write(inside(), other), "5m", tmp_path / "out")
    assert [told["reader"] for told in found["entrants"]] == ["reader", "other"]
    assert sorted(place.name for place in (tmp_path / "out" / "readers").iterdir()) == ["other", "reader"]


@pytest.mark.parametrize(
    ("entrants", "changes", "message"),
    [
        ([inside(), inside("b", then={})], {}, "`then` is for recipes of external models"),
        ([inside(), inside("b", family="external")], {}, "said to be external, but .* of kind unified"),
        ([inside(), inside("b", reader="other")], {"reader": None}, "names a reader, but the comparison"),
        (
            [inside(), outside("b", overrides=["model.reader.name=runs/demo/model"])],
            {},
            r"model\.reader: .* is missing; `unimodal train demo` makes it",
        ),
        (
            [inside(), outside("b", overrides=["model.denoiser_from=runs/external-denoiser/model"])],
            {},
            r"model\.denoiser_from: .*`unimodal train external/denoiser` makes it",
        ),
        *(
            ([inside(), outside("b", then={"overrides": [override]})], {}, re.escape(override) + message)
            for override, message in (
                ("train.seed=3", ".*rows, seeds"),
                ("data.seed=3", ".*rows, seeds"),
                ("output.dtype=float16", r".*changes train\.\* and model\.\* alone"),
                ("model.connector.options.count=8", ".*goes on with the model of the first"),
                ("model.drop.text=0.5", ".*goes on with the model of the first"),
            )
        ),
        (
            [inside(), outside("b", then={"overrides": ["model.triend=[connector]"]})],
            {},
            r"did you mean 'model\.trained'",
        ),
    ],
)
def test_what_cannot_be_is_a_sentence(write, tmp_path, entrants, changes, message):
    with pytest.raises(UserError, match=message):
        compare(write(*entrants, **changes), "5m", tmp_path / "out")
    assert not list((tmp_path / "out").rglob("training.json"))


def test_keeping_conditions_needs_a_reader_that_reads_the_prompt_alone(write, tmp_path):
    device = torch.device("cpu")
    for name, there in (("hidden", True), ("outside", False), ("inside", False)):
        recipe = load_recipe(tmp_path / f"{name}.yaml", ["data.sources=[{source: shapes}]"])
        (tmp_path / "one.yaml").write_text(recipe.to_yaml())
        assert (cache_gain(tmp_path / "one.yaml", device) is not None) == there


def recipe_or_missing(comparison, told, path, folder):
    """The entrant's recipe; None if a part was missing, which is there now."""
    try:
        return recipe_of(comparison, told, path, 0, folder / "run")
    except UserError as error:
        missing = re.search(r"(runs/\S+) is missing; `unimodal train (\S+)` makes it", str(error))
        source, command = missing.groups()
        assert find_recipe(command)
        Path(source).mkdir(parents=True)


SHIPPED = ("integrated_vs_external", "connectors", "experts")


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_comparisons_are_whole(name, tmp_path, monkeypatch):
    """Every entrant has recipes, starts as its reader was made, and misses no part that no command makes."""
    path = find_recipe(f"compare/{name}").resolve()
    comparison = load_comparison(path)
    monkeypatch.chdir(tmp_path)
    for told in comparison.entrants:
        while (recipe := recipe_or_missing(comparison, told, path, tmp_path)) is None:
            pass
        assert (recipe.model.model_dump().get("kind") == "external") == (told.family == "external")
        if told.then:
            begun = second_of(recipe, told, Path("first/model"))
            assert begun.model.init_from == "first/model" and begun.model.reader is None
        base = parts_of(recipe).get("init_from")
        if base and not (MODELS / base).exists():
            made = load_recipe(find_recipe(maker(Path(base)).removeprefix("unimodal train "))).model
            for key in recipe.model.model_fields_set & type(made).model_fields.keys() - CHANGEABLE:
                if key not in ("init_from", "codec", "experts", "freeze", "loss", "tokenizer"):
                    assert getattr(recipe.model, key) == getattr(made, key), (told.name, key)
            assert (told.reader or comparison.reader) == base
    if name == "connectors":
        kinds = {json.dumps(told.overrides) for told in comparison.entrants}
        assert len(kinds) == len(comparison.entrants) == 12
