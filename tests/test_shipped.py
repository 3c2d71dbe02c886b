"""The shipped model is small, does what its card says, and runs the README's own commands.

Pictures are judged by the oracle of the shapes world, never by a model.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import unimodal
from data_tools.shapes.oracle import Unreadable, read_scene
from data_tools.shapes.reasons import final
from data_tools.shapes.rows import example
from data_tools.shapes.scene import Scene
from unimodal.chat.session import Session, Settings
from unimodal.errors import UserError
from unimodal.evaluation.run import evaluate
from unimodal.generation.verbs import Picture, Piece
from unimodal.model.folder import SHIPPED

FOLDER = SHIPPED / "shapes-base"
DOCS = Path(__file__).parents[1] / "docs"
README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="shapes-base is not in this checkout")


@pytest.fixture(scope="module")
def model():
    return unimodal.load("shapes-base")


def scene_of(picture) -> Scene:
    scene = read_scene(np.asarray(picture))
    assert not isinstance(scene, Unreadable), scene
    return scene


def things(picture) -> set[tuple[str, str]]:
    return {thing.pair for thing in scene_of(picture).objects}


def test_it_is_small(model):
    assert model.size <= 16_000_000
    assert sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file()) <= 32_000_000


def test_draws_what_it_is_told(model):
    picture = model.generate("a red circle left of a blue square on a white background", seed=1)[0]
    scene = scene_of(picture)
    assert (things(picture), scene.background) == ({("red", "circle"), ("blue", "square")}, "white")
    column = {thing.shape: thing.column for thing in scene.objects}
    assert column["circle"] < column["square"]


def test_edits_and_leaves_the_rest(model):
    before = model.generate("a red circle left of a blue square on a white background", seed=1)[0]
    after = model.edit(before, "make the circle green", seed=1)[0]
    old, new = scene_of(before), scene_of(after)
    changed = [t if t.shape != "circle" else type(t)(t.cell, t.shape, "green", t.size) for t in old.objects]
    assert new == Scene(tuple(changed), old.background)


def test_answers_about_a_picture_and_about_words(model):
    picture = model.generate("three yellow stars on a black background", seed=2)[0]
    asked = ("how many stars are there?", "what color is the background?", "is there a circle?")
    assert list(map(final, model.answer([picture] * 3, list(asked)))) == ["three", "black", "no"]
    told = "there is a small red cross below a large cyan triangle. is the red cross above the cyan triangle?"
    assert final(model.chat([{"role": "user", "content": told}]).text) == "no"


def test_converses_draw_change_ask(model):
    session = Session(model, Settings(seed=3))

    def say(words: str) -> tuple[list, str]:
        events = list(session.say(words))
        pictures = [event.image for event in events if isinstance(event, Picture)]
        return pictures, final("".join(event.text for event in events if isinstance(event, Piece)))

    (drawn,), _ = say("draw two orange diamonds on a white background")
    (changed,), _ = say("now make the background gray")
    scene = scene_of(changed)
    assert scene.objects == scene_of(drawn).objects
    assert (len(scene.objects), things(changed), scene.background) == (2, {("orange", "diamond")}, "gray")
    assert say("how many shapes are there?") == ([], "two")


def test_says_politely_what_it_knows(model):
    reply = model.chat([{"role": "user", "content": "who is the president of france?"}])
    assert not reply.images
    assert "shapes" in reply.text


# What a reader of the README tries first; the slow ones (training, judging, the demo) parse in test_readme.
QUICK = ("unimodal chat -p", "echo ", "unimodal env", "unimodal recipes ls")


def test_quick_commands_of_the_readme_run(tmp_path):
    """In the order of the README, in one folder, since the second asks about the first one's picture."""
    blocks = re.findall(r"^```console\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    lines = [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    quick = [line for line in lines if line.startswith(QUICK)]
    assert len(quick) >= 3
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for line in quick:
        done = subprocess.run(
            ["/bin/sh", "-c", line],
            cwd=tmp_path,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (shlex.split(line), done.stderr)
        assert done.stdout.strip()
    assert list(tmp_path.rglob("*.png"))


def test_the_base_for_real_pictures_is_shapes_base_with_another_codec(model):
    """It draws as it did, and gives cuts of a sheet of emoji, letters and all, back better."""
    real, theirs = unimodal.load("real-base"), model.model.state_dict()
    codecs = [name for name in theirs if name.startswith("codec.")]
    ours = real.model.state_dict()
    assert codecs and all(torch.equal(ours[name], theirs[name]) for name in theirs.keys() - codecs)
    prompt = "a red circle left of a blue square on a white background"
    assert things(real.generate(prompt, seed=1)[0]) == {("red", "circle"), ("blue", "square")}
    sheet = np.asarray(Image.open(DOCS / "images" / "emoji-sheet.png").convert("RGB"))
    cuts = sheet[: sheet.shape[0] // 64 * 64, : sheet.shape[1] // 64 * 64]
    cuts = cuts.reshape(-1, 64, cuts.shape[1] // 64, 64, 3).swapaxes(1, 2).reshape(-1, 64, 64, 3)
    signal = torch.from_numpy(cuts[:64]).permute(0, 3, 1, 2) / 127.5 - 1
    errors = [(one.model.codec.reconstruct(signal) - signal).square().mean() for one in (real, model)]
    assert errors[0] < 0.9 * errors[1]


def test_the_reader_answers_and_has_never_drawn():
    report = evaluate("shapes-reader", tasks=("vqa", "text"), n=8)
    assert report.scores["vqa/mean"].value >= 0.9
    assert report.scores["text/mean"].value >= 0.9
    assert not any(name.startswith(("t2i", "edit")) for name in report.scores)


def test_the_denoiser_alone_draws_shapes_and_says_nothing():
    """What is asked for is mostly there, in whatever number; see its card."""
    drawer, found = unimodal.load("shapes-denoiser"), []
    for number in range(12):
        asked = example("t2i", "val", 0, number, "single").steps[0]
        scene = read_scene(np.asarray(drawer.generate(asked.text, seed=number)[0]))
        if not isinstance(scene, Unreadable):
            found.append({asked.scene.objects[0].shape} & {thing.shape for thing in scene.objects})
    assert len(found) >= 6 and sum(map(bool, found)) >= 5
    with pytest.raises(UserError, match="Bridge its denoiser"):
        drawer.chat([{"role": "user", "content": "hello"}])
