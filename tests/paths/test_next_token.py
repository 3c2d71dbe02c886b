"""Pictures as sentences: what is said where, and that pictures are drawn as often as they should be."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from tests.models import tiny_config
from tests.paths.cases import codec_of
from tests.paths.toy import (
    ToyCodec,
    chances,
    distance,
    drawn,
    every,
    fits,
    frequencies,
    fresh_model,
    hidden_of,
    told,
    toy_model,
    train,
)
from unimodal.data.document import drop
from unimodal.diffusion.guidance import Guidance
from unimodal.errors import UserError
from unimodal.images.codec import PixelPatches
from unimodal.paths.cells import NOTHING
from unimodal.paths.next_token import NextTokenPath

VQ = {"kind": "vq", "codes": 3}
RESIDUAL = {"kind": "residual", "codes": 3, "depth": 2}
MULTI_SCALE = {"kind": "multi_scale", "codes": 3, "scales": [1, 2]}
CODES = 3


def token_model(quantizer=VQ, **options):
    return toy_model("next_token", quantizer, seed=3, **options)


def test_a_picture_is_said_row_by_row_and_rows_end():
    path = token_model().path
    found = path.target_layout((2, 3))
    assert found.hidden
    assert found.steps.tolist() == list(range(8))
    assert found.places.tolist() == [[0, 0], [0, 1], [0, 2], [0, 3], [1, 0], [1, 1], [1, 2], [1, 3]]
    two = [torch.tensor([[0, 1, 2, 2, 1, 0]]).T, torch.tensor([[1, 2]]).T]
    made = path.corrupt(two, [(2, 3), (2, 1)], torch.Generator())
    end, start = 3, 4
    assert made.target[:, 0].tolist() == [0, 1, 2, end, 2, 1, 0, end, 1, end, 2, end]
    assert made.inputs[:, 0].tolist() == [start, 0, 1, 2, end, 2, 1, 0, start, 1, end, 2]
    assert made.owner.tolist() == [0] * 8 + [1] * 4
    assert made.times.tolist() == [1, 1]


def test_codes_of_different_codebooks_are_different_symbols():
    residual, shared = token_model(RESIDUAL).path, token_model(MULTI_SCALE).path
    made = residual.corrupt([torch.tensor([[0, 2], [1, 1]])], [(1, 2)], torch.Generator())
    assert made.inputs.tolist() == [[7, 7], [0, 5], [1, 4]]
    assert made.target.tolist() == [[0, 2], [1, 1], [3, NOTHING]]  # a cell a position
    assert made.maps.tolist() == [0, 0, 0]
    made = shared.corrupt([torch.tensor([[0], [0], [1]])], [(1, 2)], torch.Generator())
    assert made.inputs.tolist() == [[4], [0], [3], [0], [1]]
    assert made.target.tolist() == [[0], [3], [0], [1], [3]]
    assert made.maps.tolist() == [0, 0, 1, 1, 1]
    assert shared.target_layout((1, 2)).places.tolist() == [[0, 0], [0, 2], [0, 0], [0, 1], [0, 2]]


def test_codes_that_are_read_go_astray_in_training_alone():
    path = token_model(RESIDUAL, flips=0.9).path.train()
    truth = torch.randint(CODES, (400, 2), generator=torch.Generator().manual_seed(5))
    made = path.corrupt([truth], [(20, 20)], torch.Generator().manual_seed(0))
    plain = path.eval().corrupt([truth], [(20, 20)], torch.Generator())
    assert torch.equal(made.target, plain.target)  # what is said is the truth
    wrong = made.inputs != plain.inputs
    share = 0.9 * float(torch.rand((), generator=torch.Generator().manual_seed(0)))
    assert wrong.float().mean() == pytest.approx(share * 2 / 3, abs=0.05)  # one in three hits the truth
    assert not wrong[(plain.inputs >= 6).all(1)].any()  # starts and ends of rows are known
    assert made.inputs[wrong.any(1), 1].min() >= CODES  # codes of the second book stay its own


def test_copies_are_of_mistakes():
    times = {"copies": 3}
    assert fresh_model("next_token", ToyCodec(VQ), times=times).path.target_layout((2, 2)).copies == 1
    made = fresh_model("next_token", ToyCodec(VQ), times=times, path_options={"flips": 0.2})
    assert made.path.target_layout((2, 2)).copies == 3 and "times.copies" not in made.path.IDLE


def test_first_codes_of_a_cell_can_weigh_most():
    even, spread = (token_model(RESIDUAL, depth_weighting=kind).path for kind in ("even", "spread"))
    spread.load_state_dict(even.state_dict())
    target = torch.tensor([[0, 2], [1, 1]])
    hidden = torch.randn(2, 32, generator=torch.Generator().manual_seed(1))
    first = torch.tensor([[0, NOTHING], [1, NOTHING]])
    one, both = even.costs(hidden, first), even.costs(hidden, target)
    books = even.entries[:6].view(2, 3, -1)
    apart = [float((book - book.mean(0)).square().sum() / 2) ** 0.5 for book in books]
    weights = [2 * each / sum(apart) for each in apart]
    wanted = weights[0] * one + weights[1] * (both - one)
    torch.testing.assert_close(spread.costs(hidden, target), wanted)
    with pytest.raises(UserError, match="one code of this codec"):
        token_model(VQ, depth_weighting="spread")


def test_a_look_a_code_each_position_once_and_none_for_row_ends():
    path = token_model().path
    seen, told = [], []

    def look(embeds, guided=True, at=None):
        seen.append(at)
        return torch.randn(2, at.stop - at.start, embeds.shape[-1]), {}

    generators = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    codes = path.sample(look, None, (3, 2), generators, Guidance(), on_step=lambda *step: told.append(step))
    assert codes.shape == (2, 6, 1) and codes.min() >= 0 and codes.max() < CODES
    assert told == [(n, 6) for n in range(1, 7)]
    assert seen[0].start == 0 and seen[-1].stop == 8  # the last row end is never looked at
    assert all(before.stop == after.start for before, after in pairwise(seen))


SETTINGS = {
    "plain": ({}, Guidance()),
    "guided": ({}, Guidance(2.5)),
    "sharpened": ({"temperature": 0.6, "top_k": 2, "top_p": 0.8}, Guidance(2.0)),
    "guided in the middle": ({}, Guidance(4.0, interval=(0.25, 0.75))),
}


def table_of(model, cells, table, options, guidance):
    """Probability (M,) of every picture, from what training computes and the settings' definitions."""
    documents = [told(model, "a red circle", codes, cells) for codes in table]
    full = hidden_of(model, documents)
    null = hidden_of(model, [drop(document, "text") for document in documents])
    path = model.path
    truths = list(path.truth(None, torch.tensor(table), None, cells))
    made = path.corrupt(truths, [cells] * len(table), torch.Generator())
    said = made.target.unflatten(0, (len(table), -1))
    found = np.ones(len(table))
    code_at = [i for i, symbol in enumerate(said[0, :, 0].tolist()) if symbol != CODES]
    for number, i in enumerate(code_at):
        low, high = guidance.interval
        weight = guidance.text if low < 1 - number / len(code_at) <= high else 1.0
        for depth in range(path.deep):
            with torch.no_grad():
                both = [said_after(path, states[:, i], said[:, i, :depth]) for states in (full, null)]
            logits = both[1] + weight * (both[0] - both[1])
            for row in range(len(table)):
                found[row] *= chances(logits[row], **options)[int(said[row, i, depth])]
    return found


def said_after(path, hidden, before):
    """Logits (M, V) of the next code of a cell whose codes `before` (M, depth) are known."""
    depth = before.shape[1]
    if depth:
        symbols = before + torch.arange(depth) * CODES  # a codebook each, whenever a cell has several codes
        known = path.latent_in(path.entries[symbols].sum(1)) + path.symbol_in(symbols).sum(1)
        hidden = path.layers[depth - 1](hidden, known)
    return path.heads[depth](hidden)[:, :CODES]


@pytest.mark.parametrize(("options", "guidance"), SETTINGS.values(), ids=SETTINGS)
def test_a_random_model_draws_what_it_says(options, guidance):
    """Samples against the probability of all 81 pictures of 2 x 2 codes."""
    model, cells, table = token_model(**options), (2, 2), every(CODES, 4)
    probability = table_of(model, cells, table, options, guidance)
    assert probability.sum() == pytest.approx(1, abs=1e-5)
    counts = frequencies(drawn(model, "a red circle", cells, 3000, guidance), table)
    assert counts.sum() == 3000
    assert fits(counts, probability)


@pytest.mark.parametrize(
    ("quantizer", "cells", "count"), [(RESIDUAL, (1, 2), 4), (MULTI_SCALE, (1, 2), 3)], ids=["two", "scales"]
)
def test_maps_of_codes_are_drawn_together(quantizer, cells, count):
    """One after another, so that no code is drawn without regard to another."""
    model, table = token_model(quantizer), every(CODES, count)
    probability = table_of(model, cells, table, {}, Guidance(2.0))
    assert probability.sum() == pytest.approx(1, abs=1e-5)
    assert fits(frequencies(drawn(model, "a red circle", cells, 3000, Guidance(2.0)), table), probability)


def test_the_codes_of_a_cell_take_one_look_and_see_each_other():
    """Codes of a cell that always agree: drawn apart they would differ half the time."""
    model = fresh_model("next_token", ToyCodec(RESIDUAL))
    table = np.array([[0, 1, 0, 1], [1, 0, 1, 0], [2, 2, 2, 2]])  # the first map, then the second
    documents = [told(model, "any", codes, (1, 2)) for codes in table]
    train(model, documents, 150)
    assert len(model.path.target_layout((1, 2)).steps) == 3
    counts = frequencies(drawn(model, "any", (1, 2), 600), table)
    assert counts.sum() >= 590
    assert distance(counts, np.full(3, 1 / 3)) < 0.06


def test_a_trained_model_draws_the_right_distribution():
    """A dozen pictures, some four times as often as others, of another shape for each prompt.

    Total variation of 4,000 samples at most 0.06; 0.02 of it is what 4,000 samples leave to chance.
    """
    model, rng = token_model(), np.random.default_rng(0)
    often = np.array([4, 4, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1])
    worlds, documents = {"red": (2, 2), "blue": (1, 3)}, []
    chosen = {}
    for prompt, cells in worlds.items():
        table = every(CODES, cells[0] * cells[1])
        chosen[prompt] = table[rng.choice(len(table), len(often), replace=False)]
        documents += [told(model, prompt, codes, cells) for codes in np.repeat(chosen[prompt], often, axis=0)]
    each = train(model, documents, 550)
    probability = often / often.sum()
    entropy = -(probability * np.log(probability)).sum()
    symbols = np.repeat([2 * (2 + 1), 1 * (3 + 1)], often.sum())
    # The prompt tells the shape here, so that row ends cost nothing and the codes no more than their entropy.
    assert (each.numpy() * symbols).mean() == pytest.approx(entropy, abs=0.05)
    for prompt, cells in worlds.items():
        counts = frequencies(drawn(model, prompt, cells, 4000), chosen[prompt])
        other = 4000 - counts.sum()
        assert distance(np.append(counts, other), np.append(probability, 0)) < 0.06


def test_codecs_and_settings_that_do_not_go_with_it_are_refused():
    with pytest.raises(UserError, match="continuous"):
        NextTokenPath(tiny_config(path="next_token"), PixelPatches(4))
    with pytest.raises(UserError, match="patch_size"):
        NextTokenPath(tiny_config(path="next_token", patch_size=2), codec_of("vq"))
    for options in ({"top_p": 0}, {"topk": 3}):
        with pytest.raises(ValueError, match=r"top_p|topk"):
            tiny_config(path="next_token", path_options=options)


def test_steps_that_were_asked_for_are_not_passed_over_in_silence(caplog):
    path = token_model().path

    def look(embeds, guided=True, at=None):
        return torch.randn(1, at.stop - at.start, embeds.shape[-1]), {}

    path.sample(look, None, (1, 1), [torch.Generator()], Guidance(), steps=77)
    assert "steps = 77" in caplog.text
