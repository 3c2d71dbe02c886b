"""The rows suite on a few rows of every kind: what it says of models whose answers are known."""

import json
from math import log

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import cross_entropy
from typer.testing import CliRunner

from tests.documents import tokenizer
from tests.external.make import external
from tests.models import tiny
from unimodal.attention.door import make_plan
from unimodal.cli import app
from unimodal.errors import UserError
from unimodal.evaluation.nearest import nearer_than_others
from unimodal.evaluation.row_judges import mask_errors
from unimodal.evaluation.run import evaluate
from unimodal.readers.tokens import TokensReader
from unimodal.sequence.mask import Marks

LEVEL = 200  # of the square that has to come


def write(folder, examples):
    for name, column in (("val.jsonl", 0), ("val.truth.jsonl", 1)):
        lines = [json.dumps(example[column]) + "\n" for example in examples]
        (folder / name).write_text("".join(lines))


def asked(user, assistant, **more):
    messages = [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
    return {"messages": messages, **more}


@pytest.fixture
def data(tmp_path):
    """Six rows a kind: a square that comes, statements of which four are true, sums, names, tones."""
    (tmp_path / "p").mkdir()
    examples = []
    for k in range(6):
        before = np.full((16, 16, 3), 50, np.uint8)
        after, mask = before.copy(), np.zeros((16, 16), np.uint8)
        after[2 : 5 + k, 3:9] = LEVEL
        mask[2 : 5 + k, 3:9] = 255
        for name, pixels in (("a", before), ("b", after), ("m", mask)):
            Image.fromarray(pixels).save(tmp_path / "p" / f"{k}{name}.png")
        images = [f"p/{k}a.png", f"p/{k}b.png"]
        truth = {"kind": "edit/add", "mask": f"p/{k}m.png"}
        examples.append((asked("<image>give it a square", "<image>", images=images), truth))
        answer = "yes" if k < 4 else "no"
        truth = {"kind": "vqa/nlvr", "answer": answer}
        examples.append((asked("<image>is this true?", answer, images=images[:1]), truth))
        truth = {"kind": "text/gsm8k", "answer": str(k)}
        examples.append((asked(f"what is {k} + 0?", f"{k} + 0 = {k}\n#### {k}"), truth))
        examples.append((asked(f"name {k}", "<image>", images=images[1:]), {"kind": "t2i/name"}))
        truth = {"kind": "edit/tone", "before": "a", "after": "b"}  # judged by another suite
        examples.append((asked("<image>darker", "<image>", images=images), truth))
    write(tmp_path, examples)
    return tmp_path


class Known:
    """Brings the square a share of the way, blurs the rest by some levels, always answers the same.

    Draws what is named, or always the first of all names.
    """

    name = "known"
    listens = True

    def __init__(self, share, outside, answer, final):
        self.share, self.outside, self.said, self.final = share, outside, answer, final

    def edit(self, image, instruction, seed=0):
        drawn = []
        for k, _ in enumerate(image):
            pixels = np.full((16, 16, 3), 50.0 + self.outside)
            pixels[2 : 5 + self.order[k], 3:9] = 50 + self.share * (LEVEL - 50)
            drawn.append(Image.fromarray(np.rint(pixels).astype(np.uint8)))
        return drawn

    def generate(self, prompts, seed=0):
        drawn = np.full((len(prompts), 16, 16, 3), 50, np.uint8)
        for pixels, words in zip(drawn, prompts):
            pixels[2 : 5 + (int(words.split()[1]) if self.listens else 0), 3:9] = LEVEL
        return [Image.fromarray(pixels) for pixels in drawn]

    def answer(self, image, question, max_tokens=0, seed=0):
        return [self.said] * len(question)

    def chat_batch(self, rows, max_tokens=0, temperature=None, seed=0):
        class Reply:
            def __init__(self, text):
                self.text = text

        numbers = [row["messages"][0]["content"].split()[2] for row in rows]
        assert all(len(row["messages"]) == 1 for row in rows)
        return [Reply(self.final.format(number)) for number in numbers]


@pytest.mark.parametrize(
    ("share", "outside", "answer", "final"),
    [(1.0, 0, "Yes.", "so\n#### {}"), (0.75, 10, "no", "{}"), (0.0, 1, "maybe", "#### {}0")],
)
def test_scores_are_those_of_the_known_errors(data, monkeypatch, share, outside, answer, final):
    from random import Random

    order = Random("rows/3/edit/add").sample(range(6), 6)
    model = Known(share, outside, answer, final)
    model.order = order
    scores = evaluate(model, suite="rows", data=data, n=64, seed=3).scores
    assert scores["edit/add_inside_to_copy"].value == pytest.approx(1 - share, abs=0.01)
    expected = {0: 60, 10: 10 * np.log10(255**2 / 100), 1: 10 * np.log10(255**2)}[outside]
    assert scores["edit/add_psnr_outside"].value == pytest.approx(expected, rel=1e-6)
    assert scores["edit/add"].value == (share == 1.0)
    assert scores["vqa/nlvr"].value == pytest.approx({"Yes.": 4 / 6, "no": 2 / 6, "maybe": 0}[answer])
    assert scores["vqa/nlvr_majority"].value == pytest.approx(4 / 6)
    assert scores["text/gsm8k"].value == (final == "so\n#### {}")
    assert scores["text/gsm8k"].n == 6


@pytest.mark.parametrize("kind", ["vqa/nlvr", "text/nlvr"])
def test_statements_are_the_unit_and_the_majority_stands_beside(kind, tmp_path):
    """20 true statements of two pictures each, 10 false ones of one: always "yes" is the majority."""
    (tmp_path / "p").mkdir()
    Image.new("RGB", (16, 16)).save(tmp_path / "p/a.png")
    examples = []
    for k in [*range(20), *range(30)]:
        answer = "yes" if k < 20 else "no"
        truth = {"kind": kind, "answer": answer, "statement": f"There are {k}."}
        row = asked("is this true?", answer)
        if kind == "vqa/nlvr":
            row = asked("<image>is this true?", answer, images=["p/a.png"])
        examples.append((row, truth))
    write(tmp_path, examples)
    scores = evaluate(Known(0, 0, "yes", ""), suite="rows", data=tmp_path, n=1000).scores
    score = scores[kind]
    assert score == scores[f"{kind}_majority"]
    assert (score.value, score.n) == (0.8, 50)
    # The ratio of sums over 30 statements by the delta method: residuals 2 - 0.8 * 2 and 0 - 0.8.
    deviation = np.sqrt(20 * 0.4**2 + 10 * 0.8**2) / 50
    assert score.high - score.low == pytest.approx(2 * 1.96 * deviation, rel=0.1)


def test_kinds_that_no_program_judges_are_named(data, capsys):
    model = Known(1.0, 0, "yes", "{}")
    model.order = range(6)
    evaluate(model, suite="rows", data=data, n=2)
    assert "edit/tone (6 rows)" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(("listens", "nearer", "nearest"), [(True, 1.0, 1.0), (False, 0.5, 1 / 6)])
def test_drawings_are_compared_with_the_pictures_of_all_prompts(data, listens, nearer, nearest):
    """Who draws the first name's picture for all is right by chance: nearer than half of the others."""
    model = Known(1.0, 0, "yes", "{}")
    model.order, model.listens = range(6), listens
    scores = evaluate(model, suite="rows", data=data, n=64).scores
    assert scores["t2i/name_nearer"].value == pytest.approx(nearer)
    assert scores["t2i/name_nearest"].value == pytest.approx(nearest)
    with pytest.raises(UserError, match="one picture"):
        evaluate(model, suite="rows", data=data, n=1)


def test_pictures_of_one_name_are_no_others():
    black, white = (Image.new("RGB", (32, 32), level) for level in ("black", "white"))
    share, first = nearer_than_others([black, white, black], [black, black, white], ["a", "a", "b"])
    assert (share.tolist(), first.tolist()) == ([1.0, 0.0, 0.0], [True, False, False])
    assert nearer_than_others([white, white], [black, black], ["a", "b"])[0].tolist() == [0.5, 0.5]  # a tie
    with pytest.raises(ValueError, match="one name; expected several"):
        nearer_than_others([black, white], [black, white], ["a", "a"])


def test_errors_inside_and_outside_are_told_apart():
    before, after = np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 3), np.uint8)
    after[:2] = 100
    mask = after[..., 0] > 0
    inside, copied, outside = mask_errors(before, after, np.full((4, 4, 3), 10, np.uint8), mask)
    assert (inside, copied) == (90, 100)
    assert outside == pytest.approx(10 * np.log10(255**2 / 100))


def test_bits_of_plain_text_are_those_of_the_model(tmp_path):
    """Against a cross-entropy worked out on ids alone."""
    model = tiny()
    texts = ["a red circle", "two blue squares left of it"]
    write(tmp_path, [({"text": text}, {"kind": "text/plain"}) for text in texts])
    score = evaluate(model, suite="rows", data=tmp_path, n=8).scores["text/plain_bits_per_character"]
    total, words, inner = 0.0, model.tokenizer, model.model
    for text in texts:
        ids = torch.tensor([words.endoftext, *words.encode(text), words.endoftext])
        steps = torch.arange(len(ids) - 1)[None]
        marks = Marks(steps * 0, steps, steps * 0, steps < 0)
        with torch.no_grad():
            embeds = inner.embed_tokens(ids[None, :-1])
            position = steps[..., None].expand(-1, -1, 3)
            hidden = inner.decoder(embeds, position, make_plan(marks), marks.hidden)
            total += cross_entropy(inner.logits(hidden[0]), ids[1:], reduction="sum").item()
    assert score.value == pytest.approx(total / log(2) / sum(map(len, texts)), rel=1e-4)
    assert score.n == 2


def test_plain_text_of_an_external_model_is_its_readers(tmp_path, capsys):
    """One of transformers says no probability, and one without a language model says nothing."""
    texts = ["a red circle", "two blue squares left of it"]
    write(tmp_path, [({"text": text}, {"kind": "text/plain"}) for text in texts])
    found = evaluate(external(), suite="rows", data=tmp_path, n=8).scores
    assert found == evaluate(tiny(), suite="rows", data=tmp_path, n=8).scores
    foreign, silent = external(), external("hidden", reader=TokensReader(tokenizer()), reference="vae_seq")
    foreign.model.reader.model = torch.nn.Identity()
    for model in (foreign, silent):
        capsys.readouterr()
        assert not evaluate(model, suite="rows", data=tmp_path, n=8).scores
        assert "text/plain (2 rows)" in " ".join(capsys.readouterr().out.split())


def test_a_model_without_words_is_judged_by_what_it_draws(data, capsys):
    model = external("hidden", reader=TokensReader(tokenizer()), reference="vae_seq")
    scores = evaluate(model, suite="rows", data=data, n=2).scores
    assert {name.split("/")[0] for name in scores} == {"edit", "t2i"}
    assert "vqa/nlvr (6 rows), text/gsm8k (6 rows)" in " ".join(capsys.readouterr().out.split())


def test_what_is_missing_is_told(tmp_path):
    model = Known(0, 0, "", "")
    with pytest.raises(UserError, match="needs --data"):
        evaluate(model, suite="rows")
    with pytest.raises(UserError, match="data make emoji, tiles, nlvr, gsm8k or plain"):
        evaluate(model, suite="rows", data=tmp_path)
    with pytest.raises(UserError, match="val or train"):
        evaluate(model, suite="rows", data=tmp_path, split="unseen")
    assert "rows" in CliRunner().invoke(app, ["eval", "--help"]).stdout


def test_edits_of_all_kinds_are_summed_up_together(data):
    """Three of one kind and one of another: sums of errors over sums of a copy's, the mean of decibels."""
    before, after = np.full((16, 16, 3), 50, np.uint8), np.full((16, 16, 3), 50, np.uint8)
    after[2:5, 3:9] = LEVEL
    rows = (data / "val.jsonl").read_text().splitlines()
    truths = [json.loads(line) for line in (data / "val.truth.jsonl").read_text().splitlines()]
    edits = [k for k, truth in enumerate(truths) if truth["kind"] == "edit/add"][:4]
    truths[edits[3]]["kind"] = "edit/swap"
    write(data, [(json.loads(rows[k]), truths[k]) for k in edits])

    class Half(Known):
        """Half of the way where the picture asks for the small square, nothing for the others."""

        def edit(self, image, instruction, seed=0):
            half = before.copy()
            half[2:5, 3:9] = (50 + LEVEL) // 2
            return [Image.fromarray(half) for _ in image]

    scores = evaluate(Half(0, 0, "", ""), suite="rows", data=data, n=64, seed=0).scores
    areas = np.array([(3 + k) * 6 for k in range(4)])  # of squares; 18 pixels of each came half of the way
    left = 150 - 75 * 18 / areas
    assert scores["edit/inside_to_copy"].value == pytest.approx(left.sum() / 600)
    assert scores["edit/inside_to_copy"].n == 4
    assert scores["edit/swap_inside_to_copy"].value == pytest.approx(left[3] / 150)
    assert scores["edit/psnr_outside"].value == pytest.approx(60)
