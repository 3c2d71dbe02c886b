"""The emoji suite on a handful of drawn pictures: a perfect model, a copying one, and a half-way one."""

import json

import numpy as np
import pytest
from PIL import Image

from unimodal.errors import UserError
from unimodal.evaluation.emoji import edit_errors, read_examples
from unimodal.evaluation.run import evaluate

TONES = {"light": 220, "dark": 100}


@pytest.fixture
def data(tmp_path):
    """Ten families of a square on white in two tones."""
    (tmp_path / "pictures").mkdir()
    rows, truths = [], []
    for family in range(10):
        for tone, level in TONES.items():
            pixels = np.full((16, 16, 3), 255, np.uint8)
            pixels[4:12, 3 : 5 + family % 4] = level
            Image.fromarray(pixels).save(tmp_path / "pictures" / f"{family}-{tone}.png")
        paths = [f"pictures/{family}-{tone}.png" for tone in TONES]
        said = [{"role": "user", "content": "<image>make the skin tone dark"}]
        rows.append({"messages": [*said, {"role": "assistant", "content": "<image>"}], "images": paths})
        truths.append({"kind": "edit/tone", "from": "light", "to": "dark"})
        said = [{"role": "user", "content": "<image>what is the skin tone?"}]
        rows.append({"messages": [*said, {"role": "assistant", "content": "dark"}], "images": paths[1:]})
        truths.append({"kind": "vqa/tone", "answer": "dark"})
    for name, lines in (("val.jsonl", rows), ("val.truth.jsonl", truths)):
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


class Toning:
    """Makes everything that is not white the dark tone, a share of the way."""

    name = "toning"

    def __init__(self, share: float, answer: str):
        self.share, self.said = share, answer

    def edit(self, image, instruction, seed=0):
        assert not any("<image>" in words for words in instruction)
        pixels = [np.array(one, np.float64) for one in image]
        for one in pixels:
            ink = (one != 255).any(-1)
            one[ink] += self.share * (TONES["dark"] - one[ink])
        return [Image.fromarray(np.rint(one).astype(np.uint8)) for one in pixels]

    def answer(self, image, question, max_tokens=0, seed=0):
        return [self.said] * len(question)


@pytest.mark.parametrize(("share", "answer"), [(1.0, "dark"), (0.0, "light"), (0.75, "Dark.")])
def test_scores_are_those_of_the_known_error(data, share, answer):
    scores = evaluate(Toning(share, answer), suite="emoji", data=data, n=64).scores
    assert scores["edit/error_inside_copy"].value == 120
    assert scores["edit/error_inside"].value == pytest.approx(120 * (1 - share))
    assert scores["edit/inside_to_copy"].value == pytest.approx(1 - share)
    assert scores["edit/inside_to_copy"].low <= 1 - share <= scores["edit/inside_to_copy"].high
    assert scores["edit/error_outside"].value == scores["edit/error_outside_copy"].value == 0
    assert scores["vqa/tone"].value == (answer != "light")
    assert scores["vqa/tone"].n == 10


def test_errors_inside_and_outside_are_told_apart():
    before, after = np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 3), np.uint8)
    after[:2] = 100
    got = np.full((4, 4, 3), 10, np.uint8)
    assert edit_errors(before, after, got).tolist() == [90, 100, 10, 0]


def test_a_folder_without_rows_is_refused(tmp_path):
    with pytest.raises(UserError, match="data make emoji"):
        read_examples(tmp_path, "val")
    with pytest.raises(UserError, match="val or train"):
        evaluate(Toning(0, ""), suite="emoji", split="unseen")
