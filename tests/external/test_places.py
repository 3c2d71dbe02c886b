"""Where things are: what an edit does not change stays where it was, from the file to the drawn picture."""

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from PIL import ImageFilter
from torch import nn

from tests.external.make import external
from unimodal.data.rows import parse_row
from unimodal.denoisers.denoiser import as_channels, with_channels
from unimodal.images.patches import from_tokens, to_tokens
from unimodal.images.signal import to_pixels
from unimodal.model.config import DropTable
from unimodal.training.drawn_rows import DrawnRows

ODD = (75, 53)  # rows and columns
WHOLE = DropTable(text=0.0, image=0.0, both=0.0)


class Keeps(nn.Module):
    """A denoiser that draws the reference as it was given it, as channels or as tokens."""

    multiple = 1

    def __init__(self, latents: str):
        super().__init__()
        self.latents = latents

    def prepare(self, conditions):
        """What it was given."""
        if self.latents == "vae_channel":
            return as_channels(conditions)
        return to_tokens(conditions.reference, 1), conditions.reference.shape[2:]

    def forward(self, noisy, t, ready):
        """The velocity that leads to it from any noise."""
        if self.latents == "vae_channel":
            channels = noisy.shape[1]
            clean = with_channels(noisy, ready)[:, channels : 2 * channels]
        else:
            clean = from_tokens(*ready, 1)
        return (noisy - clean) / t[:, None, None, None]


def odd_picture() -> np.ndarray:
    """Soft spots without any symmetry."""
    noise = np.random.default_rng(4).integers(0, 256, (*ODD, 3), dtype=np.uint8)
    soft = np.asarray(PILImage.fromarray(noise).filter(ImageFilter.GaussianBlur(2)), float)
    return np.uint8(255 * (soft - soft.min()) / np.ptp(soft))


def shift(first: np.ndarray, second: np.ndarray) -> tuple[int, int]:
    """Rows and columns that the second picture lies off the first: the peak of their phase correlation."""
    one, two = (np.fft.fft2(pixels.astype(float).mean(-1) - pixels.mean()) for pixels in (first, second))
    cross = two * one.conj()
    peak = np.fft.ifft2(cross / np.maximum(np.abs(cross), 1e-9)).real
    where = np.unravel_index(peak.argmax(), peak.shape)
    return tuple(int(n) if n <= side // 2 else int(n) - side for n, side in zip(where, peak.shape))


def test_the_measure_finds_a_shift_of_one_pixel():
    pixels = odd_picture()
    assert shift(pixels, np.roll(pixels, (1, -2), (0, 1))) == (1, -2)


@pytest.mark.parametrize("image_size", [64, 40])
@pytest.mark.parametrize("reference", ["vae_seq", "vae_channel", "dual"])
def test_an_edit_that_keeps_everything_moves_nothing_by_a_pixel(reference, image_size):
    """An odd-sized picture as training resizes and encodes it, and as `edit` draws it."""
    model = external("hidden", reference=reference, image_size=image_size)
    inner, pixels = model.model, odd_picture()
    inner.denoiser = Keeps(inner.config.latents)
    messages = [
        {"role": "user", "content": "<image>keep it"},
        {"role": "assistant", "content": "<image>"},
    ]

    class Rows:
        def document(self, number):
            return parse_row({"messages": messages, "images": [pixels, pixels]}, "row")

    def of_size(like):
        return np.asarray(PILImage.fromarray(pixels).resize(like.shape[1::-1], PILImage.Resampling.BICUBIC))

    prompt, target = DrawnRows(Rows(), inner.multiple, image_size, WHOLE, seed=0)(0)
    assert max(target.shape) == image_size and not any(side % inner.multiple for side in target.shape[:2])
    (kept,), (goal,) = inner.references([prompt]), inner.encode([target])
    assert torch.equal(kept, goal)
    assert shift(of_size(target), to_pixels(inner.codec.decode_latents(kept[None]))[0]) == (0, 0)

    for size in (None, 76):
        plain = {"guidance": 1.0, "image_guidance": 1.0, "size": size}
        drawn = np.asarray(model.edit(PILImage.fromarray(pixels), "keep it", **plain)[0])
        assert drawn.shape == target.shape if size is None else drawn.shape[:2] == (76, 52)
        assert shift(of_size(drawn), drawn) == (0, 0)
        assert np.abs(drawn.astype(int) - of_size(drawn)).mean() < 3
