"""Masked codes: which are hidden and filled in when, what they cost, and that pictures come out as often as
they should."""

import math
from itertools import pairwise, permutations, product
from unittest import mock

import numpy as np
import pytest
import torch

from tests.documents import tokenizer
from tests.models import tiny_model
from tests.paths.cases import codec_of
from tests.paths.toy import (
    ToyCodec,
    distance,
    drawn,
    every,
    fits,
    frequencies,
    fresh_model,
    train,
    unasked,
)
from unimodal.adapters.section import Settings, apply_settings
from unimodal.diffusion.guidance import Guidance
from unimodal.errors import UserError
from unimodal.paths.masked import MASKED, MaskedCodes, MaskedPath
from unimodal.paths.path import flatten
from unimodal.paths.sets import SCHEDULES, counts, cut, halton_order, mean_asked, within
from unimodal.sequence.layout import layout
from unimodal.sequence.pack import pack_sequences

PLAIN = Guidance()
SHADES = {"kind": "vq", "codes": 3}
EVERY = every(3, 4)  # pictures of 2 x 2 cells
SHARES = {
    "cosine": lambda u: np.cos(np.pi * u / 2),
    "arccos": lambda u: 2 * np.arccos(u) / np.pi,
    "linear": lambda u: 1 - u,
}


def path_of(codec=None, **options) -> MaskedPath:
    """A path on three shades, with random weights."""
    return tiny_model(0, codec or ToyCodec(SHADES), path="masked", path_options=options).path


class Watcher:
    """Looks that say the same logits always, and note which positions still held the mask."""

    def __init__(self, path, logits, null=None):
        self.path, self.masked, self.guided = path, [], []
        with torch.no_grad():
            path.heads[0].rows.weight.copy_(torch.eye(*path.heads[0].rows.weight.shape))
            path.heads[0].place.weight.zero_()
        self.full, self.null = self._hidden(logits), None if null is None else self._hidden(null)

    def _hidden(self, logits):
        width = self.path.mask.numel()
        return torch.nn.functional.pad(torch.as_tensor(logits, dtype=torch.float32), (0, width - 3))

    def __call__(self, embeds, guided=True, at=None):
        assert at is None
        self.masked.append((embeds == self.path.mask).all(-1))
        self.guided.append(guided)
        nulls = {} if self.null is None else {"text": self.null.expand(len(embeds), -1, -1)}
        return self.full.expand(len(embeds), -1, -1), nulls

    @torch.inference_mode()
    def sample(self, grid, rows=1, steps=None, guidance=PLAIN):
        generators = [torch.Generator().manual_seed(row) for row in range(rows)]
        return self.path.sample(self, None, grid, generators, guidance, steps)


# ---- how many, and which -------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", SHARES)
def test_a_schedule_leaves_its_share_hidden(schedule):
    found = counts(schedule, 1000, 12)
    left = 1000 - np.cumsum(found)
    wanted = 1000 * SHARES[schedule](np.arange(1, 13) / 12)
    assert np.abs(left - wanted).max() <= 1
    assert left[-1] == 0


@pytest.mark.parametrize("schedule", SHARES)
@pytest.mark.parametrize(("positions", "forwards"), [(1, 1), (1, 12), (5, 5), (7, 12), (16, 12), (64, 1)])
def test_every_forward_fills_in_something_and_the_last_one_the_rest(schedule, positions, forwards):
    found = counts(schedule, positions, forwards)
    assert len(found) == min(positions, forwards)
    assert min(found) >= 1
    assert sum(found) == positions


def test_a_picture_takes_a_forward_at_least():
    with pytest.raises(UserError, match="at least 1 forward"):
        counts("cosine", 4, -1)


def test_the_halton_order_is_spread_evenly_from_the_first_on():
    """Any six points of bases 2 and 3 fall one each into halves of the rows, thirds of the columns."""
    order = np.array(halton_order(((8, 9),)))
    assert sorted(order) == list(range(72))
    for start in range(0, 72, 6):
        row, column = np.divmod(order[start : start + 6], 9)
        assert {(r // 4, c // 3) for r, c in zip(row, column)} == {(r, c) for r in range(2) for c in range(3)}


@pytest.mark.parametrize("maps", [((1, 1),), ((3, 7),), ((4, 4), (4, 4)), ((1, 1), (1, 2), (3, 5))], ids=str)
def test_the_halton_order_leaves_nothing_out(maps):
    assert sorted(halton_order(maps)) == list(range(sum(rows * columns for rows, columns in maps)))


def test_by_default_a_picture_takes_twelve_forwards():
    path = path_of()
    for steps, wanted in ((None, 12), (20, 20), (3, 3)):
        watcher = Watcher(path, torch.zeros(64, 3))
        codes = watcher.sample((8, 8), steps=steps)
        assert len(watcher.masked) == wanted
        assert codes.min() >= 0
    watcher = Watcher(path_of(forwards=50), torch.zeros(64, 3))
    watcher.sample((8, 8))
    assert len(watcher.masked) == 50


def test_the_surest_codes_come_first():
    path = path_of(order="confidence", choice_temperature=0, temperature=0, schedule="linear")
    sure = torch.tensor([0.1, 2.0, 0.5, 1.0])
    watcher = Watcher(path, sure[:, None] * torch.tensor([[0.0, 0.0, 1.0]]))
    assert watcher.sample((2, 2), steps=4).tolist() == [[[2]] * 4]
    filled = [set((~masked[0]).nonzero().flatten().tolist()) for masked in watcher.masked]
    assert filled == [set(), {1}, {1, 3}, {1, 3, 2}]


def test_the_noise_of_the_choice_falls_in_a_straight_line(monkeypatch):
    """And does not compound: each forward has its share of the first temperature, whatever came before."""
    path = path_of(order="confidence", choice_temperature=8.0)
    noises, noisy = [], path._noisy

    def noted(sure, generators, left):
        found = noisy(sure, generators, left)
        noises.append((found - sure).std())
        return found

    monkeypatch.setattr(path, "_noisy", noted)
    Watcher(path, torch.zeros(900, 3)).sample((30, 30), rows=4, steps=4)
    gumbel = math.pi / math.sqrt(6)
    wanted = torch.tensor([6.0, 4.0, 2.0, 0.0]) * gumbel
    torch.testing.assert_close(torch.stack(noises), wanted, rtol=0.06, atol=1e-4)


def test_orders_at_random_differ_by_row():
    watcher = Watcher(path_of(order="random"), torch.zeros(64, 3))
    watcher.sample((8, 8), rows=2, steps=2)
    assert (watcher.masked[1][0] != watcher.masked[1][1]).any()


# ---- guidance -------------------------------------------------------------------------------------

FULL, NULL = torch.tensor([0.0, 1.0, -0.5]), torch.tensor([0.8, 0.0, 0.0])


def shares_of(codes):
    """How often each shade occurs in codes (n,)."""
    return torch.bincount(codes, minlength=3) / len(codes)


def guided_odds(scale):
    """Of the definition: p(code | text)^scale p(code)^(1 - scale)."""
    odds = FULL.softmax(-1) ** scale * NULL.softmax(-1) ** (1 - scale)
    return odds / odds.sum()


@pytest.mark.parametrize("ramp", [False, True])
def test_guidance_is_of_log_probabilities(ramp):
    """Two codes one after the other: a ramp has half of the guidance at the first."""
    path = path_of(schedule="linear", guidance_ramp=ramp)
    watcher = Watcher(path, FULL.expand(2, -1), NULL.expand(2, -1))
    codes = watcher.sample((1, 2), rows=4000, guidance=Guidance(3.0))
    first, second = halton_order(((1, 2),))
    for at, scale in ((first, 2.0 if ramp else 3.0), (second, 3.0)):
        torch.testing.assert_close(shares_of(codes[:, at, 0]), guided_odds(scale), atol=0.03, rtol=0)


def test_guidance_keeps_to_its_interval():
    """Of the share that is hidden: from one half down, nothing is guided."""
    path = path_of(schedule="linear")
    watcher = Watcher(path, FULL.expand(2, -1), NULL.expand(2, -1))
    codes = watcher.sample((1, 2), rows=4000, guidance=Guidance(3.0, interval=(0.5, 1.0)))
    assert watcher.guided == [True, False]
    first, second = halton_order(((1, 2),))
    torch.testing.assert_close(shares_of(codes[:, first, 0]), guided_odds(3.0), atol=0.03, rtol=0)
    torch.testing.assert_close(shares_of(codes[:, second, 0]), FULL.softmax(-1), atol=0.03, rtol=0)


# ---- training -------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", SHARES)
def test_training_hides_what_the_schedule_says(schedule):
    path = path_of(schedule=schedule)
    pictures = 600
    codes = [torch.arange(100)[:, None] % 3 for _ in range(pictures)]
    seen = path.corrupt(codes, [(10, 10)] * pictures, torch.Generator().manual_seed(0))
    hidden = (seen.inputs == MASKED).float().reshape(pictures, 100)
    torch.testing.assert_close(hidden.mean(1), seen.times)
    known = seen.inputs != MASKED
    assert torch.equal(seen.inputs[known], seen.target[known])
    assert torch.equal(seen.target, torch.cat(codes))
    wanted = np.sort(SHARES[schedule]((np.arange(pictures) + 0.5) / pictures))
    assert np.abs(np.sort(seen.times.numpy()) - wanted).max() < 0.07  # Kolmogorov-Smirnov along the shares
    # All places alike.
    assert (hidden.mean(0) - hidden.mean()).abs().max() < 0.1


@pytest.mark.parametrize("weighting", ["even", "inverse_ratio"])
@pytest.mark.parametrize("schedule", SCHEDULES)
@torch.no_grad()
def test_a_picture_costs_the_mean_of_its_masked_codes(schedule, weighting):
    path = path_of(schedule=schedule, weighting=weighting)
    path.reset_parameters()  # every code as likely as any: ln 3 nats each
    pictures = 3000
    codes = [torch.arange(64)[:, None] % 3 for _ in range(pictures)]
    seen = path.corrupt(codes, [(8, 8)] * pictures, torch.Generator().manual_seed(0))
    loss = path.loss(torch.randn(len(seen.inputs), path.mask.numel()), seen)
    assert (loss[seen.inputs[:, 0] != MASKED] == 0).all()
    each = loss.reshape(pictures, 64).mean(1)
    if weighting == "inverse_ratio":
        torch.testing.assert_close(each, torch.full_like(each, math.log(3)))
    else:
        torch.testing.assert_close(each / seen.times, (each / seen.times)[:1].expand_as(each))
        assert each.mean().item() == pytest.approx(math.log(3), rel=0.05)


@torch.no_grad()
def test_codes_of_a_cell_are_hidden_together_and_said_one_after_another():
    """By hand, of 2 x 2 cells with two codes each."""
    path = path_of(codec_of("residual"))
    cells = (2, 2)
    (truth,) = path.truth(None, torch.tensor([[1, 2, 3, 4, 5, 6, 7, 0]]), None, cells)
    assert truth.tolist() == [[1, 5], [2, 6], [3, 7], [4, 0]]
    seen = path.corrupt([truth], [cells], torch.Generator().manual_seed(0))
    hidden = seen.inputs[:, 0] == MASKED
    assert torch.equal(seen.inputs == MASKED, hidden[:, None].expand(-1, 2)) and 0 < hidden.sum() < 4
    assert path.target_layout(cells).places.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    states, seen.weights = torch.randn(4, path.mask.numel()), torch.tensor([0.0, 1.0, 0.0, 2.0])
    wanted = torch.zeros(4)
    for cell in (1, 3):
        first, second = truth[cell]
        known = path.latent_in(path.entries[first]) + path.symbol_in.weight[first]
        for said, code in (
            (path.heads[0](states[cell]), first),
            (path.heads[1](path.layers[0](states[cell], known)), second),
        ):
            wanted[cell] -= said.log_softmax(-1)[code] / 2 * seen.weights[cell]
    torch.testing.assert_close(path.loss(states, seen), wanted)


@torch.no_grad()
def test_a_cell_is_read_as_what_its_codes_add_up_to():
    path = path_of(codec_of("residual"))
    found = path._embed(torch.tensor([[3, 2], [MASKED, MASKED]]), torch.zeros(2, dtype=torch.long))
    second = path.vocabulary + 2  # the codebook of the second map
    known = path.latent_in(path.entries[3] + path.entries[second])
    known += path.symbol_in.weight[3] + path.symbol_in.weight[second] + path.map_in.weight[0]
    torch.testing.assert_close(found, torch.stack([known, path.mask + path.map_in.weight[0]]))


@pytest.mark.parametrize("weighting", ["even", "inverse_ratio"])
def test_training_hides_the_last_maps_and_asks_for_the_first_of_them(weighting):
    """What a map says of an unknown sum of those before it cannot be learned."""
    path = path_of(codec_of("multi_scale"), weighting=weighting)
    grid, pictures = (8, 8), 3000
    maps = path.places(grid)[0]
    codes = [torch.zeros(len(maps), 1, dtype=torch.long)] * pictures
    seen = path.corrupt(codes, [grid] * pictures, torch.Generator().manual_seed(0))
    hidden, weights = (part.reshape(pictures, -1) for part in (seen.inputs == MASKED, seen.weights))
    asked = 0
    for chosen, weight in zip(hidden, weights):
        first = maps[chosen].min()
        assert chosen[maps > first].all() and not chosen[maps < first].any()
        assert torch.equal(weight > 0, chosen & (maps == first))
        assert len(weight[weight > 0].unique()) == 1
        asked += (weight > 0).sum().item()
    each = weights.mean(1) if weighting == "inverse_ratio" else weights.mean()[None]
    torch.testing.assert_close(each, torch.ones_like(each), rtol=0.03, atol=0)
    sizes = torch.bincount(maps).tolist()
    assert asked / hidden.numel() == pytest.approx(mean_asked("cosine", tuple(sizes)), rel=0.03)
    torch.testing.assert_close(hidden.float().mean(1), seen.times)


@pytest.mark.parametrize("order", ["halton", "random", "confidence"])
@torch.no_grad()
def test_drawing_fills_in_a_map_after_the_other(order, monkeypatch):
    path = path_of(codec_of("multi_scale"), order=order)
    grid, seen = (8, 8), []
    maps = path.places(grid)[0]
    embed = path._embed

    def noted(codes, numbers):
        seen.append(codes[..., 0] == MASKED)
        return embed(codes, numbers)

    monkeypatch.setattr(path, "_embed", noted)

    def look(embeds, guided):
        assert embeds.shape[1] == len(maps)
        return torch.randn(embeds.shape, generator=torch.Generator().manual_seed(len(seen))), {}

    generators = [torch.Generator().manual_seed(n) for n in range(3)]
    assert path.sample(look, None, grid, generators, PLAIN).min() >= 0
    assert maps.max() < len(seen) <= 12
    seen.append(torch.zeros_like(seen[0]))
    for before, after in pairwise(seen):
        for filled, still in zip(before & ~after, before):
            assert filled.any() and (maps[filled] == maps[still].min()).all()
    seen.clear()
    path.sample(look, None, grid, generators, PLAIN, steps=1)
    assert len(seen) == maps.max() + 1  # a map a forward at least


def test_sets_end_where_parts_end():
    assert within([1, 2, 6, 7], [4, 4, 8]) == [1, 2, 1, 4, 1, 7]
    assert within([16], [4, 4, 8]) == [4, 4, 8]
    assert within([4, 12], [16]) == [4, 12]


@pytest.mark.parametrize("schedule", ["cosine", "arccos", "linear"])
@pytest.mark.parametrize("sizes", [[64], [16] * 4, [1, 4, 9, 16]])
def test_there_are_as_many_sets_as_asked_for(schedule, sizes):
    for forwards in range(len(sizes), sum(sizes) + 1):
        sets = cut(schedule, sum(sizes), forwards, sizes)
        assert min(sets) > 0 and sum(sets) == sum(sizes) and {*np.cumsum(sizes)} <= {*np.cumsum(sets)}
        assert len(sets) == forwards
    assert cut(schedule, sum(sizes), 1, sizes) == sizes


def test_what_does_not_go_with_it_is_refused():
    with pytest.raises(UserError, match="codes"):
        tiny_model(path="masked")
    with pytest.raises(UserError, match="patch_size"):
        tiny_model(0, codec_of("vq"), path="masked", patch_size=2)
    with pytest.raises(ValueError, match="order confidence"):
        path_of(choice_temperature=1.0)
    with pytest.raises(ValueError, match="schedules"):
        path_of(schedules="cosine")


# ---- the right distribution -----------------------------------------------------------------------

SUBSETS = np.array(list(product([False, True], repeat=4)))  # (16, 4) which cells are known
ORDERS = list(permutations(range(4)))


@torch.no_grad()
def said(model) -> np.ndarray:
    """(81, 16, 4, 3) odds of each cell of every picture, whatever is known of it: what training computes."""
    documents = [unasked(model.codec.picture(codes, (2, 2))) for codes in EVERY.repeat(16, axis=0)]
    known = torch.from_numpy(np.tile(SUBSETS, (81, 1))).reshape(-1, 1)
    found = []

    def corrupt(truths, grids, generator):
        codes, owner = flatten(truths)
        maps, weights = torch.zeros_like(codes[:, 0]), torch.ones(len(codes))
        return MaskedCodes(codes.where(known, MASKED), codes, owner, torch.ones(len(truths)), maps, weights)

    def loss(hidden, corrupted):
        found.append(hidden)
        return hidden.sum(-1)

    path = model.path
    with mock.patch.object(path, "corrupt", corrupt), mock.patch.object(path, "loss", loss):
        model(pack_sequences([layout(d, tokenizer(), path, 1) for d in documents]), torch.Generator())
    return path.heads[0](found[0]).softmax(-1).reshape(81, 16, 4, 3).double().numpy()


def odds_of(odds: np.ndarray, sets: list[tuple[int, ...]]) -> np.ndarray:
    """(81,) how often each picture should come out if cells are filled in by these sets, given `said`."""
    total, known = np.ones(81), np.zeros(4, dtype=bool)
    for cells in sets:
        row = int((known == SUBSETS).all(-1).argmax())
        for cell in cells:
            total *= odds[np.arange(81), row, cell, EVERY[:, cell]]
        known[list(cells)] = True
    return total


def independent(odds: np.ndarray) -> np.ndarray:
    """(81,) the distribution of pictures whose cells are drawn apart, each as often as in `odds`."""
    cells = odds.reshape(3, 3, 3, 3)
    alone = [cells.sum(tuple({0, 1, 2, 3} - {axis})) for axis in range(4)]
    return np.einsum("a,b,c,d->abcd", *alone).reshape(81)


def random_model(**options):
    """A model with random weights, of pictures that it draws neither all alike nor always the same."""
    return tiny_model(5, ToyCodec(SHADES, channels=1), path="masked", path_options=options)


def often(model, count, steps) -> np.ndarray:
    """(81,) how often each picture occurs among so many."""
    return frequencies(drawn(model, None, (2, 2), count, steps=steps), EVERY)


HALTON = halton_order(((2, 2),))


@pytest.mark.parametrize(
    ("options", "steps", "orders"),
    [
        ({}, 4, [[(cell,) for cell in HALTON]]),
        ({}, 1, [[HALTON]]),
        ({"schedule": "linear"}, 2, [[HALTON[:2], HALTON[2:]]]),
        ({"order": "random"}, 4, [[(cell,) for cell in order] for order in ORDERS]),
        ({"order": "random", "schedule": "linear"}, 2, [[order[:2], order[2:]] for order in ORDERS]),
        # So much noise that nothing else is left of the confidence.
        ({"order": "confidence", "choice_temperature": 1e6}, 4, [[(c,) for c in order] for order in ORDERS]),
    ],
    ids=["halton", "at once", "halton, two sets", "random", "random, two sets", "confidence"],
)
def test_a_random_model_draws_what_it_says(options, steps, orders):
    """Samples against the odds of all 81 pictures, a set of cells after the other."""
    model = random_model(**options)
    with torch.no_grad():  # let cells depend on one another
        model.path.symbol_in.weight *= 8
        model.path.heads[0].rows.weight *= 2.5
        model.path.heads[0].place.weight.zero_()
    odds = said(model)
    wanted = np.mean([odds_of(odds, sets) for sets in orders], axis=0)
    assert wanted.sum() == pytest.approx(1, abs=1e-6)
    assert fits(often(model, 4000, steps), wanted)
    if steps > 1:
        assert not fits(np.round(4000 * independent(wanted)), wanted)  # the test would see cells drawn apart


OFTEN = np.array([4, 4, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1])


def test_a_trained_model_draws_the_right_distribution():
    """A dozen pictures, some four times as often as others, a code a forward in two orders.

    Total variation of 2,000 samples at most 0.1; 0.03 of it is what 2,000 samples leave to chance.  Cells
    drawn apart are 0.6 away.
    """
    model = fresh_model("masked", ToyCodec(SHADES), times={"copies": 8})
    chosen = np.random.default_rng(0).choice(81, len(OFTEN), replace=False)
    shown = [unasked(model.codec.picture(codes, (2, 2))) for codes in EVERY[chosen.repeat(OFTEN)]]
    train(model, shown, 1000)
    wanted = np.zeros(81)
    wanted[chosen] = OFTEN / OFTEN.sum()
    for order in ("halton", "random"):
        model.path.options = MaskedPath.Options(order=order)
        assert distance(often(model, 2000, 4), wanted) < 0.1
    assert distance(independent(wanted), wanted) > 0.6


def test_codes_of_a_cell_are_drawn_together():
    """Codes of a cell that always agree: drawn apart they would differ two times in three."""
    model = fresh_model("masked", ToyCodec({"kind": "residual", "codes": 3, "depth": 2}), times={"copies": 4})
    table = np.array([[0, 1, 0, 1], [1, 0, 1, 0], [2, 2, 2, 2]])  # the first map, then the second
    train(model, [unasked(model.codec.picture(codes, (1, 2))) for codes in table], 400)
    counts = frequencies(drawn(model, None, (1, 2), 600, steps=2), table)
    assert counts.sum() >= 590
    assert distance(counts, np.full(3, 1 / 3)) < 0.06


def test_temperature_sharpens_each_code():
    """One forward at temperature 1/2: the square of each cell's odds."""
    model = random_model(temperature=0.5)
    alone = odds_of(said(model), [HALTON]) ** 2
    assert fits(often(model, 4000, 1), alone / alone.sum())


def test_the_number_of_masks_can_be_changed_in_a_model_that_is_there():
    model = random_model()
    config = model.config.model_copy(update={"times": model.config.times.model_copy(update={"copies": 5})})
    apply_settings(model, Settings.of(config))
    assert model.path.target_layout((2, 2)).copies == 5
