"""What an edit changes counts more, and what is not an edit counts as ever."""

import math

import numpy as np
import torch

from tests.documents import picture
from tests.external.make import external_model
from unimodal.data.document import Document, Image, Text, Turn
from unimodal.external.changes import change_weights


def test_changed_cells_weigh_more_the_fewer_they_are():
    before = picture(np.random.default_rng(0), 8, 16)
    after = before.copy()
    after[5, 13] = 255 - after[5, 13]
    expected = torch.ones(2, 4)
    expected[1, 3] = math.log2(8) + 1
    torch.testing.assert_close(change_weights(before, after, 4), expected)
    after[0, 0] = 255 - after[0, 0]
    expected[0, 0] = expected[1, 3] = math.log2(8 / 2) + 1
    torch.testing.assert_close(change_weights(before, after, 4), expected)


def test_nothing_changed_everything_changed_and_no_edit_weigh_one():
    before = picture(np.random.default_rng(0))
    for other in (before, 255 - before, None, before[:4]):
        assert torch.equal(change_weights(other, before, 4), torch.ones(2, 2))
    grain = before.astype(int) + np.random.default_rng(1).integers(-3, 4, before.shape)
    assert torch.equal(change_weights(grain.clip(0, 255).astype(np.uint8), before, 4), torch.ones(2, 2))


def test_losses_are_weighted_where_asked(monkeypatch):
    model = external_model().train()
    before = picture(np.random.default_rng(0))
    after = before.copy()
    after[0, 0] = 255 - after[0, 0]
    asked = [Document((Turn("user", (Image(before), Text("make it green"))),)), Document((Turn("user", ()),))]
    plain = model(asked, [after, after], torch.Generator().manual_seed(0))
    model.changed_area = True
    weighted = model(asked, [after, after], torch.Generator().manual_seed(0))
    assert weighted.image_each[0] > plain.image_each[0]
    torch.testing.assert_close(weighted.image_each[1], plain.image_each[1])
    more = (weighted.image - plain.image).item()
    error = model._error
    seen = []
    monkeypatch.setattr(model, "_error", lambda *args: seen.append(error(*args)) or seen[-1])
    model.changed_area = False
    model(asked, [after, after], torch.Generator().manual_seed(0))
    assert math.isclose(more, 2 * seen[0][0][0, 0, 0].item(), rel_tol=1e-4)
