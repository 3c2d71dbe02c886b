"""Evaluation on held-out rows, the best checkpoint, early stopping; resuming changes nothing of it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from accelerate import Accelerator
from safetensors.torch import load_file

from tests.adapters.make import base_folder, losses, pack
from tests.documents import HiddenTarget, random_document, tokenizer
from tests.training.processes import run_two
from tests.training.test_resume import NOISY, Interrupted, assert_bit_for_bit, break_off_at
from tests.training.toy import ToyTrainee, toy_recipe
from unimodal.errors import UserError
from unimodal.sequence.layout import layout
from unimodal.sequence.pack import pack_in_order
from unimodal.training import loop
from unimodal.training.checkpoint import complete_checkpoints
from unimodal.training.config import load_recipe
from unimodal.training.held_out import judged_by
from unimodal.training.loop import train
from unimodal.training.run import Run
from unimodal.training.signals import StopRequest

EVALUATED = {"eval_steps": 2, "save_steps": 100}


def evaluations(output: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if "eval_loss" in line]


def script(monkeypatch: pytest.MonkeyPatch, values: list[float]) -> list[int]:
    """Makes evaluations say `values` in turn; gives the list of steps at which they were asked."""
    asked: list[int] = []

    def evaluate(run: Any) -> dict[str, float]:
        asked.append(run.step)
        value = values[run.step // run.recipe.train.eval_steps]
        return {"eval_loss": value, "eval_loss_fit": value}

    monkeypatch.setattr(loop, "evaluate", evaluate)
    return asked


def names(output: Path) -> list[str]:
    return [path.name for path in complete_checkpoints(output)]


def test_the_figures_are_those_of_the_averaged_weights_by_hand(tmp_path: Path) -> None:
    train(toy_recipe(tmp_path, ema_decay=0.5, **EVALUATED))
    found = evaluations(tmp_path)
    assert [entry["step"] for entry in found] == [0, 2, 4, 6]
    trainee = ToyTrainee(toy_recipe(tmp_path / "x").model)
    trainee.module.load_state_dict(load_file(tmp_path / "model" / "model.safetensors"))
    batches = list(trainee.held_out())
    x, y = torch.cat([b.x for b in batches]), torch.cat([b.y for b in batches])
    with torch.no_grad():
        fit = (trainee.module(x) - y).square().mean().item()
        size = trainee.module.head.weight.square().sum().item()
    assert found[-1]["eval_loss_fit"] == pytest.approx(fit, rel=1e-5)
    assert found[-1]["eval_loss"] == pytest.approx(fit + 0.1 * size, rel=1e-5)


def test_evaluating_changes_nothing_of_the_training(tmp_path: Path) -> None:
    train(toy_recipe(tmp_path / "a", NOISY))
    train(toy_recipe(tmp_path / "b", NOISY, **EVALUATED))
    one, other = (load_file(tmp_path / run / "model" / "model.safetensors") for run in "ab")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_two_processes_find_the_same(tmp_path: Path) -> None:
    settings = {"steps": 2, "ema_decay": None, **EVALUATED}
    train(toy_recipe(tmp_path / "one", gradient_accumulation_steps=2, **settings))
    said = run_two(tmp_path / "two", {}, **settings)
    assert "Done after step 2" in said[0], said
    for one, two in zip(evaluations(tmp_path / "one"), evaluations(tmp_path / "two"), strict=True):
        assert one["eval_loss"] == pytest.approx(two["eval_loss"], rel=1e-4)


def test_stops_when_nothing_gets_better_and_gives_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = script(monkeypatch, [5.0, 3.0, 4.0, 3.5, 1.0, 0.5])
    settings = {"steps": 12, "early_stopping_patience": 2, "load_best_model_at_end": True, **EVALUATED}
    train(toy_recipe(tmp_path, NOISY, **settings))
    assert asked == [0, 2, 4, 6]
    said = " ".join(capsys.readouterr().out.split())
    assert "Stopped early after step 6: for 2 evaluations eval_loss" in said
    assert "at step 2 (3.0000)" in said
    assert names(tmp_path) == ["step-000002", "step-000006"]
    best = load_file(tmp_path / "checkpoints" / "step-000002" / "model" / "model.safetensors")
    last = load_file(tmp_path / "checkpoints" / "step-000006" / "model" / "model.safetensors")
    given = load_file(tmp_path / "model" / "model.safetensors")
    assert all(torch.equal(given[name], best[name]) for name in best)
    assert not torch.equal(given["head.weight"], last["head.weight"])


def test_a_stopped_run_stays_stopped_until_it_is_given_more_patience(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = script(monkeypatch, [5.0, 3.0, 4.0, 2.0, 2.5, 2.6, 2.7])
    settings = {"steps": 12, **EVALUATED}
    train(toy_recipe(tmp_path, early_stopping_patience=1, **settings))
    assert asked == [0, 2, 4]
    train(toy_recipe(tmp_path, early_stopping_patience=1, resume="auto", **settings))
    assert asked == [0, 2, 4]
    train(toy_recipe(tmp_path, early_stopping_patience=2, resume="auto", **settings))
    assert asked == [0, 2, 4, 6, 8, 10]


def test_the_best_checkpoint_outlives_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch, [5.0, 3.0, 4.0, 4.0, 4.0, 4.0])
    train(toy_recipe(tmp_path, steps=10, eval_steps=2, save_steps=1, save_total_limit=2))
    assert names(tmp_path) == ["step-000002", "step-000009", "step-000010"]


def test_a_second_best_makes_room_for_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch, [5.0, 4.0, 3.0, 2.0])
    train(toy_recipe(tmp_path, save_total_limit=1, **EVALUATED))
    assert names(tmp_path) == ["step-000006"]


@pytest.mark.parametrize("broken_after", [3, 5])
def test_resumed_equals_straight_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken_after: int
) -> None:
    settings = {
        **{"steps": 8, "eval_steps": 2, "save_steps": 2, "load_best_model_at_end": True},
        **{"early_stopping_patience": 3, "learning_rate": 0.3},
    }
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    train(toy_recipe(straight, NOISY, **settings))
    with monkeypatch.context() as patch:
        # Evaluations ask for losses too: three batches each, at the start and after every second step.
        break_off_at(broken_after + 3 * (1 + broken_after // 2), patch)
        with pytest.raises(Interrupted):
            train(toy_recipe(broken, NOISY, **settings))
    train(toy_recipe(broken, NOISY, resume="auto", **settings))
    ends = [complete_checkpoints(run)[-1] for run in (straight, broken)]
    assert ends[0].name == ends[1].name
    assert_bit_for_bit(straight, broken, int(ends[0].name.removeprefix("step-")))
    assert evaluations(straight) == [
        entry | {"seconds": was["seconds"]} for entry, was in zip(evaluations(broken), evaluations(straight))
    ]
    states = [json.loads((end / "resume" / "state.json").read_text())["best"] for end in ends]
    assert states[0] == states[1]
    one, other = (load_file(run / "model" / "model.safetensors") for run in (straight, broken))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_another_metric_is_looked_for_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script(monkeypatch, [5.0, 3.0, 4.0])
    train(toy_recipe(tmp_path, steps=2, **EVALUATED))
    changed = {"metric_for_best_model": "eval_loss_fit", "load_best_model_at_end": True}
    train(toy_recipe(tmp_path, steps=4, resume="auto", **changed, **EVALUATED))
    said = capsys.readouterr().out
    assert "no best checkpoint of this metric yet" in said
    assert "The model is that of step 2" in said


def test_what_is_judged_otherwise_is_looked_for_anew(
    recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A best that no later evaluation reaches is left only if it was judged by something else."""
    held = tmp_path / "held.jsonl"
    held.write_text('{"text": "yes no"}\n{"text": "a red circle"}\n')
    base = [f"data.eval_sources=[{{path: {held}}}]", "train.eval_steps=2", "train.resume=auto"]
    train(recipe(*base, "train.steps=2"))
    states = complete_checkpoints(tmp_path / "run")[-1] / "resume" / "state.json"
    kept = states.read_text()

    def goes_on(*changes: str) -> bool:
        """Whether the old best, made one that cannot be reached, is that of a run that is resumed."""
        state = json.loads(kept)
        states.write_text(json.dumps(state | {"best": state["best"] | {"value": -1.0}}))
        run = Run(recipe(*base, "train.steps=2", *changes), Accelerator(), StopRequest())
        run.close()
        return run.best.value == -1.0

    assert goes_on() and goes_on("train.early_stopping_patience=3", "train.save_steps=1")
    assert not goes_on("data.eval_rows=1")
    assert not goes_on("model.loss.text=0.5")
    moved = tmp_path / "elsewhere" / "rows.jsonl"
    moved.parent.mkdir()
    moved.write_bytes(held.read_bytes())
    assert goes_on(f"data.eval_sources=[{{path: {moved}}}]")
    held.write_text('{"text": "yes no"}\n{"text": "a red square"}\n')
    assert not goes_on()
    capsys.readouterr()
    train(recipe(*base, "train.steps=4", "train.load_best_model_at_end=true"))
    said = " ".join(capsys.readouterr().out.split())
    assert "no best checkpoint of this metric yet, by these held-out rows" in said
    assert [entry["step"] for entry in evaluations(tmp_path / "run")] == [0, 2, 2, 4]


def test_loss_weights_are_nothing_to_the_metric_of_one_loss(recipe) -> None:
    said = ["data.eval_sources=[{source: shapes, split: val}]", "train.eval_steps=2"]
    for metric, same in (("eval_loss", False), ("eval_loss_text", True)):
        one, other = (
            judged_by(recipe(*said, f"train.metric_for_best_model={metric}", f"model.loss.image={weight}"))
            for weight in (1.0, 2.0)
        )
        assert (one == other) == same


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"load_best_model_at_end": True}, "need `eval_steps`"),
        ({"early_stopping_patience": 2}, "need `eval_steps`"),
        ({"eval_steps": 0}, r"train\.eval_steps"),
    ],
)
def test_half_a_wish_is_told(tmp_path: Path, settings: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        toy_recipe(tmp_path, **settings)


def test_rows_and_steps_need_each_other(tmp_path: Path) -> None:
    recipe = toy_recipe(tmp_path)
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe.to_yaml())
    with pytest.raises(UserError, match=r"yaml: `data\.eval_sources` and `train\.eval_steps` need"):
        load_recipe(file, ["train.eval_steps=2"])


def test_an_unknown_metric_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'eval_loss_fits'.*did you mean 'eval_loss_fit'"):
        train(toy_recipe(tmp_path, metric_for_best_model="eval_loss_fits", **EVALUATED))
    assert not (tmp_path / "log.jsonl").exists()


def test_a_trainee_without_held_out_rows_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(ToyTrainee, "held_out")
    with pytest.raises(UserError, match="no losses on held-out rows"):
        train(toy_recipe(tmp_path, **EVALUATED))


def test_not_a_number_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = ToyTrainee._rows

    def rows(self: ToyTrainee, group: int) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = plain(self, group)
        return x, y * float("nan") if group == 4001 else y

    monkeypatch.setattr(ToyTrainee, "_rows", rows)
    with pytest.raises(UserError, match="held-out rows is not finite after step 0"):
        train(toy_recipe(tmp_path, **EVALUATED))


def test_packs_in_order_hold_every_sequence_once() -> None:
    import numpy as np

    documents = [random_document(np.random.default_rng(seed)) for seed in range(20)]
    sequences = [layout(d, tokenizer(), HiddenTarget(), 4) for d in documents]
    budget = max(map(len, sequences)) + 10
    packs = list(pack_in_order(sequences, budget))
    assert [n for p in packs for n in p.lengths] == list(map(len, sequences))
    assert all(p.tokens <= p.budget == budget for p in packs)
    assert len(packs) > 1
    with pytest.raises(UserError, match="do not fit the budget"):
        list(pack_in_order(sequences, budget - 11))


def test_an_adapter_is_stopped_early_and_its_best_is_given(tmp_path: Path) -> None:
    """Through the real trainee: rows in files, and what is given is the adapter of the best step."""
    import unimodal

    base = base_folder(tmp_path / "base")
    row = {"messages": [{"role": "user", "content": "two"}, {"role": "assistant", "content": "yes no yes"}]}
    other = {
        "messages": [{"role": "user", "content": "two"}, {"role": "assistant", "content": "a red circle"}]
    }
    (tmp_path / "train.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "val.jsonl").write_text(json.dumps(other) + "\n")
    recipe = {
        "model": {"init_from": str(base), "lora": {"rank": 4, "modules_to_save": ["embed_tokens"]}},
        "data": {
            "sources": [{"path": str(tmp_path / "train.jsonl")}],
            "eval_sources": [{"path": str(tmp_path / "val.jsonl")}],
            **{"eval_rows": 3, "tokens": 128, "workers": 0},
        },
        "train": {
            **{"steps": 40, "eval_steps": 4, "early_stopping_patience": 2, "load_best_model_at_end": True},
            **{"learning_rate": 0.1, "precision": "fp32", "save_steps": 1000, "ema_decay": None},
        },
        "output": {"dir": str(tmp_path / "run")},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    folder = train(load_recipe(tmp_path / "recipe.yaml"))
    found = evaluations(tmp_path / "run")
    assert found[-1]["step"] < 40  # it learns what the held-out rows do not say
    trainee = load_recipe(tmp_path / "recipe.yaml").model.build(load_recipe(tmp_path / "recipe.yaml"))
    assert sum(len(held.lengths) for held in trainee.held_out()) == 1  # of three that are asked for
    assert set(found[0]) == {"step", "eval_loss", "eval_loss_text", "seconds"}
    best = min(found, key=lambda entry: entry["eval_loss"])
    kept = tmp_path / "run" / "checkpoints" / f"step-{best['step']:06d}" / "model"
    given, of_best = (load_file(f / "adapter_model.safetensors") for f in (folder, kept))
    assert all(torch.equal(given[name], of_best[name]) for name in given)
    if best["step"] == 0:  # an adapter that changes nothing
        loaded, plain = unimodal.load(adapter=folder, device="cpu"), unimodal.load(base, "cpu")
        documents = pack(plain.model)
        torch.testing.assert_close(losses(loaded.model, documents), losses(plain.model, documents))
