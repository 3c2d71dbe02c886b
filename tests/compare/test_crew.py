"""Processes of a comparison: several at once, each with its share of threads; signals; failures."""

import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
import torch
from rich.progress import Progress

from tests.compare.forked import until
from unimodal.compare import crew
from unimodal.compare.alone import terminable
from unimodal.compare.crew import Crew
from unimodal.errors import UserError

CHILD = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path("saved").touch(), sys.exit(1)))
pathlib.Path("up").touch()
time.sleep(60)
"""


def test_sigterm_lets_the_child_save(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    start = subprocess.Popen
    monkeypatch.setattr(
        crew.subprocess, "Popen", lambda _, **more: start([sys.executable, "-c", CHILD], **more)
    )

    def look(seconds):
        until((tmp_path / "up").exists)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(crew, "time", SimpleNamespace(sleep=look, monotonic=time.monotonic))
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as end, terminable():
        Crew(Progress()).do(tmp_path, "judge", "a child")
    assert end.value.code == 143 and (tmp_path / "saved").exists()
    assert signal.getsignal(signal.SIGTERM) is before


def test_as_many_at_once_as_asked_for_and_no_more():
    """Two meet where two are asked for; of three with one job none meets another."""
    meeting = threading.Barrier(2, timeout=60)
    assert Crew(Progress(), 2).all({"one": meeting.wait, "two": meeting.wait}) == {}
    busy, most = [], []

    def look():
        busy.append(1)
        most.append(len(busy))
        time.sleep(0.05)
        busy.pop()

    assert Crew(Progress(), 1).all(dict.fromkeys("abc", look)) == {}
    assert most == [1, 1, 1]


def test_one_that_fails_is_told_and_a_bug_ends_all():
    def fails():
        raise UserError("out of luck")

    done = []
    crew = Crew(Progress(), 1)
    assert crew.all({"one": fails, "two": lambda: done.append(2)}) == {"one": "out of luck"}
    assert done == [2] and not crew.ending.is_set()
    with pytest.raises(ZeroDivisionError):
        crew.all({"one": lambda: 1 / 0, "two": lambda: crew.ending.wait(60)})
    assert crew.ending.is_set()


@pytest.mark.parametrize(("jobs", "threads"), [(1, None), (2, "3"), (9, "1")])
def test_threads_are_shared(tmp_path, monkeypatch, jobs, threads):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    start, words = subprocess.Popen, "import os; print(os.environ.get('OMP_NUM_THREADS'))"
    monkeypatch.setattr(
        crew.subprocess, "Popen", lambda _, **more: start([sys.executable, "-c", words], **more)
    )
    with pytest.raises(UserError, match="exit code 0"):  # it leaves no judged.json
        Crew(Progress(), jobs).do(tmp_path, "judge", "a child")
    assert (tmp_path / "judge.log").read_text().strip() == str(threads)
