"""Places of image positions inside their picture."""

import torch

from unimodal.model.places import Places


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
