"""`/adapter` in the chat, and `--adapter` on the command line."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image
from typer.testing import CliRunner

import unimodal
from tests.adapters.make import adapter_folder, base_folder
from tests.chat.fake import FakeUnimodal
from tests.models import tiny_config
from unimodal.adapters.section import Settings
from unimodal.chat.commands import obey
from unimodal.cli import app
from unimodal.errors import UserError


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """A base and two adapters of it, named as from the working folder."""
    monkeypatch.chdir(tmp_path)
    base = base_folder(tmp_path / "base")
    for name, target in (("tiles", "image"), ("words", "text")):
        adapter_folder(tmp_path / name / "adapter", base, target=target)
    return tmp_path


def test_the_chat_switches_adapters(folders):
    chat = SimpleNamespace(model=unimodal.load("base", "cpu", adapter="tiles/adapter"))
    assert obey(chat, "/adapter") == "adapter: tiles"
    assert obey(chat, "/adapter words/adapter") == "adapter: words (also at hand: tiles)"
    assert obey(chat, "/adapter off") == "adapter: off (also at hand: tiles, words)"
    assert obey(chat, "/adapter tiles") == "adapter: tiles (also at hand: words)"
    assert chat.model.adapter == "tiles"
    assert obey(chat, "/adapter mine=words/adapter") == "adapter: mine (also at hand: tiles, words)"
    with pytest.raises(UserError, match="nowhere is not an adapter"):
        obey(chat, "/adapter nowhere")
    assert chat.model.adapter == "mine"


def test_the_command_line_uses_an_adapter_and_finds_its_model(folders):
    def run(*args):
        result = CliRunner().invoke(app, args, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    words = unimodal.load("base", "cpu", adapter="words/adapter")
    said = words.complete("a red", max_tokens=4)
    assert run("complete", "a red", "--max-tokens", "4", "--adapter", "words/adapter") == said + "\n"
    assert run("complete", "a red", "--max-tokens", "4", "--model", "words/adapter") == said + "\n"
    Image.new("RGB", (8, 8), "blue").save("mine.png")
    path = run("generate", "a red circle", "--adapter", "x=tiles/adapter", "--out", "after.png").strip()
    tiles = unimodal.load("base", "cpu", adapter="tiles/adapter")
    assert Image.open(path).tobytes() == tiles.generate("a red circle")[0].tobytes()
    path = run(
        "edit", "mine.png", "make it red", "--seed", "2", "--adapter", "tiles/adapter", "--out", "edited.png"
    )
    edited, shown = Image.open(path.strip()), Image.open("mine.png")
    assert edited.tobytes() == tiles.edit(shown, "make it red", seed=2)[0].tobytes()
    plain = unimodal.load("base", "cpu")
    assert edited.tobytes() != plain.edit(shown, "make it red", seed=2)[0].tobytes()
    two = ["--adapter", "words/adapter", "--adapter", "tiles/adapter"]
    asked = words.answer(Image.open("mine.png"), "how many?", max_tokens=3)
    assert run("ask", "mine.png", "how many?", "--max-tokens", "3", *two) == asked + "\n"


def test_eval_judges_the_model_with_its_adapter(tmp_path, monkeypatch):
    """Scores and the sheet of failures are those of the model as it is loaded with the adapter."""
    from unimodal.evaluation.run import evaluate

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("unimodal.evaluation.run.TASKS", ("t2i", "edit"))  # seconds; words take long to come
    base = base_folder(tmp_path / "base", image_size=32)
    adapter_folder(tmp_path / "tiles", base, target="image", settings=Settings.of(tiny_config(image_size=32)))
    args = ["eval", "--adapter", "tiles", "-n", "1", "--seed", "4", "--json", "it.json"]
    done = CliRunner().invoke(app, [*args, "--sheet", "it.png"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    for name, model in (("tiles", unimodal.load(adapter="tiles", device="cpu")), ("base", "base")):
        evaluate(model, n=1, seed=4, json=Path(f"{name}.json"), sheet=Path(f"{name}.png"))
    scores, expected = (json.loads(Path(name).read_text()) for name in ("it.json", "tiles.json"))
    assert scores == expected
    sheets = [Image.open(name).tobytes() for name in ("it.png", "tiles.png", "base.png")]
    assert sheets[0] == sheets[1] != sheets[2]


def test_chat_and_eval_pass_it_on(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    loads, judged, options = [], [], []

    def load(name=None, adapter=None, device=None, dtype=None):
        loads.append((name, adapter))
        options.append((device, dtype))
        return FakeUnimodal()

    monkeypatch.setattr(unimodal, "load", load, raising=False)
    monkeypatch.setattr("unimodal.evaluation.run.evaluate", lambda model, *a, **k: judged.append(model))
    monkeypatch.setattr("unimodal.evaluation.run.print_report", lambda report: None)
    for args in (
        ["chat", "--adapter", "a", "-p", "how many?"],
        ["chat", "base", "--adapter", "a", "--adapter", "b=c", "-p", "how many?"],
        ["chat", "-p", "how many?"],
        ["eval", "--adapter", "a", "--device", "cpu", "--dtype", "bf16"],
        ["eval", "base"],
    ):
        assert CliRunner().invoke(app, args, catch_exceptions=False).exit_code == 0
    assert loads == [(None, ["a"]), ("base", ["a", "b=c"]), ("shapes-base", None), (None, ["a"])]
    assert options == [(None, None)] * 3 + [("cpu", "bf16")]
    assert isinstance(judged[0], FakeUnimodal)
    assert judged[1] == "base"
    with pytest.raises(UserError, match="name the model to judge"):
        CliRunner().invoke(app, ["eval"], catch_exceptions=False)


def test_slash_load_brings_another_model_without_the_adapter(monkeypatch, tmp_path):
    loads = []
    monkeypatch.setattr(
        unimodal, "load", lambda *a, **k: loads.append((a, k)) or FakeUnimodal(), raising=False
    )
    lines = "how many?\n/load other\nhow many?\n"
    done = CliRunner().invoke(
        app, ["chat", "--adapter", "a", "--save-dir", str(tmp_path)], input=lines, catch_exceptions=False
    )
    assert done.exit_code == 0
    assert loads == [((None,), {"adapter": ["a"]}), (("other",), {})]
