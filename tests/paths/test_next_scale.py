"""Pictures coarse to fine: what is said where, and that pictures are drawn as often as they should be."""

import numpy as np
import pytest
import torch

from tests.models import tiny_config, tiny_model
from tests.paths.cases import codec_of
from tests.paths.toy import (
    chances,
    distance,
    drawn,
    every,
    fits,
    frequencies,
    hidden_of,
    told,
    toy_model,
    train,
)
from unimodal.data.document import drop
from unimodal.diffusion.guidance import Guidance
from unimodal.errors import UserError
from unimodal.images.codec import PixelPatches
from unimodal.paths import next_scale
from unimodal.paths.next_scale import NextScalePath

CODES = 3
SCALES = {"kind": "multi_scale", "codes": CODES, "scales": [1, 2]}
CELLS = (2, 2)


def scales_model(quantizer=SCALES, **options):
    return toy_model("next_scale", quantizer, **options)


def test_a_scale_is_a_step_and_stands_where_its_cells_are():
    path = scales_model({"kind": "multi_scale", "codes": 3, "scales": [1, 2, 4]}).path
    found = path.target_layout((2, 4))
    assert found.hidden
    # The maps of 2 x 4 cells: 1 x 1 (half a row is one), 1 x 2, 2 x 4.
    assert found.steps.tolist() == [0, 1, 1, *[2] * 8]
    assert found.places[:3].tolist() == [[0, 0], [0, 0], [0, 2]]
    assert found.places[3:].tolist() == [[row, column] for row in range(2) for column in range(4)]


def test_training_sees_what_sampling_sees():
    """Teacher-forced inputs are those that the same codes give when they are drawn; the first are none."""
    model = scales_model()
    path, codec = model.path, model.codec
    codes = torch.tensor([[0, 1, 2, 1, 0], [2, 2, 0, 1, 1]])
    truths = path.truth(codec, codes, torch.zeros(2, 4, codec.channels), CELLS)
    made = path.corrupt(truths, [CELLS] * 2, torch.Generator())
    assert made.target.tolist() == codes.flatten().tolist()
    assert made.scales.tolist() == [0, 1, 1, 1, 1] * 2
    inputs = made.inputs.reshape(2, 5, -1)
    torch.testing.assert_close(inputs[:, 1:], codec.next_input(codes[:, :1], CELLS))
    embeds = path.embed(made).reshape(2, 5, -1)
    torch.testing.assert_close(embeds[:, 0], path.scale_in.weight[:1].expand(2, -1))
    assert not torch.allclose(embeds[0, 1], embeds[1, 1])


def test_pictures_of_several_shapes_keep_their_own_inputs():
    model = scales_model()
    path, shapes = model.path, [(2, 2), (1, 4), (2, 2), (4, 1)]
    generator = torch.Generator().manual_seed(0)
    truths = []
    for cells in shapes:
        count = sum(rows * columns for rows, columns in model.codec.maps(cells))
        codes = torch.randint(CODES, (1, count), generator=generator)
        truths += path.truth(model.codec, codes, None, cells)
    together = path.corrupt(truths, shapes, torch.Generator())
    alone = [path.corrupt([one], [cells], torch.Generator()) for one, cells in zip(truths, shapes)]
    for name in ("inputs", "target", "scales"):
        torch.testing.assert_close(getattr(together, name), torch.cat([getattr(x, name) for x in alone]))


def test_what_went_astray_is_made_up_for():
    """By hand, a cell at a time: what is left after what was said, averaged there, and the nearest entry."""
    model = scales_model({"kind": "multi_scale", "codes": 96, "scales": [1, 2, 4]})
    quantizer, cells = model.codec.quantizer, (4, 4)
    codes = torch.randint(96, (40, 21), generator=torch.Generator().manual_seed(0))
    shares = torch.linspace(0, 0.9, 40)
    wanted, said = quantizer.astray(codes, cells, shares, torch.Generator().manual_seed(1))
    assert torch.equal(wanted[0], codes[0]) and torch.equal(said[0], codes[0])
    flipped = (wanted != said).float()
    assert (flipped.mean(1) - shares).abs().max() < 0.35 and abs(flipped.mean() - 0.45) < 0.05
    book, whole = quantizer.books.codebook, quantizer.latents(codes, cells)
    for picture in range(40):
        done = 0
        for side in (1, 2, 4):
            map_of = slice(done, done + side * side)
            left = whole[picture]
            if done:
                left = left - quantizer.latents(said[picture : picture + 1, :done], cells)[0]
            if torch.equal(said[picture, :done], codes[picture, :done]):
                assert torch.equal(wanted[picture, map_of], codes[picture, map_of])
            else:
                size = 4 // side
                for cell in range(side * side):
                    row, column = divmod(cell, side)
                    part = left[:, row * size : (row + 1) * size, column * size : (column + 1) * size]
                    apart = (book - part.mean((1, 2))).norm(dim=1)
                    order = apart.argsort().tolist()
                    assert wanted[picture, done + cell] == order[0]
                    assert said[picture, done + cell] in order[:3]  # 3 = 96 / 32
            done += side * side


def test_training_on_what_went_astray_sees_it():
    path, codec = scales_model(flips=0.9).path.train(), scales_model().codec
    codes = torch.randint(CODES, (30, 5), generator=torch.Generator().manual_seed(0))
    truths = path.truth(codec, codes, None, CELLS)
    made, again, other = (
        path.corrupt(truths, [CELLS] * 30, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(made.inputs, again.inputs) and torch.equal(made.target, again.target)
    assert not torch.equal(made.inputs, other.inputs)
    inputs, target = made.inputs.reshape(30, 5, -1), made.target.reshape(30, 5)
    assert torch.equal(target[:, 0], codes[:, 0])  # nothing is coarser than the first
    said = torch.stack([codec.inputs(torch.full((1, 5), code), CELLS)[0, 1:] for code in range(CODES)])
    first = torch.stack([(inputs[:, 1:] - one).abs().amax((1, 2)) for one in said]).argmin(0)
    strayed = first != codes[:, 0]
    assert 5 < strayed.sum() < 25
    assert torch.equal(target[~strayed], codes[~strayed])
    judged = path.eval().corrupt(truths, [CELLS] * 30, torch.Generator().manual_seed(1))
    assert torch.equal(judged.inputs, torch.cat([truth.inputs for truth in truths]))


def test_a_look_a_scale():
    model = scales_model({"kind": "multi_scale", "codes": 3, "scales": [1, 2, 3, 4]})
    seen, told = [], []

    def look(embeds, guided=True, at=None):
        assert embeds.shape[1] == at.stop - at.start
        seen.append((at.start, at.stop))
        return torch.randn(embeds.shape), {}

    generators = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    codes = model.path.sample(
        look, model.codec, (4, 4), generators, Guidance(), on_step=lambda *s: told.append(s)
    )
    assert seen == [(0, 1), (1, 5), (5, 14), (14, 30)]
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert codes.shape == (2, 30) and codes.min() >= 0 and codes.max() < 3


SETTINGS = {
    "plain": ({}, 1.0),
    "guided along a ramp": ({}, 3.0),
    "guided alike": ({"guidance_ramp": False}, 2.0),
    "sharpened": ({"temperature": 0.7, "top_k": 2, "top_p": 0.9}, 1.5),
}


@pytest.mark.parametrize(("options", "guidance"), SETTINGS.values(), ids=SETTINGS)
def test_a_random_model_draws_what_it_says(options, guidance):
    """Samples against the probability of all 243 pictures of 1 + 2 x 2 codes."""
    model, table = scales_model(**options), every(CODES, 5)
    settings = {name: value for name, value in options.items() if name != "guidance_ramp"}
    weights = [1.0 if options.get("guidance_ramp", True) else guidance] + [guidance] * 4
    documents = [told(model, "a red circle", codes, CELLS) for codes in table]
    with torch.no_grad():
        full = model.path.head(hidden_of(model, documents))
        null = model.path.head(hidden_of(model, [drop(document, "text") for document in documents]))
    logits = null + torch.tensor(weights)[:, None] * (full - null)
    probability = np.array(
        [
            np.prod([chances(logits[row, i], **settings)[code] for i, code in enumerate(codes)])
            for row, codes in enumerate(table)
        ]
    )
    assert probability.sum() == pytest.approx(1, abs=1e-5)
    counts = frequencies(drawn(model, "a red circle", CELLS, 4000, guidance), table)
    assert counts.sum() == 4000
    assert fits(counts, probability)


def test_guidance_grows_scale_by_scale_and_keeps_to_its_interval(monkeypatch):
    """Weights 1, 2, 3 on three maps; with an interval from 0.4 of the picture missing, none on the last."""
    used = []

    def watch(say, full, nulls, guidance):
        used.append(guidance.text if nulls else None)
        return say(full)

    monkeypatch.setattr(next_scale, "guided", watch)
    model = tiny_model(0, codec_of("multi_scale twice"), path="next_scale")

    def look(embeds, guided=True, at=None):
        return embeds, {"text": embeds}

    for interval, wanted in (((0.0, 1.0), [1.0, 2.0, 3.0]), ((0.4, 0.8), [None, 2.0, None])):
        used.clear()
        guidance = Guidance(3.0, interval=interval)
        model.path.sample(look, model.codec, (2, 2), [torch.Generator()], guidance)
        assert used == wanted


def test_a_trained_model_draws_the_right_distribution():
    """Three kinds of picture, one twice as often as the others; of a kind, every cell is one of two codes.

    Total variation of 6,000 samples at most 0.07; 0.035 of it is what 6,000 samples leave to chance.  Cells
    drawn without regard to the coarse code would be 0.8 away.
    """
    model = scales_model()
    pictures = []
    for kind, often in enumerate((2, 1, 1)):
        choices = [(kind, (kind + 1 + cell % 2) % CODES) for cell in range(4)]
        cells = np.stack(np.meshgrid(*choices, indexing="ij"), -1).reshape(-1, 4)
        pictures += [(kind, *picture) for picture in cells] * often
    each = train(model, [told(model, "red", picture, CELLS) for picture in pictures], 250)
    table, times = np.unique(pictures, axis=0, return_counts=True)
    probability = times / times.sum()
    assert each.mean().item() * 5 == pytest.approx(-(probability * np.log(probability)).sum(), abs=0.05)
    counts = frequencies(drawn(model, "red", CELLS, 6000), table)
    other = 6000 - counts.sum()
    assert distance(np.append(counts, other), np.append(probability, 0)) < 0.07


def test_codecs_that_do_not_go_with_it_are_refused():
    with pytest.raises(UserError, match="continuous"):
        NextScalePath(tiny_config(path="next_scale"), PixelPatches(4))
    with pytest.raises(UserError, match="patch_size"):
        NextScalePath(tiny_config(path="next_scale", patch_size=2), codec_of("multi_scale"))
    for name in ("vq", "residual"):
        with pytest.raises(UserError, match="coarse to fine"):
            NextScalePath(tiny_config(path="next_scale"), codec_of(name))
    with pytest.raises(ValueError, match="guidance_ramps"):
        tiny_config(path="next_scale", path_options={"guidance_ramps": True})


def test_steps_that_were_asked_for_are_not_passed_over_in_silence(caplog):
    model = scales_model()

    def look(embeds, guided=True, at=None):
        return torch.randn(embeds.shape), {}

    model.path.sample(look, model.codec, CELLS, [torch.Generator()], Guidance(), steps=78)
    assert "steps = 78" in caplog.text
