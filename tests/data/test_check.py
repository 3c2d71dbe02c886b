"""The report of a file: what is in it, and every mistake by line; and previews that mark what is trained."""

import io
import json

import numpy as np
import pytest
from PIL import Image as Pillow
from rich.console import Console

from unimodal.data.check import check, print_report, task
from unimodal.data.preview import FRAME, MARK, sheet, terminal
from unimodal.data.rows import parse_row
from unimodal.errors import UserError

RED = np.full((8, 6, 3), (255, 0, 0), np.uint8)
BLUE = np.full((12, 12, 3), (0, 0, 255), np.uint8)


def row(user, assistant, *images):
    messages = [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
    return {"messages": messages, "images": list(images)}


def two_replies(first, second):
    return {"messages": first["messages"] + second["messages"], "images": first["images"] + second["images"]}


GOOD = [
    (row("draw red", "<image>", "red.png"), "t2i"),
    (row("<image> make it blue", "<image>", "red.png", "blue.png"), "edit"),
    (row("<image> colour?", "red", "red.png"), "vqa"),
    (row("hello", "good day"), "text"),
    ({"text": "once upon a time"}, "text"),
    (two_replies(row("draw red", "<image>", "red.png"), row("colour?", "red")), "chat"),
]


@pytest.fixture
def write(tmp_path):
    Pillow.fromarray(RED).save(tmp_path / "red.png")
    Pillow.fromarray(BLUE).save(tmp_path / "blue.png")

    def write(rows, name="a.jsonl"):
        lines = [r if isinstance(r, str) else json.dumps(r) for r in rows]
        (tmp_path / name).write_text("\n".join(lines) + "\n")
        return tmp_path / name

    return write


def characters(document):
    return sum(len(part.text) for part in document.parts() if hasattr(part, "text"))


def test_a_right_file(write, tmp_path):
    report = check(write([r for r, _ in GOOD]), measure=characters, budget=100)
    assert report.ok
    assert report.rows == 6
    assert report.tasks == {"t2i": 1, "edit": 1, "vqa": 1, "text": 2, "chat": 1}
    assert report.sizes == {(6, 8): 4, (12, 12): 1}
    assert report.lengths == report.characters == [8, 13, 11, 13, 16, 18]
    for r, name in GOOD:
        assert task(parse_row(r, "x:1", tmp_path)) == name


def test_mistakes_are_all_listed_with_their_lines(write):
    rows = [
        "{broken",
        GOOD[0][0],
        row("<image>", "x"),
        {"txt": 1},
        row("x", "<image>", "none.png"),
        {"text": "y" * 50},
    ]
    path = write(rows)
    report = check(path, measure=characters, budget=20)
    assert not report.ok
    assert report.mistakes == 5
    assert report.rows == 6
    assert [error.split(": ")[0] for error in report.errors] == [f"{path}:{n}" for n in (1, 3, 4, 5, 6)]
    assert "takes 50 positions, the token budget is 20" in report.errors[-1]
    assert "raise the budget" in report.errors[-1]
    assert report.lengths[-1] == 50
    short = check(path, measure=characters, budget=20, max_errors=2)
    assert short.mistakes == 5
    assert short.errors == report.errors[:2]


def test_oversized_pictures_are_mistakes(write):
    report = check(write([GOOD[0][0], GOOD[1][0]]), max_pixels=100)
    assert report.mistakes == 1
    assert "12x12; expected at most 100 pixels" in report.errors[0]


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(UserError, match="found nothing"):
        check(tmp_path / "none.jsonl")


def test_the_report_is_printed(write):
    def printed(report):
        console = Console(file=io.StringIO(), width=100)
        print_report(report, console)
        return console.file.getvalue()

    text = printed(check(write([r for r, _ in GOOD]), measure=characters, budget=100))
    assert "Every row is right and fits 100 positions.\n" in text
    assert "6x8" in text
    assert "12x12" in text
    text = printed(check(write([GOOD[0][0]])))
    assert "Every row is right. How many positions rows take is measured with --model." in text
    path = write(["[red]{", "{}", "{}", GOOD[0][0]])
    text = printed(check(path, max_errors=1))
    assert f"{path}:1: not JSON" in text
    assert "and 2 rows more with mistakes" in text
    assert "3 of 4 rows are wrong, 1 are right" in text


def has(page: Pillow.Image, colour: str) -> bool:
    wanted = Pillow.new("RGB", (1, 1), colour).getpixel((0, 0))
    return bool((np.asarray(page) == wanted).all(-1).any())


def test_a_sheet_marks_what_is_trained(tmp_path, write):
    write([])
    documents = {name: parse_row(r, "a.jsonl:1", tmp_path) for r, name in GOOD}
    legend = sheet([])
    assert has(legend, MARK)
    below = legend.height
    for name, document in documents.items():
        page = sheet([document])
        assert page.mode == "RGB"
        body = page.crop((0, below - 8, page.width, page.height))
        assert has(body, FRAME) == (name in ("t2i", "edit", "chat"))
        assert has(body, MARK) == (name in ("vqa", "text", "chat"))
        assert has(body, "#ff0000") == any((i.pixels == RED.mean((0, 1))).all() for i in document.images)


def test_long_texts_stay_on_the_sheet():
    document = parse_row({"text": "word " * 300 + "x" * 500 + "\nend"}, "x:1")
    page = np.asarray(sheet([document]))
    assert page.shape[0] > 20 * 10
    assert (page[:, -6:] == 255).all()
    assert (page[-6:] == 255).all()


def test_the_terminal_shows_every_part(tmp_path, write):
    write([])
    console = Console(file=io.StringIO(), width=60, force_terminal=True, color_system="standard")
    drawn = []
    for r, _ in GOOD:
        document = parse_row(r, "a[b].jsonl:1", tmp_path)
        console.print(terminal(document, draw=lambda image: drawn.append(image.size) or "PICTURE"))
    text = console.file.getvalue()
    assert "a[b].jsonl:1" in text
    assert "make it blue" in text
    assert "[picture 6x8]" in text
    assert text.count("PICTURE") == len(drawn) == 5
    assert "\x1b[30;42mgood day" in text
    assert "\x1b[30;42mhello" not in text


def test_the_terminal_is_not_commanded():
    console = Console(file=io.StringIO(), width=60)
    console.print(terminal(parse_row({"text": "a\x1b[2Jb\x07"}, "x:1")))
    assert "\x1b" not in console.file.getvalue()
    assert "\x07" not in console.file.getvalue()
