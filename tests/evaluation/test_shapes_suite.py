"""The shapes suite gives a perfect model full marks, a copying one none, and others what they deserve."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from data_tools.shapes.scene import COLOURS, Scene
from tests.evaluation.fakes import Copying, Perfect, Reply, picture
from unimodal.errors import UserError
from unimodal.evaluation.run import TASKS, evaluate, print_report
from unimodal.evaluation.shapes import examples, psnr
from unimodal.images.codec import PixelPatches

NAMES = {
    "t2i/single",
    "t2i/two",
    "t2i/counting",
    "t2i/colors",
    "t2i/position",
    "t2i/attribute",
    "t2i/mean",
    "edit/followed",
    "edit/psnr_outside",
    "edit/copy_baseline",
    "edit/recolour",
    "vqa/colour",
    "vqa/mean",
    "text/mean",
    "chat/mean",
}
N = 3


def perfect(split: str, seed: int, n: int = N) -> Perfect:
    return Perfect([one for task in TASKS for one in examples(task, split, n, seed, 64)])


@pytest.mark.parametrize("split", ["val", "unseen"])
def test_perfect_model_has_full_marks(split, tmp_path):
    report = evaluate(perfect(split, 5), split=split, n=N, seed=5, json=tmp_path / "scores.json")
    assert set(report.scores) >= NAMES
    wrong = [case.name for case in report.cases if not case.right]
    assert wrong == []
    for name, score in report.scores.items():
        if "psnr" not in name and name != "edit/copy_baseline":
            assert (name, score.value) == (name, 1.0)
    assert report.scores["edit/psnr_outside"].value == 60
    assert report.sheet() is None
    assert report.sheet(every_case=True).width > 64
    written = json.loads((tmp_path / "scores.json").read_text())
    assert set(written) == {"model", "suite", "split", "seed", "scores"}
    assert set(written["scores"]["t2i/mean"]) == {"value", "low", "high", "n"}
    assert written["scores"]["t2i/mean"]["n"] == 6 * N


def test_copying_model_has_none(tmp_path):
    report = evaluate(Copying(), n=N, seed=5, sheet=tmp_path / "failures.png")
    scores = report.scores
    assert scores["t2i/mean"].value == 0
    assert scores["edit/followed"].value == scores["edit/copy_baseline"].value == 0
    assert scores["edit/psnr_outside"].value == 60  # what is copied is untouched
    assert scores["vqa/mean"].value < 0.5
    assert scores["chat/mean"].value < 0.1  # two questions in a row may both be answered so
    assert min(Image.open(tmp_path / "failures.png").size) > 200
    console = Console(record=True, width=100)
    print_report(report, console)
    told = console.export_text()
    assert all(name in told for name in NAMES)


class Recolouring(Perfect):
    """Draws what it is asked, but everything blue turns red."""

    def generate(self, prompt, seed=0):
        return [self._spoil(one) for one in super().generate(prompt, seed)]

    @staticmethod
    def _spoil(image):
        pixels = np.array(image)
        pixels[(pixels == COLOURS["blue"]).all(-1)] = COLOURS["red"]
        return Image.fromarray(pixels)


def test_wrong_colours_are_found_where_colours_were_asked():
    known = examples("t2i", "val", 20, 3, 64)
    report = evaluate(Recolouring(known), n=20, seed=3, tasks=("t2i",))
    spoiled = [
        any(thing.colour == "blue" for thing in one.steps[0].scene.objects)
        and any(group.colour == "blue" for group in one.steps[0].draw.groups)
        for one in known
    ]
    wrong = [not case.right for case in report.cases]
    assert sum(wrong) >= sum(spoiled)
    assert all(w for w, s in zip(wrong, spoiled) if s)


class Shifting(Perfect):
    """Edits rightly, but everything moves by two pixels."""

    def edit(self, image, instruction, seed=0):
        edited = super().edit(image, instruction, seed)
        return [Image.fromarray(np.roll(np.asarray(one), 2, 0)) for one in edited]


def test_edits_that_shift_the_picture_are_not_followed():
    report = evaluate(Shifting(examples("edit", "val", N, 3, 64)), n=N, seed=3, tasks=("edit",))
    assert report.scores["edit/followed"].value < 0.1
    assert report.scores["edit/psnr_outside"].value < 40


class OwnWay(Perfect):
    """In conversations draws its own choice of what was left open: always another background."""

    def _reply(self, row):
        first = [message for message in row["messages"] if message["role"] == "user"]
        if len(first) > 1 or row.get("images"):
            raise AssertionError("a wrong turn is followed by no other")
        reply = super()._reply(row)
        return Reply(tuple(picture(Scene((), "gray")) if not isinstance(p, str) else p for p in reply.parts))


def test_a_wrong_turn_ends_the_conversation():
    known = [one for one in examples("chat", "val", N, 4, 64) if one.kind == "draw_change_ask"]
    from unimodal.evaluation.talk import talk_through

    cases = talk_through(OwnWay(known), known, 0, {})
    assert [case.right for case in cases] == [False] * N


class OtherBackground(Perfect):
    """Chooses another background in its first picture, and goes on rightly from there."""

    def _reply(self, row):
        if len(row["messages"]) > 1:
            return self._rightly_on(row)
        step = self._step(self._text(row["messages"][0]))
        if step.draw is None or step.draw.background:
            return super()._reply(row)
        other = "gray" if step.scene.background != "gray" else "white"
        return Reply((picture(replace(step.scene, background=other)),))

    def _rightly_on(self, row):
        from data_tools.shapes.edits import apply
        from data_tools.shapes.oracle import read_scene

        said = tuple(self._text(message) for message in row["messages"] if message["role"] == "user")
        step, scene = self._step(*said), read_scene(np.asarray(row["images"][-1]))
        if step.edit is not None:
            return Reply((picture(apply(step.edit, scene)),))
        return Reply((step.words(scene),))


def test_later_turns_are_judged_on_the_models_own_picture():
    from unimodal.evaluation.talk import talk_through

    known = [one for one in examples("chat", "val", 20, 6, 64) if one.kind in ("draw_change_ask", "draw_ask")]
    unique = {one.steps[0].text: one for one in known}
    known = list(unique.values())
    open_ones = [one for one in known if one.steps[0].draw.background is None]
    assert len(open_ones) > 10
    cases = talk_through(OtherBackground(known), known, 0, {})
    assert [case.right for case in cases] == [True] * len(known)


def test_psnr_against_its_definition():
    assert psnr(255**2) == pytest.approx(0)
    assert psnr(1.0) == pytest.approx(48.1308, abs=1e-3)
    assert psnr(0.0) == 60


class Darkens(PixelPatches):
    """Keeps everything, but darkens by a known amount."""

    def from_raw(self, latents):
        return super().from_raw(latents) - 4 / 127.5


def test_codec_suite_measures_a_known_error():
    class Model:
        name = "codec only"
        config = type("Config", (), {"image_size": 64})
        model = type("Inner", (), {"codec": Darkens(), "device": torch.device("cpu")})

    scores = evaluate(Model(), suite="codec", n=8).scores
    assert scores["codec/psnr"].value == pytest.approx(20 * np.log10(255 / 4), abs=0.5)
    assert scores["codec/read"].value == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"suite": "shape"}, "did you mean 'shapes'"),
        ({"split": "test"}, "expected one of train, val, unseen"),
        ({"n": 0}, "at least one"),
        ({"tasks": ("draw",)}, "expected one of t2i"),
        ({"suite": "codec"}, "no codec"),
    ],
)
def test_nonsense_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        evaluate(Copying(), **options)
