"""One process a place: a lock on a folder, a child that ends with its parent, a polite end at SIGTERM."""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from unimodal.errors import UserError

PR_SET_PDEATHSIG = 1  # of Linux's prctl(2)
ENDING = 60.0  # seconds that a process whose parent was killed has to save what it was at


@contextmanager
def alone_in(folder: Path, wait: float = 0.0) -> Iterator[None]:
    """Hold a folder for this process; the lock goes with the process, however it ends.

    wait  seconds in which another one may leave it
    Raises UserError if a living process holds the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=wait)
    except Timeout:
        raise UserError(
            f"{folder}: another process works there. Wait until it has ended, end it, or name another --out."
        ) from None
    try:
        yield
    finally:
        lock.release()


def end_with(parent: int) -> None:
    """On Linux, get SIGTERM when the process of this number ends, by whatever; it is our parent."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before we asked
        sys.exit(128 + signal.SIGTERM)


@contextmanager
def terminable() -> Iterator[None]:
    """Within this context SIGTERM, and the end of the terminal, unwind the stack as Ctrl-C does.

    Outside the main thread Python allows no handlers; a signal that is ignored stays so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    there = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {n: signal.getsignal(n) for n in there if signal.getsignal(n) is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
