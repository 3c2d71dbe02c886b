"""Stopping politely: the first SIGINT or SIGTERM asks, the second one acts as usual."""

import signal
import threading
from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Within this context the first signal only sets `asked`; a second one quits at once.

    Outside the main thread Python allows no handlers; then nothing is caught.
    """

    def __init__(self) -> None:
        self.asked: str | None = None  # the name of the signal
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in SIGNALS}
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = signal.Signals(number).name
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()


def leave_signals_to_parent() -> None:
    """In a data worker: the training process decides when to stop, and ends its workers itself."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
