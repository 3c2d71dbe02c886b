"""Checkpoints that are either whole or not there, and hold nothing that needs unpickling.

    OUTPUT/checkpoints/step-000100/model/    a model folder like any other, with the averaged weights
    OUTPUT/checkpoints/step-000100/resume/   live weights, averages and optimizer state (safetensors),
                                             and numbers (state.json): what it takes to go on

A folder is written under a temporary name, brought to the disk, and renamed; so a name `step-...` means
that everything in it was written.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from unimodal.errors import UserError

NAME = re.compile(r"step-(\d{6,})")
PARTIAL = ".partial-"


def checkpoint_path(output: Path, step: int) -> Path:
    """Where the checkpoint after `step` optimizer steps is kept."""
    return output / "checkpoints" / f"step-{step:06d}"


def complete_checkpoints(output: Path) -> list[Path]:
    """All checkpoints of a run, oldest first."""
    folders = (output / "checkpoints").glob("step-*")
    found = [folder for folder in folders if NAME.fullmatch(folder.name) and folder.is_dir()]
    return sorted(found, key=lambda folder: int(folder.name.removeprefix("step-")))


def _to_disk(folder: Path) -> None:
    """Wait until every file and every directory entry below `folder` has reached the disk."""
    for path in [*folder.rglob("*"), folder]:
        _sync(path)


def _sync(path: Path) -> None:
    if path.is_dir() and os.name != "posix":
        return  # only POSIX systems let a folder be opened
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Give an empty folder to write into, which becomes `target` only if everything went well.

    An older `target` is replaced.  After an error it is there as it was, and nothing of the new one is left.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial, old = (target.parent / f"{PARTIAL}{which}{target.name}" for which in ("", "old-"))
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        _to_disk(partial)
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
            target.rename(old)
        partial.rename(target)
    except BaseException:
        if old.exists() and not target.exists():
            old.rename(target)
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)
    _sync(target.parent)


def save_checkpoint(
    output: Path,
    step: int,
    save_model: Callable[[Path], None],
    tensors: dict[str, dict[str, Tensor]],
    state: dict[str, Any],
    keep: int | None,
    spare: int | None = None,
) -> Path:
    """Write the checkpoint of `step` and delete all but the newest `keep`, and that of the step `spare`.

    save_model  writes the model folder it is given
    tensors     file name (without ending) -> tensors by name
    state       JSON values
    Raises UserError if it cannot be written; older checkpoints are then untouched.
    """
    target = checkpoint_path(output, step)
    for leftover in target.parent.glob(f"{PARTIAL}*"):  # of a run that was killed while saving
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        with whole_folder(target) as folder:
            (folder / "model").mkdir()
            save_model(folder / "model")
            (folder / "resume").mkdir()
            for name, named in tensors.items():
                flat = {key: tensor.detach().cpu().contiguous() for key, tensor in named.items()}
                save_file(flat, folder / "resume" / f"{name}.safetensors")
            text = json.dumps({"step": step, **state}, indent=1, allow_nan=False)
            (folder / "resume" / "state.json").write_text(text, encoding="utf-8")
    except (OSError, SafetensorError) as error:
        older = complete_checkpoints(output)
        rest = f"the last good one is {older[-1]}" if older else "there is none before it"
        raise UserError(f"Checkpoint {target} could not be written ({error}); {rest}.") from error
    if keep is not None:
        others = [path for path in complete_checkpoints(output) if path != target]
        for old in others[: -keep + 1 or None]:
            if spare is None or old != checkpoint_path(output, spare):
                _discard(old)
    return target


def _discard(folder: Path) -> None:
    """Delete a checkpoint.  It loses its name first, so that half of it is never taken for one."""
    with suppress(OSError):
        folder = folder.rename(folder.with_name(f"{PARTIAL}{folder.name}"))
    shutil.rmtree(folder, ignore_errors=True)


def find_checkpoint(resume: str | None, output: Path) -> Path | None:
    """The checkpoint to go on from, or None to start anew.

    resume  `auto`: the newest of the run, if any; a path: that one, which must be there; None: start,
            which is refused where a run already is
    """
    if resume == "auto":
        return (complete_checkpoints(output) or [None])[-1]
    if resume is not None:
        path = Path(resume)
        if not (path / "resume" / "state.json").is_file():
            raise UserError(
                f"train.resume: {path} is not a checkpoint (no resume/state.json in it); expected a folder "
                f"such as {checkpoint_path(output, 100)}, or `auto` for the newest of {output}."
            )
        ours = [other.resolve() for other in complete_checkpoints(output)]
        newer = ours[ours.index(path.resolve()) + 1 :] if path.resolve() in ours else []
        if newer:
            raise UserError(
                f"train.resume: going on from {path} would mix with the newer {newer[-1]}. Delete what is "
                "newer, or give another output.dir."
            )
        return path
    if complete_checkpoints(output) or any((output / made).exists() for made in ("model", "adapter")):
        raise UserError(
            f"output.dir {output} already holds a run. Give train.resume=auto to go on with it, another "
            "output.dir to start beside it, or delete it."
        )
    return None


def read_state(path: Path) -> dict[str, Any]:
    """The JSON values of a checkpoint; `step` is after how many optimizer steps it was saved."""
    try:
        state = json.loads((path / "resume" / "state.json").read_text(encoding="utf-8"))
        state["step"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"Checkpoint {path} cannot be read: {error}") from error
    return state


def check_steps(step: int, steps: int | None) -> None:
    """Raise UserError if a checkpoint of `step` is beyond the last of `steps`."""
    if steps is not None and step > steps:
        raise UserError(f"The checkpoint is at step {step}, beyond train.steps={steps}.")


def read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
    """The JSON values and the tensors (by file) of a checkpoint."""
    state = read_state(path)
    try:
        tensors = {file.stem: load_file(file) for file in sorted((path / "resume").glob("*.safetensors"))}
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"Checkpoint {path} cannot be read: {error}") from error
    return state, tensors


def tensor_shapes(path: Path) -> dict[str, dict[str, tuple[int, ...]]]:
    """The names of a checkpoint's tensors and their shapes, by file."""
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}
    try:
        for file in sorted((path / "resume").glob("*.safetensors")):
            with safe_open(file, "pt") as opened:
                names = opened.keys()
                shapes[file.stem] = {name: tuple(opened.get_slice(name).get_shape()) for name in names}
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"Checkpoint {path} cannot be read: {error}") from error
    return shapes
