"""Places of image positions inside their picture."""

import torch

from unimodal.model.places import Places
from unimodal.model.rope import rotate


def grid(start: int, rows: int, columns: int) -> torch.Tensor:
    return torch.tensor([[(start, start + r, start + c) for r in range(rows) for c in range(columns)]])


def test_text_is_left_alone_and_pictures_get_the_same_wherever_they_stand():
    torch.manual_seed(0)
    places, nothing = Places(32), torch.zeros(1, 6, 32)
    here, there = (places(nothing, grid(at, 2, 3), torch.ones(1, 6, dtype=torch.bool)) for at in (0, 71))
    assert torch.equal(here, there)
    text = torch.arange(6).repeat(3, 1).T[None]
    assert torch.equal(places(nothing, text, torch.zeros(1, 6, dtype=torch.bool)), nothing)


def test_every_place_of_a_large_picture_is_another():
    torch.manual_seed(0)
    position = grid(5, 40, 30)
    is_image = torch.ones(position.shape[:2], dtype=torch.bool)
    said = Places(64)(torch.zeros(1, 1200, 64), position, is_image)[0]
    distance = torch.cdist(said, said) + torch.eye(1200) * 9
    assert distance.min() > 1e-3


def test_a_rotation_that_is_compiled_is_one_graph_and_the_same():
    torch.manual_seed(0)
    x, cos, sin = torch.randn(2, 5, 3, 8), torch.randn(2, 5, 1, 4), torch.randn(2, 5, 1, 4)
    told = torch._dynamo.explain(rotate)(x, cos, sin)
    assert (told.graph_count, told.graph_break_count) == (1, 0)
    torch.testing.assert_close(torch.compile(rotate, backend="eager")(x, cos, sin), rotate(x, cos, sin))
