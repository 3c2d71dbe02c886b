import json
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.training.processes import start
from tests.training.toy import ToyTrainee, toy_recipe
from unimodal.errors import UserError
from unimodal.training.checkpoint import complete_checkpoints
from unimodal.training.config import Recipe
from unimodal.training.dry_run import dry_run
from unimodal.training.log import continue_log
from unimodal.training.loop import train
from unimodal.training.signals import StopRequest

NOISY = {"noise": 0.1}
SLOW = NOISY | {"pause": 0.02}  # slow enough to be hit by a signal


def resume_folder(output: Path, step: int) -> dict[str, torch.Tensor]:
    """Everything a checkpoint holds: weights, averages, optimizer state."""
    folder = output / "checkpoints" / f"step-{step:06d}" / "resume"
    return {f"{f.stem}/{k}": v for f in folder.glob("*.safetensors") for k, v in load_file(f).items()}


def assert_bit_for_bit(one: Path, other: Path, step: int) -> None:
    a, b = resume_folder(one, step), resume_folder(other, step)
    assert a.keys() == b.keys()
    assert {name.split("/")[0] for name in a} == {"weights", "ema", "optimizer"}
    for name in a:
        assert torch.equal(a[name], b[name]), name
    files = [o / "checkpoints" / f"step-{step:06d}" / "resume" / "state.json" for o in (one, other)]
    states = [json.loads(file.read_text()) for file in files]
    for name in ("step", "data", "ema_updates"):
        assert states[0][name] == states[1][name]


def losses(output: Path) -> list[tuple[int, float, float]]:
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"], line["learning_rate"]) for line in lines]


class Interrupted(Exception):
    pass


def break_off_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the toy raise in the step after `step`."""
    plain, calls = ToyTrainee.losses, []

    def broken(self: ToyTrainee, *args: Any) -> Any:
        calls.append(1)
        if len(calls) > step:
            raise Interrupted
        return plain(self, *args)

    monkeypatch.setattr(ToyTrainee, "losses", broken)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_equals_straight_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str, workers: int
) -> None:
    settings = {"steps": 9, "save_steps": 3, "optimizer": optimizer, "warmup_steps": 2, "weight_decay": 0.1}
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    train(toy_recipe(straight, NOISY, workers, **settings))
    with monkeypatch.context() as patch:
        break_off_at(5, patch)
        with pytest.raises(Interrupted):
            train(toy_recipe(broken, NOISY, workers, **settings))
    assert losses(broken)[-1][0] == 5  # two steps beyond the checkpoint, which are repeated
    train(toy_recipe(broken, NOISY, workers, resume="auto", **settings))
    assert_bit_for_bit(straight, broken, 9)
    assert losses(straight) == losses(broken)
    seconds = [json.loads(line)["seconds"] for line in (broken / "log.jsonl").read_text().splitlines()]
    assert seconds == sorted(seconds)


def wait_for_step(output: Path, step: int, process: BaseProcess) -> None:
    for _ in range(1200):
        log = output / "log.jsonl"
        if log.exists() and len(log.read_text().splitlines()) >= step:
            return
        assert process.is_alive(), "training ended early"
        time.sleep(0.05)
    raise AssertionError("training did not get going")


def test_resumed_after_sigkill_equals_straight_on(tmp_path: Path) -> None:
    """Saves every step, so that the kill may fall into a save; wherever it falls, the run goes on."""
    settings = {"steps": 16, "save_steps": 1, "save_total_limit": 3}
    killed = tmp_path / "killed"
    process = start(tmp_path / "said", killed, SLOW, 1, **settings)
    wait_for_step(killed, 3 + os.getpid() % 5, process)
    process.kill()
    process.join()
    assert 1 <= len(complete_checkpoints(killed)) <= 4
    train(toy_recipe(killed, NOISY, 1, resume="auto", **settings))
    train(toy_recipe(tmp_path / "straight", NOISY, 1, **settings))
    assert_bit_for_bit(tmp_path / "straight", killed, 16)
    assert losses(tmp_path / "straight") == losses(killed)
    names = {path.name for path in (killed / "checkpoints").iterdir()}
    assert names == {"step-000014", "step-000015", "step-000016"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_ends_well(tmp_path: Path, number: signal.Signals) -> None:
    said, output = tmp_path / "said", tmp_path / "run"
    process = start(said, output, SLOW, 1, steps=100_000, save_steps=50_000)
    wait_for_step(output, 2, process)
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == 0
    (kept,) = complete_checkpoints(output)
    assert kept.name == f"step-{losses(output)[-1][0]:06d}"
    assert f"Stopped by {number.name}" in said.read_text()
    assert said.read_text().rstrip().endswith(f"returned {kept / 'model'}")


def test_the_second_signal_quits_at_once() -> None:
    # A shell that starts the tests in the background has them ignore Ctrl-C.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with StopRequest() as stop:
            signal.raise_signal(signal.SIGINT)
            assert stop.asked == "SIGINT"
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, inherited)


def test_a_longer_run_goes_on_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(toy_recipe(tmp_path, steps=2))
    train(toy_recipe(tmp_path, steps=4, resume="auto"))
    said = capsys.readouterr().out
    assert "train.steps: 2 -> 4" in said
    assert "after step 2 of 4" in said
    assert [step for step, *_ in losses(tmp_path)] == [1, 2, 3, 4]


def test_auto_without_a_checkpoint_starts_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(toy_recipe(tmp_path, steps=1, resume="auto"))
    assert "found no checkpoint" in capsys.readouterr().out


@pytest.mark.parametrize("run", [train, dry_run])
def test_what_does_not_fit_the_checkpoint_is_named(tmp_path: Path, run: Callable[[Recipe], Any]) -> None:
    train(toy_recipe(tmp_path, steps=2))
    with pytest.raises(UserError, match=r"data\.workers=1"):
        run(toy_recipe(tmp_path, steps=4, resume="auto", workers=2))
    with pytest.raises(UserError, match=r"beyond train\.steps=1"):
        run(toy_recipe(tmp_path, steps=1, resume="auto"))
    with pytest.raises(UserError, match="not a checkpoint"):
        run(toy_recipe(tmp_path, steps=4, resume=str(tmp_path / "nowhere")))
    with pytest.raises(UserError, match="are those of adamw, but the recipe gives it to muon"):
        run(toy_recipe(tmp_path, steps=4, resume="auto", optimizer="muon"))
    resume = tmp_path / "checkpoints" / "step-000002" / "resume"
    (resume / "ema.safetensors").unlink()
    with pytest.raises(UserError, match="ema_decay=null"):
        run(toy_recipe(tmp_path, steps=4, resume="auto"))
    weights = load_file(resume / "weights.safetensors")
    for change, told in (
        (
            {"head.weight": torch.zeros(2, 4)},
            r"head\.weight in shape \(2, 4\), the recipe's model in \(1, 4\)",
        ),
        ({"more": torch.zeros(1)}, "more is only in one of them"),
    ):
        save_file(weights | change, resume / "weights.safetensors")
        with pytest.raises(UserError, match=told):
            run(toy_recipe(tmp_path, steps=4, resume="auto", ema_decay=None))


def test_a_log_is_cut_at_the_step_and_torn_lines_go(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    lines = [json.dumps({"step": step, "seconds": step * 2.0}) for step in (1, 2, 3, 4)]
    path.write_text("\n".join(lines) + '\n{"step": 5, "sec')
    assert continue_log(path, 3) == 6.0
    assert path.read_text() == "\n".join(lines[:3]) + "\n"
    assert continue_log(tmp_path / "new.jsonl", 0) == 0.0
