"""Every connector through the same gauntlet, and each one's own claims against an oracle."""

import pytest
import torch
from torch.nn.functional import cosine_similarity, rms_norm

from unimodal.connectors import CONNECTORS, load_connector
from unimodal.connectors.connector import Ends, Tap
from unimodal.errors import UserError
from unimodal.training.optimizers import decayed_names

ENDS = Ends(layers=3, width=16, seen=12, condition=20, scale=0.5)
SMALL = {"count": 5, "width": 24, "heads": 2}
CASES = {
    "queries": ("queries", SMALL | {"depth": 2}),
    "queries-behind": ("queries", {"count": 5, "heads": 2, "depth": 1, "order": "projection_first"}),
    "queries-residual": ("queries", SMALL | {"depth": 1, "residual": True, "causal": True}),
    "qformer": ("qformer", SMALL | {"depth": 3}),
    "hidden": ("hidden", {}),
    "hidden-mlp": ("hidden", {"projection": "mlp", "refiner": 2, "heads": 2}),
    "prefilled": ("prefilled", {"side": 2, "width": 24}),
}


def build(name, tap_layer=-1, seed=0):
    kind, options = CASES[name]
    torch.manual_seed(seed)
    return load_connector(kind)(ENDS, tap_layer, options)


def randomised(connector):
    """No weight is zero, so that every part matters."""
    for weight in connector.parameters():
        torch.nn.init.normal_(weight, 1.0 if weight.dim() == 1 and weight.mean() > 0.4 else 0.0, 0.2)
    return connector


def told(connector, rows=3, length=7, seed=1):
    """Hidden states (B, T, K, D) and a ragged mask, as a reader would give them."""
    generator = torch.Generator().manual_seed(seed)
    taps = len(connector.tap.layers)
    if connector.appended is not None:
        length = connector.appended.count
    hidden = torch.randn(rows, length, taps, ENDS.width, generator=generator)
    mask = torch.ones(rows, length, dtype=torch.bool)
    if connector.appended is None:
        for row in range(1, rows):
            mask[row, length - row :] = False
    return hidden, mask


def test_every_connector_has_a_case():
    assert {kind for kind, _ in CASES.values()} == set(CONNECTORS)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("tap_layer", [-1, [0, 2], "mix"])
def test_condition_has_the_denoisers_width_and_size(name, tap_layer):
    connector = build(name, tap_layer)
    cond, mask = connector(*told(connector))
    assert cond.shape == (*mask.shape, ENDS.condition)
    sizes = cond[mask].square().mean(-1).sqrt()
    torch.testing.assert_close(sizes, torch.full_like(sizes, ENDS.scale), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", CASES)
def test_a_batch_equals_its_singles_and_padding_is_not_seen(name):
    connector = randomised(build(name))
    hidden, mask = told(connector)
    noisy = torch.where(mask[..., None, None], hidden, 100.0)
    cond, cond_mask = connector(noisy, mask)
    for row, (one, real) in enumerate(zip(hidden, mask)):
        alone, _ = connector(one[real][None], real[real][None])
        torch.testing.assert_close(cond[row][cond_mask[row]], alone[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_gradients_reach_every_weight(name):
    connector = randomised(build(name, "mix"))
    hidden, mask = told(connector)
    if connector.appended is not None:
        embeds = torch.randn(3, 4, ENDS.width)
        asked = connector.appended.make(embeds, torch.ones(3, 4, dtype=torch.bool))
        assert asked.shape == (3, connector.appended.count, ENDS.width)
        hidden = hidden + asked[:, :, None]  # a reader whose answer is the question
    cond, _ = connector(hidden, mask)
    cond.square().mul(torch.randn(cond.shape)).sum().backward()
    for key, weight in connector.named_parameters():
        assert weight.grad is not None and weight.grad.abs().sum() > 0, key


def test_queries_are_a_parameter_of_their_own_that_is_never_decayed():
    connector = build("queries")
    assert isinstance(connector.queries, torch.nn.Parameter)
    assert "queries" not in decayed_names(connector)
    control = load_connector("queries")(ENDS, -1, CASES["queries"][1] | {"learned": False})
    assert "queries" not in dict(control.named_parameters())
    assert "queries" in control.state_dict()


def test_residual_queries_look_at_the_real_prompt_alone():
    connector = randomised(build("queries-residual"))
    embeds, mask = torch.randn(2, 6, ENDS.width), torch.ones(2, 6, dtype=torch.bool)
    mask[1, 4:] = False
    asked = connector.appended.make(embeds, mask)
    torch.testing.assert_close(asked[1], connector.appended.make(embeds[1:, :4], mask[1:, :4])[0])
    assert not torch.allclose(asked[0], asked[1])
    fresh = build("queries-residual")
    torch.testing.assert_close(fresh.appended.make(embeds, mask)[0], fresh.queries)


def test_qformer_looks_at_the_reader_every_so_many_layers():
    connector = load_connector("qformer")(
        ENDS, -1, {"count": 2, "width": 8, "depth": 5, "heads": 2, "every": 2}
    )
    assert [block.cross is not None for block in connector.encoder.blocks] == [True, False, True, False, True]


def test_a_tap_gives_one_layer_several_or_a_mix():
    hidden = torch.randn(2, 3, 4, ENDS.width) * torch.tensor([1.0, 3.0, 10.0, 30.0])[:, None]
    even = rms_norm(hidden, (ENDS.width,))
    one, several, mix = (Tap(where, 3, ENDS.width) for where in (-2, [0, -1], "mix"))
    assert (one.layers, several.layers, mix.layers) == ([2], [0, 3], [0, 1, 2, 3])
    torch.testing.assert_close(one(hidden[:, :, [2]]), even[:, :, 2])
    torch.testing.assert_close(several(hidden[:, :, [0, 3]]), torch.cat([even[:, :, 0], even[:, :, 3]], -1))
    torch.testing.assert_close(mix(hidden), even.mean(2))
    with torch.no_grad():
        mix.weight.copy_(torch.tensor([0.0, 100.0, 0.0, 0.0]))
    torch.testing.assert_close(mix(hidden), even[:, :, 1])


@pytest.mark.parametrize("where", [4, -5, [0, 4], [], [3, -1]])
def test_a_layer_that_is_not_there_is_refused(where):
    with pytest.raises(UserError, match="tap_layer"):
        Tap(where, 3, ENDS.width)


def test_regression_is_half_squared_error_and_half_cosine_distance():
    connector = randomised(build("prefilled"))
    hidden, _ = told(connector)
    pictures = [torch.randn(16, ENDS.seen), torch.randn(8, ENDS.seen), torch.randn(4, ENDS.seen)]
    seen = list(zip(pictures, [(4, 4), (2, 4), (2, 2)]))
    got = connector.regression(hidden, seen)
    said = connector.head(connector.tap(hidden))
    for row, (picture, grid) in enumerate(seen):
        cells = picture.reshape(*grid, ENDS.seen)
        high, wide = grid[0] // 2, grid[1] // 2
        blocks = [
            cells[i * high : (i + 1) * high, j * wide : (j + 1) * wide].mean((0, 1))
            for i in range(2)
            for j in range(2)
        ]
        truth = rms_norm(torch.stack(blocks), (ENDS.seen,))
        expected = 0.5 * (said[row] - truth).square().mean() + 0.5 * (
            1 - cosine_similarity(said[row], truth, dim=-1).mean()
        )
        torch.testing.assert_close(got[row], expected)
