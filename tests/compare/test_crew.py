"""Processes of a comparison: several at once, each with its share of threads; signals; failures."""

import os
import signal
import subprocess
import sys
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


def test_sigterm_lets_the_children_save(tmp_path, monkeypatch):
    places, start = [tmp_path / name for name in ("one", "two")], subprocess.Popen
    for place in places:
        place.mkdir()

    def popen(command, **more):
        return start([sys.executable, "-c", CHILD], cwd=command[4], **more)

    def look(seconds):
        until(lambda: all((place / "up").exists() for place in places))
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(crew.subprocess, "Popen", popen)
    monkeypatch.setattr(crew, "time", SimpleNamespace(sleep=look, monotonic=time.monotonic))
    before, both = signal.getsignal(signal.SIGTERM), Crew(Progress(), 2)
    with pytest.raises(SystemExit) as end, terminable():
        both.all({place.name: both.do(place, "judge", place.name) for place in places})
    assert end.value.code == 143
    assert all((place / "saved").exists() for place in places)
    assert signal.getsignal(signal.SIGTERM) is before


def test_as_many_at_once_as_asked_for_and_no_more(monkeypatch):
    """Of five tasks two are at work at any time, and a third begins when one of them ends."""
    monkeypatch.setattr(crew, "LOOK", 0)
    busy, seen = set(), []

    def task(name, pauses):
        busy.add(name)
        for _ in range(pauses):
            yield seen.append("".join(sorted(busy)))
        busy.remove(name)

    lengths = {"a": 1, "b": 3, "c": 1, "d": 0, "e": 2}
    assert Crew(Progress(), 2).all({name: task(name, pauses) for name, pauses in lengths.items()}) == {}
    assert max(map(len, seen)) == 2 and {"ab", "bc"} <= {*seen} and seen[-1] == "e" and not busy
    seen.clear()
    assert Crew(Progress(), 1).all({name: task(name, 2) for name in "abc"}) == {}
    assert seen == ["a", "a", "b", "b", "c", "c"]


def test_one_that_fails_is_told_and_a_bug_ends_all(monkeypatch):
    monkeypatch.setattr(crew, "LOOK", 0)
    done, closed = [], []

    def fails():
        yield
        raise UserError("out of luck")

    def works():
        yield
        done.append("works")

    assert Crew(Progress(), 2).all({"one": fails(), "two": works()}) == {"one": "out of luck"}
    assert done == ["works"]

    def breaks():
        yield
        raise ZeroDivisionError

    def endless():
        try:
            while True:
                yield
        finally:
            closed.append("endless")

    with pytest.raises(ZeroDivisionError):
        Crew(Progress(), 2).all({"one": endless(), "two": breaks()})
    assert closed == ["endless"]


@pytest.mark.parametrize(("jobs", "threads"), [(1, None), (2, "3"), (9, "1")])
def test_threads_are_shared(tmp_path, monkeypatch, jobs, threads):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    start, words = subprocess.Popen, "import os; print(os.environ.get('OMP_NUM_THREADS'))"
    monkeypatch.setattr(
        crew.subprocess, "Popen", lambda _, **more: start([sys.executable, "-c", words], **more)
    )
    several = Crew(Progress(), jobs)
    why = several.all({"child": several.do(tmp_path, "judge", "a child")})
    assert "exit code 0" in why["child"], "it leaves no judged.json"
    assert (tmp_path / "judge.log").read_text().strip() == str(threads)
