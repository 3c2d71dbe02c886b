import io
import time

import pytest
from PIL import Image
from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput
from rich.console import Console

from tests.chat.fake import FakeUnimodal
from unimodal.chat import repl as rooms
from unimodal.chat.commands import COMMANDS, CommandCompleter
from unimodal.chat.repl import Repl, chat
from unimodal.chat.terminal import Screen, printable
from unimodal.errors import UserError


class Talk:
    """A REPL over a fake model, typed to through a pipe; what it prints is in `.out`."""

    def __init__(self, folder, model: FakeUnimodal | None = None):
        self.model = model or FakeUnimodal()
        self.folder = folder
        self.file = io.StringIO()
        screen = Screen(Console(file=self.file, width=120), folder / "pictures")
        self.repl = Repl("fake", lambda name: self.model, screen)

    @property
    def out(self) -> str:
        return self.file.getvalue()

    def type(self, keys: str) -> str:
        self.repl.start_loading()
        with create_pipe_input() as pipe:
            pipe.send_text(keys)
            self.repl.interact(PromptSession("> ", input=pipe, output=DummyOutput()))
        return self.out


@pytest.fixture
def talk(tmp_path) -> Talk:
    return Talk(tmp_path)


END = "\x04"  # Ctrl-D


def test_text_and_pictures_are_shown_and_saved(talk):
    out = talk.type("draw a red circle\rhow many?\r" + END)
    assert "there are 1 pictures.\n" in out
    files = list((talk.folder / "pictures").iterdir())
    assert [f.name for f in files] == ["picture-0001.png"]
    assert str(files[0]) in out
    assert Image.open(files[0]).getpixel((0, 0)) == (255, 0, 0)


def test_greeting_names_the_model_its_size_and_three_things_to_try(talk):
    out = talk.type("/quit\r")
    talk.repl._loading.result()
    assert "fake" in out
    assert sum(line in out for line in rooms.TRY) == 3
    assert "12.3 M parameters" in talk.out


def test_ctrl_c_clears_the_line_and_stops_a_reply_only(talk):
    talk.model.stop_at = "pictures."
    out = talk.type("draw\x03how many?\rhello again\r" + END)
    asked = [options["messages"][-1]["content"] for _, options in talk.model.calls]
    assert asked == ["how many?", "hello again"]
    assert out.count("stopped") == 2


def test_what_a_slow_terminal_says_of_itself_is_not_part_of_the_message(talk):
    """Answers to queries that came too late, as prompt_toolkit hands them on."""
    talk.type("\x1b[?1;2c\x1b[6;17;8thow many?\r[1, 2]\r" + END)
    asked = [options["messages"][-1]["content"] for _, options in talk.model.calls]
    assert asked == ["how many?", "[1, 2]"]


def test_mistakes_are_told_and_the_chat_goes_on(talk):
    out = talk.type("/imag x\r/edit make it red\r/steps many\r/image nowhere.png\rrefuse\rhow many?\r/quit\r")
    assert "did you mean '/image'?" in out
    assert "no picture to edit yet" in out
    assert "'many' is not a whole number" in out
    assert "nowhere.png cannot be opened" in out
    assert "too long for this model" in out
    assert out.endswith("there are 0 pictures.\n")


def test_settings_reach_the_model(talk):
    talk.type("/seed 5\r/steps 12\r/guidance 3 1.5\r/temperature 0.7\rdraw a red circle\r" + END)
    options = talk.model.calls[0][1]
    wanted = {"seed": 5, "steps": 12, "guidance": 3.0, "image_guidance": 1.5, "temperature": 0.7}
    assert wanted.items() <= options.items()


@pytest.mark.parametrize(
    "line", ["/seed -1", "/steps 0", "/guidance 1 2 3", "/guidance nan", "/temperature -1"]
)
def test_settings_out_of_range_are_refused(talk, line):
    before = vars(talk.repl.session.settings).copy()
    with pytest.raises(UserError):
        talk.repl.answer(line)
    assert vars(talk.repl.session.settings) == before


def test_image_generate_edit_undo_retry_new_and_save(talk):
    Image.new("RGB", (16, 16), "blue").save(talk.folder / "mine.png")
    talk.type(
        f"/image {talk.folder / 'mine.png'}\rhow many?\r/generate a red circle\r/edit make it green\r/undo\r"
        f"/retry\r/save {talk.folder / 'talk.jsonl'}\r/new\rhow many?\r" + END
    )
    kinds = [
        (kind, options.get("prompt") or options.get("instruction")) for kind, options in talk.model.calls
    ]
    assert kinds == [
        ("stream", None),
        ("generate", "a red circle"),
        ("edit", "make it green"),
        ("generate", "a red circle"),
        ("stream", None),
    ]
    assert talk.model.calls[0][1]["messages"][0]["content"] == "<image>how many?"
    assert len(talk.model.calls[-1][1]["messages"]) == 1
    assert sorted(p.name for p in talk.folder.glob("talk*")) == [
        "talk-0001.png",
        "talk-0002.png",
        "talk.jsonl",
    ]


def test_load_goes_on_with_another_model(talk):
    talk.type("draw a red circle\r" + END)
    other = FakeUnimodal("other")
    talk.repl._load = {"other": other}.__getitem__
    talk.repl.answer("/load other")
    talk.repl.answer("how many?")
    assert len(other.calls[0][1]["messages"]) == 3
    assert "other: 12.3 M parameters" in talk.out


def test_help_and_path_speak_of_everything(talk):
    talk.repl.start_loading()
    talk.repl.answer("/help")
    shown = [line.split()[0] for line in talk.out.splitlines() if "/" in line[:1]]
    assert shown == list(COMMANDS)  # as they are typed, without marks of style
    assert "/edit INSTRUCTION" in talk.out and "/seed [N|random]" in talk.out
    talk.repl.answer("/path")
    assert "flow" in talk.out
    assert str(talk.folder / "pictures") in talk.out


@pytest.mark.parametrize("seconds", [0, 0.5])
def test_a_model_that_cannot_be_loaded_ends_the_prompt(talk, seconds):
    def load(name):
        time.sleep(seconds)  # before the prompt is there, and while it waits
        raise UserError("there is no model 'fake'")

    talk.repl._load = load
    with pytest.raises(UserError, match="no model"):
        talk.type("")


def test_piped_lines_give_replies_and_nothing_else(talk, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("draw a red circle\n\nhow many?\n/quit\nhow many?\n"))
    chat("fake", lambda name: talk.model, save_dir=talk.folder, console=talk.repl.screen.console)
    assert talk.out == f"{talk.folder / 'picture-0001.png'}\nthere are 1 pictures.\n"


def test_a_mistake_in_a_pipe_ends_it(talk, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("/stepz\nhow many?\n"))
    with pytest.raises(UserError, match="/steps"):
        chat("fake", lambda name: talk.model, save_dir=talk.folder, console=talk.repl.screen.console)
    assert talk.model.calls == []


def test_one_prompt_with_pictures(talk):
    path = talk.folder / "mine.png"
    Image.new("RGB", (16, 16), "blue").save(path)
    console = talk.repl.screen.console
    chat("fake", lambda name: talk.model, "how many?", [str(path)] * 2, talk.folder, console)
    assert talk.out == "there are 2 pictures.\n"
    with pytest.raises(UserError, match="empty"):
        chat("fake", lambda name: talk.model, "", [], talk.folder, console)
    with pytest.raises(UserError, match=r"gone\.png"):
        chat("fake", lambda name: talk.model, "how many?", ["gone.png"], talk.folder, console)


def test_completion_knows_commands_and_paths(tmp_path):
    (tmp_path / "picture.png").touch()

    def complete(text: str) -> list[str]:
        return [c.text for c in CommandCompleter().get_completions(Document(text), CompleteEvent())]

    assert complete("/ima") == ["/image"]
    assert set(complete("/")) == set(COMMANDS)
    assert complete(f"/image {tmp_path}/pic") == ["ture.png"]
    assert complete("/seed ra") == ["random"]
    assert complete("draw a /") == []


def test_a_model_cannot_command_the_terminal():
    assert printable("a\x1b]0;title\x07b\tc\n\x9bé🙂") == "a]0;titleb\tc\né🙂"
