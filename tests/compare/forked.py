"""An entrant's process as a fork of this one, which has imported everything and writes short answers."""

import multiprocessing
import os
import runpy
import sys
from typing import IO

from accelerate.state import AcceleratorState


class Forked:
    """What `unimodal.compare.run` asks of subprocess.Popen, for `python -m MODULE ARGUMENT...`."""

    def __init__(self, command: list[str], stdout: IO[str], stderr: int, start_new_session: bool) -> None:
        fork = multiprocessing.get_context("fork").Process
        self.process = fork(target=_run, args=(command[2:], stdout.fileno()))
        self.process.start()

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    poll = returncode.fget

    def wait(self) -> None:
        self.process.join()

    def terminate(self) -> None:
        self.process.terminate()


def _run(arguments: list[str], output: int) -> None:
    os.setsid()
    for stream in (1, 2):
        os.dup2(output, stream)
    sys.stdout, sys.stderr = (os.fdopen(stream, "w", closefd=False) for stream in (1, 2))
    AcceleratorState._reset_state(True)  # the parent's is not the child's
    sys.argv = arguments
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
