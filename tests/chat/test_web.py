"""The page in the browser: what it shows becomes a conversation, and a reply becomes what it shows."""

import importlib.util
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage
from typer.testing import CliRunner

from tests.documents import picture
from tests.models import tiny
from unimodal.chat.session import Session, Settings
from unimodal.chat.web import Talk, conversation, page, serve
from unimodal.cli import app
from unimodal.errors import UserError


@pytest.fixture
def shown(tmp_path) -> Path:
    path = tmp_path / "shown.png"
    PILImage.fromarray(picture(np.random.default_rng(0))).save(path)
    return path


def sent(text: str, *files: Path) -> dict:
    return {"text": text, "files": [str(file) for file in files]}


def test_what_a_page_shows_is_a_row(shown):
    """As programs send it, and as browsers do."""
    file = {"path": str(shown)}
    plain = [
        {"role": "user", "content": file},
        {"role": "user", "content": ["make it blue"]},
        {"role": "assistant", "content": "a blue circle:"},
        {"role": "assistant", "content": file},
        {"role": "user", "content": "and now?"},
    ]
    typed = [
        {
            "role": "user",
            "content": [{"type": "file", "file": file}, {"type": "text", "text": "make it blue"}],
        },
        {"role": "assistant", "content": [{"type": "text", "text": "a blue circle:"}]},
        {"role": "assistant", "content": [{"type": "file", "file": file}]},
        {"role": "user", "content": [{"type": "text", "text": "and now?"}]},
    ]
    for history in (plain, typed):
        messages, images = conversation(history)
        assert messages == [
            {"role": "user", "content": "<image>make it blue"},
            {"role": "assistant", "content": "a blue circle:<image>"},
            {"role": "user", "content": "and now?"},
        ]
        assert [image.size for image in images] == [(8, 8), (8, 8)]


def test_a_reply_is_that_of_a_session_and_its_pictures_are_kept(tmp_path, shown):
    model = tiny()
    for seed in range(40):  # until the random model both writes and draws
        session = Session(model, Settings(seed, 2, temperature=1.0))
        session.attach(PILImage.open(shown))
        list(session.say("two red circles"))
        reply = session.messages[-1]["content"] if len(session.messages) > 1 else ""
        if "<image>" in reply and reply.replace("<image>", "").strip():
            break
    states = list(Talk(model, tmp_path / "kept")(sent("two red circles", shown), [], seed, 2.0, None, 1.0))
    messages, images = conversation(states[-1])
    assert messages == [session.messages[-1]]
    assert all(np.array_equal(a, b) for a, b in zip(images, session.images[1:], strict=True))
    assert len(list((tmp_path / "kept").iterdir())) == len(images)
    # What was said stays as the reply grows, but for the line that tells how far a drawing is.
    told = [[m["content"] for m in state if "drawing:" not in str(m["content"])] for state in states]
    assert all(len(before) <= len(after) for before, after in pairwise(told))
    assert any("drawing: 1 of 2" in str(state) for state in states)


def test_what_cannot_be_answered_is_said(tmp_path, shown):
    talk = Talk(tiny(), tmp_path)
    with pytest.raises(UserError, match="empty"):
        list(talk(sent(""), []))
    text = tmp_path / "a.png"
    text.write_text("no picture")
    with pytest.raises(UserError, match=r"a\.png"):
        list(talk(sent("what is it?", text), []))
    result = CliRunner().invoke(app, ["chat", "--web", "-p", "hello"])
    assert result.exit_code and isinstance(result.exception, UserError)


def test_without_gradio_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gradio", None)
    with pytest.raises(UserError, match=r"\.\[web\]"):
        serve("shapes-base", lambda name: tiny(), tmp_path, 7860)


@pytest.mark.skipif(not importlib.util.find_spec("gradio"), reason="needs the extra `web`")
def test_the_page_is_built(tmp_path):
    assert page(tiny(), tmp_path).multimodal
