"""The chat with a real, tiny model of every path: it draws, edits what it drew, writes, and says its path."""

import io

import pytest
from rich.console import Console
from typer.testing import CliRunner

from tests.documents import tokenizer
from tests.paths.cases import CASES
from unimodal.chat.repl import Repl
from unimodal.chat.terminal import Screen
from unimodal.cli import app
from unimodal.generation.verbs import Unimodal
from unimodal.model.folder import save_model
from unimodal.paths import PATHS

MODELS = {
    "flow": "flow on pixels",
    "per_token": "per_token on pixels",
    "next_token": "next_token on codes",
    "masked": "masked on codes",
    "next_scale": "next_scale",
}


def test_every_path_has_its_model():
    assert MODELS.keys() == PATHS.keys()


@pytest.mark.parametrize("path", MODELS)
def test_chat_draws_edits_and_writes(path, tmp_path):
    loaded = Unimodal(CASES[MODELS[path]].model(), tokenizer(), "tiny")
    file = io.StringIO()
    repl = Repl("tiny", lambda name: loaded, Screen(Console(file=file, width=120), tmp_path / "drawn"))
    repl.start_loading()
    repl.session.settings.max_tokens = 3
    repl.pipe(["/seed 1", "/generate a red circle", "/edit make it green", "how many?", "/path"])
    drawn = sorted((tmp_path / "drawn").iterdir())
    assert len(drawn) >= 2
    assert f"images are made by the {path} path" in file.getvalue()
    assert [m["role"] for m in repl.session.messages[:4]] == ["user", "assistant"] * 2


@pytest.mark.parametrize("path", MODELS)
def test_one_prompt_from_the_command_line(path, tmp_path):
    model = CASES[MODELS[path]].model()
    save_model(tmp_path / "model", model, tokenizer())
    told = ["chat", str(tmp_path / "model"), "--save-dir", str(tmp_path / "drawn")]
    result = CliRunner().invoke(app, [*told, "-p", "/generate a red circle"])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "drawn" / "picture-0001.png").is_file()
