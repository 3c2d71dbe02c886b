"""Trainings in processes of their own, forked so that they need not import everything again."""

import contextlib
import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from accelerate.state import AcceleratorState

from tests.training.toy import toy_recipe
from unimodal.training.config import Recipe
from unimodal.training.loop import train


def _run(said: Path, environment: dict[str, str], make: Callable[[], Recipe]) -> None:
    os.environ |= environment
    AcceleratorState._reset_state(True)  # the parent's knowledge of its processes is not the child's
    with said.open("w") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        try:
            print("returned", train(make()))
        except BaseException:
            traceback.print_exc()
            raise


def start(
    said: Path,
    output: Path,
    model: dict[str, Any],
    workers: int = 0,
    environment: dict[str, str] | None = None,
    **settings: Any,
) -> BaseProcess:
    """Begin a training whose words go to the file `said`."""
    return _fork(said, environment or {}, lambda: toy_recipe(output, model, workers, **settings))


def _fork(said: Path, environment: dict[str, str], make: Callable[[], Recipe]) -> BaseProcess:
    process = multiprocessing.get_context("fork").Process(target=_run, args=(said, environment, make))
    process.start()
    return process


def run_two(output: Path, model: dict[str, Any], **settings: Any) -> list[str]:
    """One training of the toy by two gloo processes; what each of them said."""
    return run_two_of(lambda: toy_recipe(output, model, **settings), output)


def run_two_of(make: Callable[[], Recipe], output: Path) -> list[str]:
    """One training by two gloo processes; what each of them said, in files beside `output`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GLOO_SOCKET_IFNAME": "lo"}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    files = [output.parent / f"{output.name}-said-{rank}" for rank in (0, 1)]
    processes = []
    for rank, file in enumerate(files):
        environment = common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        processes.append(_fork(file, environment, make))
    for process in processes:
        process.join(120)
        process.kill()
    return [file.read_text() for file in files]
