"""What the assistant says, as it reaches the caller: whole, or event by event while it happens."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from PIL import Image as PILImage

from unimodal.diffusion.solvers import OnStep
from unimodal.generation.converse import Converser, Piece
from unimodal.generation.converse import Event as Said


@dataclass(frozen=True, slots=True)
class Drawing:
    """A picture is being drawn: `step` of `steps` solver steps are done."""

    step: int
    steps: int


@dataclass(frozen=True, slots=True)
class Picture:
    """A finished picture."""

    image: PILImage.Image


Event = Piece | Drawing | Picture


@dataclass(frozen=True, slots=True)
class Reply:
    """What the assistant said: texts and pictures in order."""

    parts: tuple[str | PILImage.Image, ...]

    @property
    def text(self) -> str:
        """All text, joined."""
        return "".join(part for part in self.parts if isinstance(part, str))

    @property
    def images(self) -> list[PILImage.Image]:
        """All pictures."""
        return [part for part in self.parts if not isinstance(part, str)]


def collected(said: Iterable[tuple[int, Said]], rows: int) -> list[Reply]:
    """The replies of so many rows, from what they said in turns; text between two pictures is one part."""
    parts: list[list[str | PILImage.Image]] = [[] for _ in range(rows)]
    for row, event in said:
        if not isinstance(event, Piece):
            parts[row].append(PILImage.fromarray(event.pixels))
        elif parts[row] and isinstance(parts[row][-1], str):
            parts[row][-1] += event.text
        else:
            parts[row].append(event.text)
    return [Reply(tuple(own)) for own in parts]


def streamed(converser: Callable[[OnStep], Converser], seed: int) -> Iterator[Event]:
    """Events of one conversation; closing the iterator stops the model.

    It runs in a thread, so that solver steps arrive while a picture is being drawn.
    """
    events: queue.Queue[Event | BaseException | None] = queue.Queue()
    stopped = threading.Event()

    class Stopped(Exception):
        """The reader went away."""

    def on_step(step: int, steps: int) -> None:
        if stopped.is_set():
            raise Stopped
        events.put(Drawing(step, steps))

    def work() -> None:
        try:
            for _, event in converser(on_step).run([seed]):
                if stopped.is_set():
                    return
                events.put(event if isinstance(event, Piece) else Picture(PILImage.fromarray(event.pixels)))
            events.put(None)
        except Stopped:
            return
        except BaseException as error:  # handed to the reader, who raises it
            events.put(error)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    try:
        while (event := events.get()) is not None:
            if isinstance(event, BaseException):
                raise event
            yield event
    finally:
        stopped.set()
        worker.join()
