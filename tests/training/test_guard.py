"""A loss that derails: back to the last checkpoint, on with other rows, and no further than is allowed."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.processes import run_two
from tests.training.test_resume import losses, resume_folder
from tests.training.toy import ToyTrainee, toy_recipe
from unimodal.errors import UserError
from unimodal.training.loop import train

STEADY = {"lr_scheduler_type": "constant", "weight_decay": 0.1, "save_total_limit": None}


def state_of(output: Path, step: int) -> tuple[Path, dict[str, Any]]:
    file = output / "checkpoints" / f"step-{step:06d}" / "resume" / "state.json"
    return file, json.loads(file.read_text())


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_it_goes_back_and_on_with_other_rows(tmp_path: Path, capsys: Any, optimizer: str) -> None:
    """Group 7 is that of step 8, the newest checkpoint that of step 6: as if resumed there at group 8."""
    settings = STEADY | {"optimizer": optimizer, "save_steps": 3, "warmup_steps": 2}
    train(toy_recipe(tmp_path / "guarded", {"poison": 7}, steps=9, returns=1, **settings))
    said = " ".join(capsys.readouterr().out.split())
    assert "The loss of step 8 is not finite. Samples of the batch: toy:7. Back to step 6" in said

    train(toy_recipe(tmp_path / "other", {}, steps=6, **settings))
    file, state = state_of(tmp_path / "other", 6)
    state["data"][0]["shards"][0] = {"number": 8}
    file.write_text(json.dumps(state))
    train(toy_recipe(tmp_path / "other", {}, steps=9, resume="auto", **settings))
    first, second = (resume_folder(tmp_path / name, 9) for name in ("guarded", "other"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert losses(tmp_path / "guarded") == losses(tmp_path / "other")  # each step once
    guard = state_of(tmp_path / "guarded", 9)[1]["guard"]
    assert (guard["returns"], guard["lost"]) == (1, 2)


def test_before_the_first_checkpoint_it_goes_back_to_the_start(tmp_path: Path) -> None:
    train(toy_recipe(tmp_path, {"poison": 1}, steps=3, returns=1, ema_decay=None))
    alone = toy_recipe(tmp_path / "alone", steps=1, ema_decay=None)
    torch.manual_seed(0)
    begun = dict(alone.model.build(alone).module.state_dict())
    kept = resume_folder(tmp_path, 0)
    assert all(torch.equal(kept[f"weights/{name}"], begun[name]) for name in begun if "unused" not in name)
    assert [step for step, *_ in losses(tmp_path)] == [1, 2, 3]


def test_after_so_many_returns_it_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = ToyTrainee._rows

    def rows(self: ToyTrainee, group: int) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = plain(self, group)
        return x, y * float("nan") if group >= 2 else y

    monkeypatch.setattr(ToyTrainee, "_rows", rows)
    with pytest.raises(UserError, match=r"step 3 is not finite.*toy:4.* 2 times already \(train\.returns\)"):
        train(toy_recipe(tmp_path, steps=9, returns=2, save_steps=2))


def test_a_spike_is_told_by_recent_losses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two spikes: one before enough losses were seen to tell, and one after."""
    plain = ToyTrainee._rows

    def rows(self: ToyTrainee, group: int) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = plain(self, group)
        return x, y + 100.0 if group in (4, 27) else y

    monkeypatch.setattr(ToyTrainee, "_rows", rows)
    settings = {"steps": 32, "save_steps": 10, "ema_decay": None, "learning_rate": 1e-4}
    train(toy_recipe(tmp_path, returns=1, spike=10.0, **settings))
    said = " ".join(capsys.readouterr().out.split())
    assert "The loss of step 28 is" in said and "more than 10 times the" in said
    assert "median of the last 27 steps. Back to step 20" in said
    told = losses(tmp_path)
    assert [step for step, *_ in told] == list(range(1, 33))
    assert [step for step, loss, _ in told if loss > 1000] == [5]


def test_a_resumed_run_knows_the_losses_before(tmp_path: Path) -> None:
    settings = STEADY | {"save_steps": 2, "returns": 2, "spike": 50.0}
    train(toy_recipe(tmp_path / "straight", steps=6, **settings))
    train(toy_recipe(tmp_path / "broken", steps=4, **settings))
    train(toy_recipe(tmp_path / "broken", steps=6, resume="auto", **settings))
    first, second = (state_of(tmp_path / name, 6)[1]["guard"] for name in ("straight", "broken"))
    assert first == second
    assert first["losses"] == pytest.approx([loss for _, loss, _ in losses(tmp_path / "straight")])


def test_both_processes_go_back_together(tmp_path: Path) -> None:
    """Group 5 is the second process's third batch."""
    said = run_two(tmp_path / "two", {"poison": 5}, steps=5, save_steps=2, returns=1)
    assert "toy:5" in said[0] and "Back to step 2" in " ".join(said[0].split())
    assert "Done after step 5" in said[0]
    assert "Error" not in said[1]
    assert [step for step, *_ in losses(tmp_path / "two")] == [1, 2, 3, 4, 5]


def test_a_spike_needs_somewhere_to_go_back_to(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"`spike`.*needs `returns` above 0"):
        toy_recipe(tmp_path, spike=3.0)
