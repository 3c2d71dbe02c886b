"""Patches against indexing by hand, and their inverse."""

import pytest
import torch

from unimodal.images.patches import from_tokens, to_tokens


@pytest.mark.parametrize(("cells", "patch"), [((4, 6), 2), ((3, 5), 1), ((6, 3), 3), ((2, 8), 2)])
def test_inverse_is_exact_for_any_grid(cells, patch):
    latents = torch.randn(2, 5, *cells)
    tokens = to_tokens(latents, patch)
    assert tokens.shape == (2, cells[0] * cells[1] // patch**2, 5 * patch**2)
    assert torch.equal(from_tokens(tokens, cells, patch), latents)


def test_positions_go_row_by_row_and_hold_one_square_each():
    latents = torch.randn(1, 3, 4, 6)
    tokens = to_tokens(latents, 2)
    for position in range(6):
        row, column = divmod(position, 3)
        square = latents[0, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        assert torch.equal(tokens[0, position], square.flatten())


@pytest.mark.parametrize(
    ("tokens", "cells", "patch"), [((1, 6, 12), (4, 4), 2), ((1, 4, 12), (5, 4), 2), ((1, 4, 10), (4, 4), 2)]
)
def test_wrong_shapes_are_refused(tokens, cells, patch):
    with pytest.raises(ValueError):
        from_tokens(torch.zeros(tokens), cells, patch)


def test_a_grid_that_cannot_be_cut_is_refused():
    with pytest.raises(ValueError, match="4x5"):
        to_tokens(torch.zeros(1, 3, 4, 5), 2)
