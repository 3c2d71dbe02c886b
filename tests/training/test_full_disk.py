"""A disk that fills while something is saved: what has a name afterwards is whole, or is as it was before.

Files are refused by the system itself beyond so many bytes, whichever library writes them and however much of
them is on the disk by then.  What writes no bytes, bringing files to the disk and renaming folders, is made
to fail call by call.
"""

import errno
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from tests.adapters.make import adapter_folder, attach, base_folder
from tests.documents import tokenizer
from tests.models import tiny_model
from tests.training.test_resume import NOISY, assert_bit_for_bit
from tests.training.toy import ToyTrainee, toy_recipe
from unimodal.adapters.folder import read_adapter, save_adapter
from unimodal.errors import UserError
from unimodal.model.folder import load_model, save_model
from unimodal.pretrained.export import export_llm
from unimodal.training.checkpoint import (
    complete_checkpoints,
    find_checkpoint,
    read_checkpoint,
    save_checkpoint,
    whole_folder,
)
from unimodal.training.log import Log
from unimodal.training.loop import train

resource = pytest.importorskip("resource")

FULL = (OSError, SafetensorError)  # what writers raise


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """No file can be written beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def fail_at(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number-th of all calls that bring a file to the disk or rename one finds no space."""
    calls = count(1)

    def limited(plain: Callable) -> Callable:
        def call(*args: object) -> None:
            if next(calls) == number:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return plain(*args)

        return call

    for name in ("fsync", "rename"):
        monkeypatch.setattr(os, name, limited(getattr(os, name)))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def sizes(folder: Path) -> list[int]:
    """The sizes of all files: with one byte less each of them is the one that cannot be finished."""
    return sorted({file.stat().st_size for file in folder.rglob("*") if file.is_file()})


def write_model(folder: Path, seed: int) -> None:
    save_model(folder, tiny_model(seed), tokenizer())


def seed_of(folder: Path) -> int:
    """Which of the tests' models a folder holds, to the last number."""
    found = load_model(folder)[0].state_dict()
    for seed in (1, 2, 5, 10):
        wanted = tiny_model(seed).state_dict()
        if found.keys() == wanted.keys() and all(torch.equal(found[n], w) for n, w in wanted.items()):
            return seed
    raise AssertionError(f"{folder} holds none of them")


# ---- checkpoints ----------------------------------------------------------------------------------


def save(output: Path, step: int) -> Path:
    """A checkpoint whose model has the step for a seed; only the newest is kept."""
    tensors = {"weights": {"w": torch.full((5000,), float(step))}, "optimizer": {"m": torch.ones(70)}}
    state = {"data": [None]}
    return save_checkpoint(output, step, lambda folder: write_model(folder, step), tensors, state, keep=1)


def assert_checkpoint(path: Path) -> None:
    state, tensors = read_checkpoint(path)
    assert path.name == f"step-{state['step']:06d}"
    assert tensors.keys() == {"weights", "optimizer"}
    assert torch.equal(tensors["weights"]["w"], torch.full((5000,), float(state["step"])))
    assert seed_of(path / "model") == state["step"]


def test_a_file_of_a_checkpoint_that_cannot_be_finished(tmp_path: Path) -> None:
    older = save(tmp_path, 5)
    for size in sizes(older):
        with pytest.raises(UserError, match=r"step-000010 could not.*step-000005"), files_end_at(size - 1):
            save(tmp_path, 10)
        assert names(tmp_path / "checkpoints") == ["step-000005"]
        assert find_checkpoint("auto", tmp_path) == older
        assert_checkpoint(older)
    save(tmp_path, 10)  # there is room again
    assert names(tmp_path / "checkpoints") == ["step-000010"]


@pytest.mark.parametrize("step", [5, 10])
def test_a_checkpoint_that_cannot_be_brought_to_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Beside an older one, or in the place of one of the same step."""
    for number in count(1):
        output = tmp_path / str(number)
        save(output, 5)
        with monkeypatch.context() as patch:
            fail_at(number, patch)
            try:
                save(output, step)
            except UserError:
                pass  # a sentence, not a traceback; what it says is tested below
            else:
                break
        found = complete_checkpoints(output)
        assert [path.name for path in found] == names(output / "checkpoints")
        assert found[0].name == "step-000005"
        for path in found:
            assert_checkpoint(path)
    assert number > len(sizes(output))  # every file, and more, was in the way once


def test_training_goes_on_from_the_last_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"steps": 6, "save_steps": 2}
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    train(toy_recipe(straight, NOISY, **settings))
    with monkeypatch.context() as patch:
        _fill_the_disk_in("step-000004", patch)
        with pytest.raises(UserError, match=r"step-000004 could not.*No space left.*step-000002"):
            train(toy_recipe(broken, NOISY, **settings))
    assert names(broken / "checkpoints") == ["step-000002"]
    assert not (broken / "model").exists()
    train(toy_recipe(broken, NOISY, resume="auto", **settings))
    assert_bit_for_bit(straight, broken, 6)


def _fill_the_disk_in(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing the toy's model ends in the middle where the name stands in its path."""
    plain = ToyTrainee.save

    def half(self: ToyTrainee, folder: Path, module: torch.nn.Module) -> None:
        plain(self, folder, module)
        if name in str(folder):
            file = folder / "model.safetensors"
            file.write_bytes(file.read_bytes()[:100])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(ToyTrainee, "save", half)


# ---- model folders --------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [False, True])
def test_a_file_of_a_model_that_cannot_be_finished(tmp_path: Path, before: bool) -> None:
    write_model(tmp_path / "measured", 2)
    runs, target = tmp_path / "runs", tmp_path / "runs" / "model"
    if before:
        with whole_folder(target) as folder:
            write_model(folder, 1)
    for size in sizes(tmp_path / "measured"):
        with pytest.raises(FULL), files_end_at(size - 1), whole_folder(target) as folder:
            write_model(folder, 2)
        assert names(runs) == (["model"] if before else [])
        assert not before or seed_of(target) == 1


def test_a_model_that_cannot_take_the_place_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = []
    for number in count(1):
        target = tmp_path / str(number) / "model"
        with whole_folder(target) as folder:
            write_model(folder, 1)
        with monkeypatch.context() as patch:
            fail_at(number, patch)
            try:
                with whole_folder(target) as folder:
                    write_model(folder, 2)
            except OSError:
                assert names(target.parent) == ["model"]
                left.append(seed_of(target))
            else:
                break
    # The last call of all brings the new name to the disk: the new one is whole by then.
    assert left == [1] * (len(left) - 1) + [2]
    assert seed_of(target) == 2


def test_a_model_that_was_written_in_half_is_refused(tmp_path: Path) -> None:
    """`save_model` alone leaves what it wrote; nothing takes that for a model."""
    write_model(tmp_path / "measured", 2)
    for size in sizes(tmp_path / "measured"):
        folder = tmp_path / str(size)
        with pytest.raises(FULL), files_end_at(size - 1):
            write_model(folder, 2)
        with pytest.raises(UserError):
            load_model(folder)


# ---- adapters and exports -------------------------------------------------------------------------


def test_a_file_of_an_adapter_that_cannot_be_finished(tmp_path: Path) -> None:
    """In a checkpoint, as training saves it; what was written alone in half is refused."""
    base = base_folder(tmp_path / "base")
    folder = adapter_folder(tmp_path / "it", base)
    model, note = tiny_model(), read_adapter(folder).note
    note = note.model_copy(update={"nearby": str(base)})
    attach(model, seed=1)

    def save(step: int) -> Path:
        write = partial(save_adapter, model=model, note=note)
        return save_checkpoint(tmp_path / "run", step, write, {}, {}, keep=1)

    older = save(5)
    saved = read_adapter(older / "model").tensors
    for size in sizes(older / "model"):
        with pytest.raises(UserError, match=r"step-000010 could not.*step-000005"), files_end_at(size - 1):
            save(10)
        assert names(tmp_path / "run" / "checkpoints") == ["step-000005"]
        alone = tmp_path / f"alone-{size}"
        with pytest.raises(FULL), files_end_at(size - 1):
            save_adapter(alone, model, note)
        with pytest.raises(UserError):
            read_adapter(alone)
    again = read_adapter(older / "model").tensors
    assert all(torch.equal(again[name], tensor) for name, tensor in saved.items())
    assert names(save(10).parent) == ["step-000010"]  # there is room again


def test_a_file_of_an_export_that_cannot_be_finished(tmp_path: Path) -> None:
    write_model(tmp_path / "model", 1)
    out = tmp_path / "out" / "llm"
    export_llm(str(tmp_path / "model"), tmp_path / "measured")
    for size in sizes(tmp_path / "measured"):
        with pytest.raises(UserError, match="could not be written"), files_end_at(size - 1):
            export_llm(str(tmp_path / "model"), out)
        assert names(out.parent) == []
    export_llm(str(tmp_path / "model"), out)
    assert names(out) == names(tmp_path / "measured")


def test_an_export_that_cannot_be_brought_to_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path / "model", 1)
    whole = []
    for number in count(1):
        out = tmp_path / str(number) / "llm"
        with monkeypatch.context() as patch:
            fail_at(number, patch)
            try:
                export_llm(str(tmp_path / "model"), out)
            except UserError:
                whole.append(names(out.parent) == ["llm"])
                assert whole[-1] or names(out.parent) == []
            else:
                break
    # The last call of all brings the name of a whole folder to the disk.
    assert whole == [False] * (len(whole) - 1) + [True]


def test_the_final_model_that_does_not_fit_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = load_file(train(toy_recipe(tmp_path, NOISY, steps=2)) / "model.safetensors")
    with monkeypatch.context() as patch:
        _fill_the_disk_in(".partial-model", patch)
        with pytest.raises(UserError, match=r"model could not.*No space left.*same model is .*step-000004"):
            train(toy_recipe(tmp_path, NOISY, steps=4, resume="auto"))
    after = load_file(tmp_path / "model" / "model.safetensors")
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert not [name for name in names(tmp_path) if "partial" in name]
    kept = load_file(find_checkpoint("auto", tmp_path) / "model" / "model.safetensors")
    assert not torch.equal(kept["head.weight"], before["head.weight"])


# ---- what a run can do without, and what it needs from the start ------------------------------------


def test_the_log_does_without_lines_that_do_not_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines before and after are whole, and it is said once."""
    with Log(tmp_path, 9, 0, False, True) as log:
        log.evaluation({"step": 1, "eval_loss": 2.0, "seconds": 1.0}, False)
        with files_end_at((tmp_path / "log.jsonl").stat().st_size + 9):
            for step in (2, 3):
                log.evaluation({"step": step, "eval_loss": 2.0, "seconds": 2.0}, False)
        with files_end_at(9):
            log.go_back(1)
        log.evaluation({"step": 4, "eval_loss": 2.0, "seconds": 3.0}, False)
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 4]
    assert names(tmp_path) == ["log.jsonl"]
    assert capsys.readouterr().out.count("could not be written") == 1


def test_training_goes_on_without_samples_and_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"steps": 4, "save_steps": 2, "sample_steps": 1}
    straight, full = tmp_path / "straight", tmp_path / "full"
    train(toy_recipe(straight, NOISY, **settings))

    def no_room(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def half(sheet: object, file: Path) -> None:
        file.write_bytes(b"half a picture")
        no_room()

    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr("unimodal.training.log.append_whole", no_room)
        patch.setattr("PIL.Image.Image.save", half)
        train(toy_recipe(full, NOISY, **settings))
    said = capsys.readouterr().out
    assert said.count("log.jsonl could not be written") == said.count("a sheet of samples could not") == 1
    assert names(full / "samples") == []
    assert_bit_for_bit(straight, full, 4)


@pytest.mark.parametrize("name", ["recipe.yaml", "log.jsonl.partial"])
def test_what_cannot_be_begun_is_told_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    plain = Path.write_text

    def limited(self: Path, text: str, **options: str) -> int:
        if self.name == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return plain(self, text, **options)

    monkeypatch.setattr(Path, "write_text", limited)
    with pytest.raises(UserError, match=r"could not be written.*No space left.*nothing was trained"):
        train(toy_recipe(tmp_path / "run", NOISY, steps=2))
    assert not (tmp_path / "run" / "checkpoints").exists()
