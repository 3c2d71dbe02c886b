"""Replies in a terminal: text as it comes, pictures inline, and every picture saved.

textual-image asks the terminal what it can show: Kitty's graphics protocol, Sixel (iTerm2 and many others
speak it), or else half blocks, two pixels a cell.  Where no person looks on (a pipe, a file), a picture is
its path.
"""

import logging
import os
import sys
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path

from PIL import Image as PILImage
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from unimodal.chat.pictures import save_picture
from unimodal.chat.session import Reply

COLUMNS = 28  # width of a picture: small ones are scaled up to it
FOLDER = Path("unimodal-pictures")

NAMES = {"tgp": "Kitty graphics", "sixel": "Sixel", "halfcell": "half blocks"}


def graphics_protocol() -> str:
    """Say in words how pictures are shown in this terminal."""
    image = inline_image()
    return NAMES[image.__module__.rpartition(".")[2]] if image else "none (no terminal: pictures are paths)"


@cache
def inline_image() -> type | None:
    """textual-image's class for this terminal, or None where nobody could see or answer.

    Importing it sends two queries to the terminal, so this must come before anything else reads the
    keyboard, and only where both ends are a terminal of known size.
    """
    try:
        if not sys.__stdin__.isatty() or not os.get_terminal_size(sys.__stdout__.fileno()).columns:
            return None
    except (AttributeError, ValueError, OSError):  # no stream at all, a closed one, or not a terminal
        return None
    logging.getLogger("textual_image").setLevel(logging.ERROR)  # a terminal that keeps silent is no news
    from textual_image.renderable import Image

    return Image


class Screen:
    """Shows replies on a rich console and saves their pictures to a folder."""

    def __init__(self, console: Console | None = None, folder: str | Path = FOLDER):
        self.console = console or Console(highlight=False)
        self.folder = Path(folder).expanduser()
        self._image = inline_image() if self.console.file is sys.__stdout__ else None

    def show(self, reply: Reply) -> None:
        """Play a reply: print text as it comes, a bar while drawing, pictures when they are finished.

        Closes `reply` at Ctrl-C, so that a session records what was finished, and lets Ctrl-C through.
        """
        from unimodal.generation.verbs import (
            Drawing,
            Picture,
            Piece,
        )  # torch is there by now, as the model is

        bar: Progress | None = None  # only while drawing: a bar and half a line of text cannot share a screen
        open_line = False
        with closing(reply):
            try:
                for event in reply:
                    if open_line and not isinstance(event, Piece):
                        self.console.print()
                        open_line = False
                    if isinstance(event, Drawing):
                        bar = bar or self._start_bar()
                        bar.update(bar.task_ids[0], completed=event.step, total=event.steps)
                    elif bar is not None:
                        bar.stop()
                        bar = None
                    if isinstance(event, Piece) and (text := printable(event.text)):
                        self.console.out(text, end="", highlight=False)
                        open_line = not text.endswith("\n")
                    elif isinstance(event, Picture):
                        self.picture(event.image)
            finally:
                if bar is not None:
                    bar.stop()
                if open_line:
                    self.console.print()

    def picture(self, image: PILImage.Image, path: Path | None = None) -> Path:
        """Show a picture inline where possible, save it unless it has a path, and print the path."""
        path = path or save_picture(image, self.folder, "picture")
        if draw := self.inline():
            self.console.print(draw(image))
        self.console.print(str(path), style="dim", markup=False, soft_wrap=True)
        return path

    def inline(self) -> Callable[[PILImage.Image], RenderableType] | None:
        """A function from a picture to something rich can print; None where only a path makes sense."""
        if self._image is None:
            return None

        def draw(image: PILImage.Image) -> RenderableType:
            rows = max(1, self.console.height - 4)  # never higher than the window
            columns = min(COLUMNS, self.console.width, max(1, round(2 * rows * image.width / image.height)))
            return self._image(image.convert("RGB"), width=columns, height="auto")

        return draw

    def _start_bar(self) -> Progress:
        """A bar that vanishes when stopped; nothing where no person looks on."""
        columns = SpinnerColumn(), TextColumn("drawing"), BarColumn(24), MofNCompleteColumn()
        bar = Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)
        bar.add_task("drawing", total=None)
        bar.start()
        return bar


def printable(text: str) -> str:
    """Drop control characters, which a terminal would obey, from text that a model wrote."""
    return "".join(c for c in text if c in "\n\t" or c.isprintable())
