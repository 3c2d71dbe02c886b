import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.toy import KIND
from unimodal.commands.recipes import find_recipe
from unimodal.errors import UserError
from unimodal.training import config
from unimodal.training.config import changes, load_recipe

RECIPE = """
model: {kind: toy, join: 2}
data:
  sources:
  - {source: shapes, weight: 2}
  - {path: rows.jsonl}
train: {steps: 10, learning_rate: 1e-3}
output: {dir: runs/x}
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(config.KINDS, "toy", KIND)
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE)
    return path


def test_reads_types_and_defaults(file: Path) -> None:
    recipe = load_recipe(file)
    assert recipe.model.join == 2
    assert recipe.train.learning_rate == 0.001
    assert recipe.train.gradient_accumulation_steps == 1
    assert [source.weight for source in recipe.data.sources] == [2.0, 1.0]
    assert recipe.output.dir == Path("runs/x")


def test_overrides_reach_lists_numbers_and_null(file: Path) -> None:
    recipe = load_recipe(file, ["train.steps=7", "data.sources[0].weight=5", "train.ema_decay=null"])
    assert recipe.train.steps == 7
    assert recipe.data.sources[0].weight == 5
    assert recipe.train.ema_decay is None


def test_resolved_yaml_reads_back_the_same(file: Path, tmp_path: Path) -> None:
    recipe = load_recipe(file)
    (tmp_path / "again.yaml").write_text(recipe.to_yaml())
    again = load_recipe(tmp_path / "again.yaml")
    assert again.model_dump() == recipe.model_dump()
    assert changes(recipe.to_yaml(), load_recipe(file, ["train.steps=11"]).to_yaml()) == [
        "train.steps: 10 -> 11"
    ]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.stepz=3", ["'train.stepz'", "'train.steps'", "train.stepz=3"]),
        ("train.lr_schedular_type=cosine", ["'train.lr_scheduler_type'"]),
        ("learning_rate=1", ["'learning_rate'", "'train.learning_rate'"]),
        ("model.jion=1", ["'model.jion'", "'model.join'"]),
        ("data.sources[1].wieght=1", ["'data.sources[1].wieght'", "'data.sources[1].weight'"]),
        ("train.steps=ten", ["'train.steps'", "'ten'", "integer"]),
        ("train.steps=0", ["'train.steps'", "greater than 0"]),
        ("train.optimizer=sgd", ["'adamw' or 'muon'", "'sgd'"]),
        ("train.learning_rate=.nan", ["'train.learning_rate'", "finite"]),
        ("data.sources[0].path=x", ["data.sources[0]", "either"]),
        ("model.kind=tpy", ["model.kind", "'tpy'", "codec, external, toy, unified"]),
        ("train.steps", ["no `=`"]),
    ],
)
def test_mistakes_are_sentences(file: Path, override: str, expected: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        load_recipe(file, [override])
    for words in expected:
        assert words in str(caught.value)


def test_mistakes_in_the_file_name_it(file: Path) -> None:
    file.write_text(RECIPE.replace("join", "jion") + "extra: 1\n")
    with pytest.raises(UserError) as caught:
        load_recipe(file)
    first, second = str(caught.value).splitlines()
    assert first.startswith(f"{file}: unknown key 'model.jion'")
    assert second.startswith(f"{file}: unknown key 'extra'")


def test_missing_key_says_how_to_give_it(file: Path) -> None:
    file.write_text(RECIPE.replace("output: {dir: runs/x}", "output: {}"))
    with pytest.raises(UserError, match=r"output\.dir=\.\.\."):
        load_recipe(file)


@pytest.mark.parametrize("text", ["a: [", "- 1", "model: 3", "", "model: {kind: toy, join: '${nowhere}'}"])
def test_not_a_recipe(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(UserError, match=r"r\.yaml"):
        load_recipe(file)


def test_reading_recipes_needs_no_torch() -> None:
    code = "import sys, unimodal.training.config; print('torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert told.stdout.strip() == "False"


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load_recipe(tmp_path / "none.yaml")


def test_a_recipe_that_begins_as_another_model_reads_back_as_it_was_said(tmp_path: Path) -> None:
    """Defaults that are not in force must not come back as wishes."""
    for name in ("paths/flow_frozen_text", "external/tune", "finetune/t2i_lora"):
        recipe = load_recipe(find_recipe(name))
        (tmp_path / "again.yaml").write_text(recipe.to_yaml())
        again = load_recipe(tmp_path / "again.yaml")
        assert again.model.model_fields_set - {"kind"} == recipe.model.model_fields_set - {"kind"}
        assert again.model_dump() == recipe.model_dump()


def test_tasks_and_reasons_are_of_live_sources(file: Path) -> None:
    assert load_recipe(file, ["data.sources[0].reasons=false"]).data.sources[0].reasons is False
    with pytest.raises(UserError, match="are of live sources"):
        load_recipe(file, ["data.sources[1].reasons=false"])
