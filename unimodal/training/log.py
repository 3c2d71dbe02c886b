"""What a run tells: a line of JSON a logged step, always; a live display or plain lines; tensorboard.

    OUTPUT/log.jsonl   step, loss, loss_<name>, loss_<name>_bins, learning_rate, grad_norm,
                       tokens_per_second, padding, mfu, step_seconds, seconds, memory_gb, and rows (of the
                       data, by what became of them; `read` is all) where the trainee counts them
                       step, eval_loss, eval_loss_<name>, seconds     of an evaluation

Losses are those of all items since the last line; `loss_<name>_bins` are means over ten equal parts of
[0, 1] (null where nothing fell); `seconds` is the time spent in the run, over all resumptions.
A run does without what cannot be written here, as on a full disk: that is said once.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.syntax import Syntax
from rich.text import Text

from unimodal.errors import UserError

BINS = 10


def continue_log(path: Path, step: int) -> float:
    """Drop the lines after `step` (and a torn last one) of an older log; return the seconds spent so far."""
    kept, seconds = [], 0.0
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue  # torn by a crash: the step it belonged to is repeated or was never finished
            if entry["step"] <= step:
                kept.append(line + "\n")
                seconds = entry["seconds"]
    fresh = path.with_name(path.name + ".partial")
    try:
        fresh.write_text("".join(kept), encoding="utf-8")
        os.replace(fresh, path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
    return seconds


def append_whole(path: Path, text: str) -> None:
    """Write at the end of a file, or raise OSError and leave it as it was."""
    size = path.stat().st_size if path.exists() else 0
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError:
        os.truncate(path, size)
        raise


def one_line(entry: dict[str, Any], to_go: float) -> str:
    """An entry as people read it."""
    losses = [f"{k.removeprefix('loss_')} {v:.4f}" for k, v in entry.items() if _is_part(k)]
    parts = [
        f"loss {entry['loss']:.4f}" + (f" ({', '.join(losses)})" if len(losses) > 1 else ""),
        f"lr {entry['learning_rate']:.2e}",
        f"norm {entry['grad_norm']:.2f}",
        f"{entry['tokens_per_second']:,.0f} tok/s",
        f"padding {entry['padding']:.1%}",
        f"mfu {entry['mfu']:.0%}",
        f"{entry['memory_gb']:.1f} GB",
        f"to go {timedelta(seconds=round(to_go))}",
    ]
    return " · ".join(parts)


def _is_part(key: str) -> bool:
    return key.startswith("loss_") and not key.endswith("_bins")


class Log:
    """The run's voice.  On ranks other than the first it says and writes nothing.

    Raises OSError if its files cannot be begun, UserError if tensorboard is asked for and not installed.
    """

    def __init__(self, output: Path, steps: int, done: int, tensorboard: bool, main: bool) -> None:
        self.console = Console(quiet=not main)
        self.steps = steps
        self._file: Path | None = None
        self._board = self._live = None
        self._unwritten: set[str] = set()
        self.earlier_seconds = 0.0
        if not main:
            return
        self._file = output / "log.jsonl"
        self.earlier_seconds = continue_log(self._file, done)
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise UserError(
                    "output.tensorboard needs the package tensorboard: pip install tensorboard, or set it to "
                    "false; OUTPUT/log.jsonl has the same figures."
                ) from error

            self._board = SummaryWriter(str(output / "tensorboard"), purge_step=done + 1)
        if self.console.is_terminal:
            columns = (TextColumn("step"), MofNCompleteColumn(), BarColumn(bar_width=None))
            self._progress = Progress(*columns, console=self.console, auto_refresh=False)
            self._task = self._progress.add_task("", total=steps, completed=done)
            self._status = Text("")
            # Refreshed twice a second only: the display must not cost training time.
            self._live = Live(Group(self._progress, self._status), console=self.console, refresh_per_second=2)

    def __enter__(self) -> "Log":
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()
        if self._board:
            with self.spared("tensorboard"):
                self._board.close()

    @contextmanager
    def spared(self, what: str) -> Iterator[None]:
        """What is written in here the run can do without: that it could not be written is said once."""
        try:
            yield
        except OSError as error:
            if what not in self._unwritten:
                self._unwritten.add(what)
                self.say(f"{what} could not be written ({error}). The run goes on without; make room for it.")

    def go_back(self, step: int) -> None:
        """Drop what was logged after a step: the run goes on from there once more."""
        if self._file is None:
            return
        with self.spared(self._file.name):
            continue_log(self._file, step)
        self.tick(step)

    def say(self, message: str) -> None:
        """Something worth knowing once."""
        self.console.print(message, highlight=False, markup=False, soft_wrap=True)

    def recipe(self, yaml: str) -> None:
        """The resolved recipe, in colours where there are any."""
        self.console.print(Syntax(yaml, "yaml", background_color="default", word_wrap=True))

    def tick(self, step: int) -> None:
        """A step is done."""
        if self._live:
            self._progress.update(self._task, completed=step)

    def write(self, entry: dict[str, Any], to_go: float) -> None:
        """A logged step, to the file, the display and tensorboard."""
        if self._file is None:
            return
        self._to_file(entry)
        line = one_line(entry, to_go)
        if self._live:
            self._status.plain = line
        else:
            self.say(f"step {entry['step']}/{self.steps} · {line}")
        self._to_board(entry)

    def evaluation(self, entry: dict[str, Any], better: bool) -> None:
        """An evaluation on held-out rows, and whether it is the best so far."""
        if self._file is None:
            return
        self._to_file(entry)
        losses = [f"{name} {value:.4f}" for name, value in entry.items() if name.startswith("eval_")]
        words = [f"step {entry['step']}/{self.steps}", *losses, *(["the best so far"] if better else [])]
        self.say(" · ".join(words))
        self._to_board(entry)

    def _to_file(self, entry: dict[str, Any]) -> None:
        line = json.dumps(entry, allow_nan=False) + "\n"
        with self.spared(self._file.name):
            append_whole(self._file, line)

    def _to_board(self, entry: dict[str, Any]) -> None:
        with self.spared("tensorboard"):
            for name, value in entry.items() if self._board else ():
                if isinstance(value, float):
                    self._board.add_scalar(name, value, entry["step"])
