"""Preview: documents as a person sees them, with what the model is trained on marked.

Trained text is highlighted and trained pictures have a frame of the same colour, in the terminal (`terminal`)
or on a PNG (`sheet`), so that a wrong role or a lost target shows before training.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.text import Text as Styled

from unimodal.data.document import Document, Image
from unimodal.errors import UserError

LEGEND = "green: the model is trained to write or draw this"
WIDTH, MARGIN, LINE, SHOWN = 720, 12, 22, 160  # pixels; SHOWN: longest side of a picture on the sheet
PAPER, INK, QUIET, MARK, FRAME = "white", "black", "#888888", "#b9f0c4", "#14913a"
BREAK = "\n"


def terminal(document: Document, draw: Callable[[Pillow.Image], RenderableType] | None = None) -> Panel:
    """A document as a rich panel.

    draw  makes a renderable of a picture, such as textual_image's; None: its size stands for it
    """
    lines: list[RenderableType] = []
    for turn in document.turns:
        lines.append(Styled(turn.role or "text", style="bold"))
        for part in turn.parts:
            if not isinstance(part, Image):
                lines.append(Styled(_harmless(part.text), style="black on green" if part.trained else ""))
                continue
            height, width = part.pixels.shape[:2]
            name = Styled(f"[picture {width}x{height}]", style="black on green" if part.trained else "dim")
            lines.append(name)
            if draw is not None:
                lines.append(draw(Pillow.fromarray(part.pixels)))
    return Panel(Group(*lines), title=Styled(document.id), title_align="left")


def _harmless(text: str) -> str:
    """Control characters, which a terminal would obey, shown as U+FFFD."""
    return "".join(c if c in "\n\t" or c.isprintable() else "\ufffd" for c in text)


def sheet(documents: Iterable[Document], font: str | Path | None = None) -> Pillow.Image:
    """Documents below each other on one RGB picture, WIDTH pixels wide.

    font  a TrueType file, for texts that Pillow's own Latin font lacks
    Raises UserError if it is none.
    """
    try:
        letters = ImageFont.truetype(str(font), 15) if font else ImageFont.load_default(15)
    except OSError as error:
        raise UserError(f"{font} is no font that can be read ({error}); expected a TrueType file.") from error
    pen = _Pen(letters)
    pen.write(LEGEND, trained=True)
    for document in documents:
        pen.rule(document.id)
        for turn in document.turns:
            pen.line()
            pen.write(f"{turn.role or 'text'}: ", colour=QUIET)
            for part in turn.parts:
                if isinstance(part, Image):
                    pen.picture(part.pixels, part.trained)
                else:
                    pen.write(part.text, part.trained)
    return pen.finish()


class _Pen:
    """Sets words and pictures from left to right in lines; draws all at the end, when the height is known."""

    def __init__(self, font):
        self.font = font
        self.strokes: list[Callable[[Pillow.Image, ImageDraw.ImageDraw], None]] = []
        self.x, self.y, self.height = MARGIN, MARGIN, LINE

    def line(self) -> None:
        self.x, self.y, self.height = MARGIN, self.y + self.height, LINE

    def rule(self, title: str) -> None:
        self.line()
        top = self.y + 4
        self.strokes.append(lambda _, draw: draw.line((MARGIN, top, WIDTH - MARGIN, top), fill=QUIET))
        self.y += 8
        self.write(title, colour=QUIET)

    def write(self, text: str, trained: bool = False, colour: str = INK) -> None:
        for number, run in enumerate(text.split(BREAK)):
            if number:
                self.line()
            for word in _words(run):
                self._word(word, trained, colour)

    def _word(self, word: str, trained: bool, colour: str) -> None:
        width = self.font.getlength(word)
        if self.x > MARGIN and self.x + width > WIDTH - MARGIN:
            self.line()
        while len(word) > 1 and self.x + width > WIDTH - MARGIN:  # longer than a line: cut where it must
            fits = max(1, int(len(word) * (WIDTH - MARGIN - self.x) / width))
            self._word(word[:fits], trained, colour)
            self.line()
            word = word[fits:]
            width = self.font.getlength(word)
        x, y = self.x, self.y

        def stroke(_, draw):
            if trained:
                draw.rectangle((x, y, x + width, y + LINE - 3), fill=MARK)
            draw.text((x, y), word, font=self.font, fill=colour)

        self.strokes.append(stroke)
        self.x += width

    def picture(self, pixels: np.ndarray, trained: bool) -> None:
        image = Pillow.fromarray(pixels)
        scale = SHOWN / max(image.size)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Pillow.Resampling.NEAREST if scale > 1 else Pillow.Resampling.LANCZOS)
        if self.x > MARGIN and self.x + size[0] + 12 > WIDTH - MARGIN:
            self.line()
        x, y = round(self.x) + 6, self.y + 6

        def stroke(page, draw):
            frame = (x - 4, y - 4, x + size[0] + 3, y + size[1] + 3)
            draw.rectangle(frame, outline=FRAME if trained else QUIET, width=4 if trained else 1)
            page.paste(image, (x, y))

        self.strokes.append(stroke)
        self.x += size[0] + 16
        self.height = max(self.height, size[1] + 14)

    def finish(self) -> Pillow.Image:
        self.line()
        page = Pillow.new("RGB", (WIDTH, self.y + MARGIN), PAPER)
        draw = ImageDraw.Draw(page)
        for stroke in self.strokes:
            stroke(page, draw)
        return page


def _words(run: str) -> list[str]:
    """Words with the spaces before them; nothing of the text is lost."""
    words: list[str] = []
    for piece in run.split(" "):
        words.append(f" {piece}" if words else piece)
    return words
