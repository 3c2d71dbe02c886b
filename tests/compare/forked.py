"""An entrant's process as a fork of this one, which has imported everything."""

import multiprocessing
import os
import runpy
import sys
import time
from collections.abc import Callable
from typing import IO

import torch
from accelerate.state import AcceleratorState


class Forked:
    """What `unimodal.compare.crew` asks of subprocess.Popen, for `python -m MODULE ARGUMENT...`."""

    def __init__(
        self,
        command: list[str],
        stdout: IO[str],
        stderr: int,
        start_new_session: bool,
        env: dict[str, str] | None,
    ) -> None:
        fork = multiprocessing.get_context("fork").Process
        threads = env and int(env["OMP_NUM_THREADS"])
        self.process = fork(target=_run, args=(command[2:], stdout.fileno(), threads))
        self.process.start()

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    poll = returncode.fget

    def wait(self) -> None:
        self.process.join()

    def terminate(self) -> None:
        self.process.terminate()


def _run(arguments: list[str], output: int, threads: int | None) -> None:
    os.setsid()
    for stream in (1, 2):
        os.dup2(output, stream)
    sys.stdout, sys.stderr = (os.fdopen(stream, "w", closefd=False) for stream in (1, 2))
    if threads:
        torch.set_num_threads(threads)
    AcceleratorState._reset_state(True)  # the parent's is not the child's
    sys.argv = arguments
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)


def until(there: Callable[[], object], seconds: float = 240) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.02)
