"""Pixels that an edit leaves alone: exact where nothing changed, the drawing's where something did."""

import numpy as np
import pytest
import torch

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
    share = ((kept - signal) * (drawn - signal)).sum(1)[0, 5:12, 5:12]
    assert (share > -1e-6).all()  # in between, a mixture


def test_a_difference_is_told_from_what_the_codec_makes_of_the_picture_before():
    codec, before = Blurred(4), picture(np.random.default_rng(0), 32, 32)
    again = codec.reconstruct(to_signal(before[None]))
    for by, expected in ((0.09, to_signal(before[None])), (0.21, (again + 0.42).clamp(max=9))):
        kept = keep_unchanged(again + 2 * by, [before], codec, 0.1)
        torch.testing.assert_close(kept, expected)
    half = keep_unchanged(again + 0.3, [before], codec, 0.1)
    torch.testing.assert_close(half, (to_signal(before[None]) + again + 0.3) / 2)


def test_without_a_picture_of_its_size_nothing_is_kept():
    codec, rng = PixelPatches(4), np.random.default_rng(0)
    drawn = torch.rand(2, 3, 16, 16)
    assert torch.equal(keep_unchanged(drawn, [None, picture(rng, 16, 32)], codec, 0.5), drawn)
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
    for keep in (0.99, 0.0):
        model = external(sampling={"steps": 1, "guidance": 1.0, "keep": keep})
        got = draw_outside(model.model, [asked], (16, 16), [torch.Generator()], Guidance())[0]
        assert np.array_equal(got, shown) == (keep > 0)
