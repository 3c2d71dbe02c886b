"""Pictures: whole decodes or a sentence; one scale for all pictures of a document, aligned to the pixel."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image as Pillow

from unimodal.data.document import Document, Image, Text, Turn
from unimodal.data.pictures import fit, open_picture, picture_size
from unimodal.errors import UserError

NOISE = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


def encoded(image: Pillow.Image, kind="PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header claims a size that its few bytes do not hold."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


def told(source, max_pixels=10**6) -> str:
    with pytest.raises(UserError) as caught:
        open_picture(source, "f.jsonl:3", max_pixels)
    assert str(caught.value).startswith("f.jsonl:3: ")
    return str(caught.value)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_are_exact(kind):
    np.testing.assert_array_equal(open_picture(encoded(Pillow.fromarray(NOISE), kind), "x:1"), NOISE)


def test_arrays_are_not_copied():
    assert open_picture(NOISE, "x:1") is NOISE


def test_transparency_lies_over_white():
    rgba = np.dstack([NOISE, np.full((40, 50), 0, np.uint8)])
    rgba[:20, :, 3] = 255
    for data in (encoded(Pillow.fromarray(rgba)), encoded(Pillow.fromarray(rgba), "TIFF")):
        pixels = open_picture(data, "x:1")
        np.testing.assert_array_equal(pixels[:20], NOISE[:20])
        assert (pixels[20:] == 255).all()
    palette = Pillow.new("P", (4, 4), 0)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((0, 0), 1)
    pixels = open_picture(encoded(palette, transparency=0), "x:1")
    assert pixels[0, 0].tolist() == [40, 50, 60]
    assert pixels[1, 1].tolist() == [255, 255, 255]


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_the_header_tells_the_size_of_the_decoded_picture(kind, turn):
    exif = Pillow.Exif()
    exif[0x0112] = turn
    data = encoded(Pillow.fromarray(NOISE), kind, exif=exif)
    shape = open_picture(data, "x:1").shape[:2]
    assert picture_size(data, "x:1") == shape == ((40, 50) if turn < 5 else (50, 40))


def test_the_size_is_told_without_decoding():
    whole = encoded(Pillow.fromarray(NOISE))
    assert picture_size(whole[: len(whole) // 2], "x:1") == (40, 50)
    assert picture_size(bomb(30, 20), "x:1") == (20, 30)
    assert picture_size(NOISE, "x:1") == picture_size(Pillow.fromarray(NOISE), "x:1") == (40, 50)
    for wrong, words in ((bomb(2000, 2000), "too large"), (b"no picture", "not a readable picture")):
        with pytest.raises(UserError, match=f"f.jsonl:3: .*{words}"):
            picture_size(wrong, "f.jsonl:3", 10**6)


def test_grey_of_any_depth():
    grey = NOISE[..., 0]
    expected = np.repeat(grey[..., None], 3, 2)
    for image in (Pillow.fromarray(grey), Pillow.fromarray(grey.astype(np.uint16) * 257)):
        np.testing.assert_array_equal(open_picture(encoded(image), "x:1"), expected)


def test_the_camera_orientation_is_applied():
    exif = Pillow.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    pixels = open_picture(encoded(Pillow.fromarray(NOISE), exif=exif), "x:1")
    np.testing.assert_array_equal(pixels, np.rot90(NOISE, -1))


def test_truncated_files_are_told(tmp_path):
    for kind in ("PNG", "JPEG", "WEBP", "TIFF", "BMP"):
        data = encoded(Pillow.fromarray(NOISE), kind)
        for share in (0.5, 0.9):
            message = told(data[: int(len(data) * share)])
            assert "truncated" in message or "not a readable picture" in message
            assert "Fetch" in message or "Convert" in message
    file = tmp_path / "cut.png"
    file.write_bytes(encoded(Pillow.fromarray(NOISE))[:900])
    assert str(file) in told(file)


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\xff\xd8\xff"]
)
def test_what_is_no_picture_is_told(data):
    message = told(data)
    assert "not a readable picture" in message
    assert "Convert it or remove the row" in message


@pytest.mark.parametrize("side", [1001, 12_000, 60_000])
def test_bombs_are_told_before_decoding(side):
    message = told(bomb(side, side))
    assert "too large" in message
    assert "at most 1000000 pixels" in message
    assert "Scale it down" in message
    assert "too large" in told(np.zeros((1001, 1000, 3), np.uint8))
    assert "too large" in told(Pillow.new("RGB", (1001, 1000)))


def test_animations_are_told():
    frames = [Pillow.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    assert "2 frames" in told(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))


def document(*pictures: np.ndarray) -> Document:
    return Document(
        (
            Turn("user", (Text("x"), *map(Image, pictures[:-1]))),
            Turn("assistant", (Image(pictures[-1], True),)),
        )
    )


def gradient(height: int, width: int) -> np.ndarray:
    """A picture whose red channel says its own column and whose green its own row (in half pixels)."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x / 2, y / 2, 0 * x], -1).clip(0, 255).astype(np.uint8)


def test_a_fitting_document_is_left_alone():
    given = document(NOISE[:40, :48], NOISE[:8, :8])
    assert fit(given, 8, 10_000) is given
    text = Document((Turn(None, (Text("x", True),)),))
    assert fit(text, 8, 100) is text


@pytest.mark.parametrize("multiple", [1, 8, 16])
@pytest.mark.parametrize("size", [None, 32, 100])
@pytest.mark.parametrize(
    "shapes", [[(40, 50)], [(400, 300), (400, 300)], [(399, 301), (200, 17)], [(3, 500), (9, 9)]]
)
def test_sides_are_multiples_within_the_limit(multiple, size, shapes):
    fitted = fit(document(*(gradient(h, w) for h, w in shapes)), multiple, 2500, size)
    for image in fitted.images:
        height, width, channels = image.pixels.shape
        assert height % multiple == width % multiple == 0
        assert channels == 3
        assert image.pixels.dtype == np.uint8
        assert multiple**2 <= height * width <= 2500
    assert [image.trained for image in fitted.images] == [False] * (len(shapes) - 1) + [True]


def test_size_is_the_longest_side():
    fitted = fit(document(gradient(100, 200), gradient(50, 100)), 8, 10**6, 64)
    assert [image.pixels.shape[:2] for image in fitted.images] == [(32, 64), (16, 32)]


@pytest.mark.parametrize("other", [(300, 400), (298, 400), (300, 391), (123, 234)])
@pytest.mark.parametrize("size", [None, 64, 160, 333])
def test_pictures_of_a_document_stay_aligned(other, size):
    """The same point of two pictures lands on the same place, though their sizes differ a little."""
    first = gradient(300, 400)
    fitted = fit(document(first, first[: other[0], : other[1]]), 16, 120_000, size)
    one, two = (image.pixels.astype(int) for image in fitted.images)
    height, width = (round(n * one.shape[0] / 300) for n in other)
    height, width = min(height, two.shape[0]) - 6, min(width, two.shape[1]) - 6  # away from the border
    assert np.abs(one[:height, :width] - two[:height, :width]).max() <= 1


def test_padding_repeats_the_border():
    fitted = fit(document(gradient(16, 16), gradient(13, 10)), 8, 10**6)
    assert fitted.images[1].pixels.shape == (16, 16, 3)
    np.testing.assert_array_equal(
        fitted.images[1].pixels, np.pad(gradient(13, 10), ((0, 3), (0, 6), (0, 0)), "edge")
    )


def test_too_small_a_limit_is_told():
    with pytest.raises(UserError, match="does not hold one cell"):
        fit(document(NOISE), 16, 100)
    with pytest.raises(UserError, match="much longer than another"):
        fit(document(gradient(100, 100), gradient(1, 5000)), 16, 2500)
