"""Processes that do the parts of runs, one or several at once, each watched until it ends.

What one of them says when it fails is kept, and the others go on; a signal ends all of them, and each saves
what it is at before it goes.  A task is a generator that pauses while its process works, so that one thread
watches them all.
"""

import json
import math
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path

from rich.progress import Progress

from unimodal.compare.entrant import DONE
from unimodal.errors import UserError

LOOK = 0.5  # seconds between two looks at the processes
TOLD = 60.0  # seconds between two lines about one, where no bar can be drawn

Task = Iterator[None]


class Crew:
    """So many processes at once, each with its share of the threads that torch would use here."""

    def __init__(self, progress: Progress, jobs: int = 1) -> None:
        self.progress, self.jobs = progress, jobs

    def all(self, tasks: Mapping[str, Task]) -> dict[str, str]:
        """Do all tasks, and return by name why those that failed did (a UserError's words)."""
        failures: dict[str, str] = {}
        waiting, busy = deque(tasks.items()), {}
        try:
            while waiting or busy:
                while waiting and len(busy) < self.jobs:
                    name, task = waiting.popleft()
                    busy[name] = task
                for name, task in list(busy.items()):
                    try:
                        next(task)
                    except StopIteration:
                        del busy[name]
                    except UserError as error:
                        del busy[name]
                        failures[name] = str(error)
                        self._say(f"{name} failed: {error}")
                if busy and (len(busy) == self.jobs or not waiting):
                    time.sleep(LOOK)
        finally:  # a signal, or a bug: nobody is left behind
            for task in busy.values():
                task.close()
        return failures

    def do(self, place: Path, part: str, told: str) -> Task:
        """Do one part of the run in a folder, unless it is done, in a process that ends when this one does.

        told  what the part is of, for those who wait
        Raises UserError with the process's last words if it fails.
        """
        done = place / DONE[part]
        if done.is_file():
            return
        words, failure = place / f"{part}.log", place / "failure.txt"
        failure.unlink(missing_ok=True)
        with words.open("a", encoding="utf-8") as log:
            command = [sys.executable, "-m", "unimodal.compare.entrant", part, str(place), str(os.getpid())]
            # In a session of its own, Ctrl-C reaches it through us alone: a second signal would quit at once.
            process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, env=self._environment()
            )
            try:
                yield from self._watch(process, place, part, told)
            finally:
                if process.poll() is None:
                    process.terminate()  # a trainer saves before it goes
                    process.wait()
        if process.returncode or not done.is_file():
            last = words.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
            said = failure.read_text(encoding="utf-8") if failure.is_file() else " ".join(last)
            raise UserError(f"{said} (exit code {process.returncode}; {words} has the rest)")

    def _watch(self, process: subprocess.Popen, place: Path, part: str, told: str) -> Task:
        """Show how far a process is until it has ended."""
        total = _steps(place) if part == "train" else None
        bar = self.progress.add_task(f"{told}: {part}", total=total)
        due = 0.0 if not self.progress.console.is_terminal else math.inf
        while process.poll() is None:
            step = _last_step(place) if total else 0
            self.progress.update(bar, completed=step)
            if time.monotonic() >= due:
                due = time.monotonic() + TOLD
                self._say(f"{told}: {part}" + (f", step {step} of {total}" if total else ""))
            yield
        self.progress.update(bar, completed=total or 1, total=total or 1)

    def _say(self, words: str) -> None:
        self.progress.console.print(words, markup=False, highlight=False)

    def _environment(self) -> dict[str, str] | None:
        if self.jobs == 1:
            return None
        import torch

        return os.environ | {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // self.jobs))}


def _steps(place: Path) -> int:
    from unimodal.training.config import load_recipe

    return load_recipe(place / "recipe.yaml").train.steps


def _last_step(place: Path) -> int:
    log = place / "run" / "log.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    whole = [line for line in lines[-2:] if line.endswith("}")]  # the last one may be half written
    return json.loads(whole[-1])["step"] if whole else 0
