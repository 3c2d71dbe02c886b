"""The chat with a model that draws outside the language model: the same session, commands and rows."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from rich.console import Console
from typer.testing import CliRunner

from tests.documents import picture, tokenizer
from tests.external.make import external, planner, save_beside_reader
from unimodal.chat.repl import Repl
from unimodal.chat.session import Session
from unimodal.chat.terminal import Screen
from unimodal.cli import app
from unimodal.data.rows import parse_row
from unimodal.errors import UserError
from unimodal.generation.verbs import Drawing, Picture, Piece
from unimodal.readers.tokens import TokensReader


def wants(model, *tokens):
    """Let the reader say these tokens, whatever it would say."""
    said = iter(tokens)
    model.model.reader.model.logits = lambda hidden: torch.nn.functional.one_hot(
        torch.tensor([next(said)]), len(tokenizer())
    ).float()


def session_of(model):
    session = Session(model)
    session.settings.seed, session.settings.steps, session.settings.temperature = 4, 2, 0.0
    return session


def test_a_session_draws_changes_and_answers(tmp_path):
    """The reader decides; the denoiser draws, and changes the picture that it drew before."""
    model, special = external(), tokenizer()
    session = session_of(model)
    two = special.encode("two")
    wants(
        model, special.image_start, special.im_end, special.image_start, special.im_end, *two, special.im_end
    )
    events = list(session.say("a red circle"))
    assert [type(event) for event in events] == [Drawing, Drawing, Picture]
    list(session.say("make it green"))
    assert [type(event) for event in session.say("how many")] == [Piece] * len(two)
    assert [message["content"] for message in session.messages] == [
        "a red circle",
        "<image>",
        "make it green",
        "<image>",
        "how many",
        "two",
    ]
    first, second = (np.asarray(image) for image in session.images)
    alone = model.generate("a red circle", seed=4, steps=2)[0]
    assert np.abs(first.astype(int) - np.asarray(alone)).max() <= 1
    other = external(seed=3)
    session.model = other
    wants(other, special.image_start, special.im_end)
    session.undo()
    list(session.retry())
    assert (np.asarray(session.images[1]) != second).any()
    session.save(tmp_path / "talk.jsonl")
    (row,) = [json.loads(line) for line in (tmp_path / "talk.jsonl").read_text().splitlines()]
    document = parse_row(row, "talk.jsonl", tmp_path)
    assert [image.trained for image in document.images] == [True, True]


def test_what_the_reader_says_first_is_in_the_conversation():
    model = external(reader=planner(), plans=True)
    special = tokenizer()
    session = session_of(model)
    seen, read = [], model.model.read
    model.model.read = lambda prompts: seen.extend(prompts) or read(prompts)
    wants(model, *special.encode("two"), special.image_start, special.im_end)
    list(session.say("a red circle"))
    assert session.messages[-1]["content"] == "two<image>"
    assert [part.text for part in seen[0].parts()] == ["a red circle", "two"]


def test_commands_work_as_with_any_model(tmp_path):
    loaded = external()
    file = io.StringIO()
    repl = Repl("tiny", lambda name: loaded, Screen(Console(file=file, width=200), tmp_path / "drawn"))
    repl.start_loading()
    repl.session.settings.max_tokens = 3
    PILImage.fromarray(picture(np.random.default_rng(0))).save(tmp_path / "mine.png")
    lines = ["/seed 1", "/steps 2", "/generate a red circle", "/edit make it green"]
    repl.pipe(
        [*lines, f"/image {tmp_path / 'mine.png'}", "/edit make it blue", "how many?", "/path", "/retry"]
    )
    assert len(list((tmp_path / "drawn").iterdir())) >= 3
    said = " ".join(file.getvalue().split())
    assert "made outside the language model, by the denoiser dit, from what tiny reads" in said
    assert [m["role"] for m in repl.session.messages[:4]] == ["user", "assistant"] * 2
    with pytest.raises(UserError, match="takes no adapters"):
        repl.answer("/adapter somewhere")


def test_one_prompt_from_the_command_line(tmp_path):
    save_beside_reader(tmp_path)
    told = ["chat", str(tmp_path / "model"), "--save-dir", str(tmp_path / "drawn")]
    result = CliRunner().invoke(app, [*told, "-p", "/generate a red circle"])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "drawn" / "picture-0001.png").is_file()


def test_without_a_language_model_it_draws_and_says_that_it_cannot_talk():
    model = external("hidden", reader=TokensReader(tokenizer()), reference="vae_seq")
    session = session_of(model)
    list(session.generate("a red circle"))
    assert len(session.images) == 1
    with pytest.raises(UserError, match="cannot answer"):
        list(session.say("how many"))
    assert [message["content"] for message in session.messages] == ["a red circle", "<image>"]
