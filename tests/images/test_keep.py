"""Pixels that an edit leaves alone: exact where nothing changed, the drawing's where something did."""

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from tests.documents import picture, tokenizer
from tests.external.make import external
from tests.models import tiny_model
from tests.paths.cases import codec_of
from unimodal.data.document import Document, Image, Text, Turn
from unimodal.diffusion.guidance import Guidance
from unimodal.external.draw import draw as draw_outside
from unimodal.generation.context import read_documents, start_image
from unimodal.generation.draw import draw
from unimodal.images.codec import PixelPatches
from unimodal.images.keep import keep_unchanged
from unimodal.images.signal import to_pixels, to_signal
from unimodal.model.config import Sampling


class Blurred(PixelPatches):
    """A codec that loses much: what it gives back is darker, and flat in squares."""

    def from_raw(self, latents):
        pixels = super().from_raw(latents)
        return 0.8 * pixels.unflatten(2, (-1, 4)).mean(3, keepdim=True).expand(-1, -1, -1, 4, -1).flatten(
            2, 3
        )


@pytest.mark.parametrize("codec", [Blurred(4), codec_of("residual")])
def test_what_did_not_change_is_kept_exactly(codec):
    before = picture(np.random.default_rng(0), 32, 32)
    signal = to_signal(before[None])
    drawn = codec.reconstruct(signal)
    assert not np.array_equal(to_pixels(drawn)[0], before)
    drawn[:, :, :8, :8] = -drawn[:, :, :8, :8].sign()
    kept = keep_unchanged(drawn, [before], codec, 0.05)
    assert np.array_equal(to_pixels(kept)[0, 12:, 12:], before[12:, 12:])
    torch.testing.assert_close(kept[:, :, 2:6, 2:6], drawn[:, :, 2:6, 2:6])
    whose = [(kept - other).abs().amax(1) < 1e-6 for other in (drawn, signal)]
    assert (whose[0] | whose[1]).all()  # no pixel is a mixture


@pytest.mark.parametrize(("by", "changes"), [(0.09, False), (0.29, False), (0.31, True)])
def test_a_difference_is_told_from_what_the_codec_makes_of_the_picture_before(by, changes):
    """The same everywhere: nothing changed, though it is more than the least, until it is much."""
    codec, before = Blurred(4), picture(np.random.default_rng(0), 32, 32)
    drawn = codec.reconstruct(to_signal(before[None])) + 2 * by
    kept = keep_unchanged(drawn, [before], codec, 0.1)
    torch.testing.assert_close(kept, drawn if changes else to_signal(before[None]))


def test_an_area_that_differs_much_somewhere_is_the_drawings_as_far_as_it_differs():
    """Against areas found one pixel after another, on differences with many of them."""
    codec, rng = PixelPatches(4), np.random.default_rng(3)
    before = picture(rng, 64, 64)
    signal = to_signal(before[None])
    coarse = torch.from_numpy(rng.random((1, 1, 8, 8))).float() ** 2
    drawn = signal + interpolate(coarse, size=(64, 64), mode="bicubic").clamp(0, 1)
    kept = keep_unchanged(drawn, [before], codec, 0.1)

    differs = ((drawn - signal).amax(1) / 2)[0].numpy()
    mean = np.array(
        [[differs[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3].mean() for x in range(64)] for y in range(64)]
    )
    left = {(y, x) for y, x in np.argwhere(mean > 0.1)}
    changed, areas = np.zeros((64, 64), bool), []
    while left:
        area, edge = [], [left.pop()]
        while edge:
            y, x = edge.pop()
            area.append((y, x))
            near = {(y + a, x + b) for a in (-1, 0, 1) for b in (-1, 0, 1)} & left
            left -= near
            edge += near
        much = any(mean[at] > 0.3 for at in area)
        areas.append(much)
        for at in area:
            changed[at] = much
    assert {True, False} == set(areas)  # some of either kind
    expected = torch.where(torch.from_numpy(changed), drawn, signal)
    torch.testing.assert_close(kept, expected)


def test_without_a_picture_of_its_size_nothing_is_kept():
    codec, rng = PixelPatches(4), np.random.default_rng(0)
    drawn = torch.rand(2, 3, 16, 16)
    assert torch.equal(keep_unchanged(drawn, [None, picture(rng, 16, 32)], codec, 0.3), drawn)
    assert torch.equal(keep_unchanged(drawn, [picture(rng, 16, 16)] * 2, codec, 0.0), drawn)


def test_a_model_that_copies_gives_back_the_very_picture():
    codec = Blurred(4)
    model = tiny_model(0, codec, reference="cells", sampling=Sampling(steps=2, guidance=1.0, keep=0.05))
    torch.nn.init.constant_(model.path.copied.bias, 40.0)
    size = 2 * model.multiple
    shown = picture(np.random.default_rng(1), size, size)
    asked = Document((Turn("user", (Image(shown), Text("leave it"))),))
    for keep in (0.05, 0.0):
        sampling = model.config.sampling.model_copy(update={"keep": keep})
        model.config = model.config.model_copy(update={"sampling": sampling})
        context = read_documents(model, tokenizer(), [asked])
        start_image(model, tokenizer(), context, (2, 2))
        got = draw(model, tokenizer(), context, [asked], (2, 2), [torch.Generator()], Guidance(), 2)[0]
        assert np.array_equal(got, shown) == (keep > 0)


def test_external_models_keep_as_well():
    """A threshold that no difference reaches gives the picture back; none gives what was drawn."""
    shown = picture(np.random.default_rng(1), 16, 16)
    asked = Document((Turn("user", (Image(shown), Text("leave it"))),))
    for keep in (0.33, 0.0):
        model = external(sampling={"steps": 1, "guidance": 1.0, "keep": keep})
        got = draw_outside(model.model, [asked], (16, 16), [torch.Generator()], Guidance())[0]
        assert np.array_equal(got, shown) == (keep > 0)
