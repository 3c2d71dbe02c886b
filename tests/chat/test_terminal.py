import io
import re

import pytest
from PIL import Image
from rich.console import Console

from unimodal.chat import terminal
from unimodal.chat.terminal import COLUMNS, Screen
from unimodal.generation.verbs import Drawing, Picture, Piece

PICTURE = Image.new("RGB", (64, 64), (255, 0, 0))


def screen(folder, graphics: bool = False, height: int = 50) -> Screen:
    """A screen on a file; with `graphics`, one that believes in a terminal with half blocks."""
    made = Screen(Console(file=io.StringIO(), width=80, height=height, force_terminal=graphics), folder)
    if graphics:
        from textual_image.renderable import HalfcellImage

        made._image = HalfcellImage
    return made


def shown(made: Screen) -> str:
    return made.console.file.getvalue()


def reply(*events):
    yield from events


def test_text_and_paths_each_have_their_line(tmp_path):
    made = screen(tmp_path)
    made.show(
        reply(Piece("Here "), Piece("it is:"), Drawing(1, 2), Drawing(2, 2), Picture(PICTURE), Piece("Good?"))
    )
    assert shown(made) == f"Here it is:\n{tmp_path / 'picture-0001.png'}\nGood?\n"


def test_text_is_never_markup_and_never_broken(tmp_path):
    made = screen(tmp_path)
    text = "[bold]not bold[/] :smile: " + "long " * 40
    made.show(reply(Piece(text)))
    assert shown(made) == text + "\n"


@pytest.mark.parametrize(("size", "rows"), [((64, 64), 14), ((128, 64), 7), ((8, 8), 14)])
def test_pictures_are_brought_to_a_width_that_can_be_seen(tmp_path, size, rows):
    made = screen(tmp_path, graphics=True)
    made.picture(Image.new("RGB", size, (255, 0, 0)))
    lines = [line for line in shown(made).splitlines() if "▀" in line]
    assert [line.count("▀") for line in lines] == [COLUMNS] * rows


def test_a_tall_picture_stays_inside_the_window(tmp_path):
    made = screen(tmp_path, graphics=True, height=20)
    made.picture(Image.new("RGB", (16, 160), (0, 0, 255)))
    assert 0 < sum("▀" in line for line in shown(made).splitlines()) <= 16


def test_the_bar_is_gone_when_the_picture_is_there(tmp_path):
    made = screen(tmp_path, graphics=True)
    made.show(reply(Drawing(1, 4), Drawing(4, 4), Picture(PICTURE)))
    after = shown(made).rpartition("drawing")[2]
    assert "\x1b[2K" in after, "the bar's line is erased"
    assert re.search(r"picture-0001\.png", after)


def test_the_reply_is_closed_when_it_is_stopped(tmp_path):
    closed = []

    def endless():
        try:
            yield Piece("a")
            raise KeyboardInterrupt
        finally:
            closed.append(True)

    made = screen(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        made.show(endless())
    assert closed
    assert shown(made) == "a\n"


def test_without_a_terminal_nothing_is_asked_of_it(monkeypatch):
    monkeypatch.setattr("sys.__stdin__", io.StringIO())
    terminal.inline_image.cache_clear()
    assert terminal.inline_image() is None
    assert "paths" in terminal.graphics_protocol()
    terminal.inline_image.cache_clear()
