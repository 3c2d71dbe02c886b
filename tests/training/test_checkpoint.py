import json
from pathlib import Path

import pytest
import torch

from unimodal.errors import UserError
from unimodal.training import checkpoint
from unimodal.training.checkpoint import (
    complete_checkpoints,
    find_checkpoint,
    read_checkpoint,
    save_checkpoint,
    whole_folder,
)


def write_model(folder: Path) -> None:
    (folder / "config.json").write_text("{}")


def save(output: Path, step: int, keep: int | None = None, value: float = 1.0) -> Path:
    tensors = {"weights": {"w": torch.full((3,), value).mul(2).div(3)}}
    return save_checkpoint(output, step, write_model, tensors, {"data": [None]}, keep)


def test_round_trip_is_exact(tmp_path: Path) -> None:
    path = save(tmp_path, 7)
    state, tensors = read_checkpoint(path)
    assert state == {"step": 7, "data": [None]}
    assert torch.equal(tensors["weights"]["w"], torch.full((3,), 1.0).mul(2).div(3))
    assert (path / "model" / "config.json").is_file()
    assert path.name == "step-000007"


def test_keeps_the_last_n(tmp_path: Path) -> None:
    for step in (5, 10, 15, 20):
        save(tmp_path, step, keep=2)
    assert [path.name for path in complete_checkpoints(tmp_path)] == ["step-000015", "step-000020"]
    save(tmp_path, 25, keep=1)
    assert [path.name for path in complete_checkpoints(tmp_path)] == ["step-000025"]
    save(tmp_path, 30)
    assert len(complete_checkpoints(tmp_path)) == 2


def test_an_older_one_that_was_deleted_in_half_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(folder: Path, **_: bool) -> None:
        (folder / "resume" / "state.json").unlink(missing_ok=True)

    save(tmp_path, 5)
    monkeypatch.setattr(checkpoint.shutil, "rmtree", half)
    save(tmp_path, 10, keep=1)
    assert [path.name for path in complete_checkpoints(tmp_path)] == ["step-000010"]
    monkeypatch.undo()
    save(tmp_path, 15)
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"step-000010", "step-000015"}


def test_what_a_crash_left_half_written_is_not_a_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 5)
    partial = tmp_path / "checkpoints" / f"{checkpoint.PARTIAL}step-000010"
    (partial / "resume").mkdir(parents=True)
    (partial / "resume" / "state.json").write_text("{}")
    assert find_checkpoint("auto", tmp_path).name == "step-000005"
    save(tmp_path, 10)  # writes over the leftovers
    assert not partial.exists()


def test_replacing_a_folder(tmp_path: Path) -> None:
    target = tmp_path / "model"
    for text in ("one", "two"):
        with whole_folder(target) as folder:
            (folder / text).write_text(text)
    assert [path.name for path in target.iterdir()] == ["two"]
    with pytest.raises(ZeroDivisionError), whole_folder(target) as folder:
        (folder / "three").write_text(str(1 / 0))
    assert [path.name for path in target.iterdir()] == ["two"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_where_to_go_on(tmp_path: Path) -> None:
    assert find_checkpoint("auto", tmp_path) is None
    assert find_checkpoint(None, tmp_path) is None
    first, second = save(tmp_path, 999_999), save(tmp_path, 1_000_000)
    assert find_checkpoint("auto", tmp_path) == second
    assert find_checkpoint(str(second), tmp_path) == second
    assert find_checkpoint(str(first), tmp_path / "another") == first
    with pytest.raises(UserError, match="newer"):
        find_checkpoint(str(first), tmp_path)
    with pytest.raises(UserError, match=r"train\.resume=auto"):
        find_checkpoint(None, tmp_path)
    with pytest.raises(UserError, match="not a checkpoint"):
        find_checkpoint(str(tmp_path / "nowhere"), tmp_path)


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    path = save(tmp_path, 5)
    weights = path / "resume" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:20])
    with pytest.raises(UserError, match="step-000005"):
        read_checkpoint(path)


def test_nothing_is_pickled(tmp_path: Path) -> None:
    path = save(tmp_path, 5)
    assert {file.suffix for file in path.rglob("*") if file.is_file()} == {".json", ".safetensors"}
    json.loads((path / "resume" / "state.json").read_text())
