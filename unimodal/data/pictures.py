"""Pictures: bytes of strangers to uint8 RGB arrays, and one scale for all pictures of a document.

Every picture is decoded wholly when it is opened, so a truncated or oversized one is told by file and line
before training.  `fit` scales reference and target of an edit by one rule, so that nothing shifts.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from math import ceil, floor, sqrt
from pathlib import Path

import numpy as np
from PIL import Image as Pillow
from PIL import ImageOps

from unimodal.data.document import Document, Image, Turn
from unimodal.errors import UserError

MAX_PIXELS = 64 * 1024 * 1024
# No format that Pillow hands to another program (EPS) or that is seldom a photograph.
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")

ORIENTATION, LYING = 0x0112, (5, 6, 7, 8)  # EXIF's tag, and what it says of a picture that lies on its side


def open_picture(source, where: str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode one picture wholly: EXIF orientation applied, transparency over white.

    source  Path, bytes, PIL image, or uint8 array of shape (H, W, 3), which is given back as it is
    Returns uint8 (H, W, 3).  Raises UserError naming `where` if it is unreadable, truncated, animated or has
    more than `max_pixels` pixels (told from the header, before any pixel is decoded).
    """
    if isinstance(source, np.ndarray):
        return _array(source, where, max_pixels)
    with _opened(source, where, max_pixels) as (image, name):
        return _decode(image, where, name)


def picture_size(source, where: str, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Height and width that `open_picture` would give, told from the header: no pixel is decoded.

    Raises UserError for what the header tells: no picture, too many pixels, an animation.
    """
    if isinstance(source, np.ndarray):
        return _array(source, where, max_pixels).shape[:2]
    with _opened(source, where, max_pixels) as (image, _):
        # A PNG's own getexif would decode it; TIFF turns its size itself.
        turned = image.format != "TIFF" and Pillow.Image.getexif(image).get(ORIENTATION) in LYING
        return (image.width, image.height) if turned else (image.height, image.width)


@contextmanager
def _opened(source, where: str, max_pixels: int) -> Iterator[tuple[Pillow.Image, str]]:
    """A picture whose header was read and found right, and its name for messages."""
    if isinstance(source, Pillow.Image):
        _check_header(source, where, "picture", max_pixels)
        yield source, "picture"
        return
    name = f"picture {source}" if isinstance(source, Path) else f"picture of {len(source)} bytes"
    try:
        file = io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
    except OSError as error:
        raise UserError(f"{where}: {name} cannot be opened ({error.strerror}). Mend the path.") from error
    with file:
        try:
            with warnings.catch_warnings():  # Pillow's warning comes before our sentence and says less
                warnings.simplefilter("ignore", Pillow.DecompressionBombWarning)
                image = Pillow.open(file, formats=_formats())
        except Pillow.DecompressionBombError as error:
            raise UserError(_oversized(where, name, str(error), max_pixels)) from error
        except Exception as error:  # a broken header raises nearly anything
            raise UserError(
                f"{where}: {name} is not a readable picture ({type(error).__name__}); expected PNG, JPEG, "
                "WebP, GIF, BMP, TIFF, PPM or AVIF. Convert it or remove the row."
            ) from error
        _check_header(image, where, name, max_pixels)
        yield image, name


@lru_cache
def _formats() -> tuple[str, ...]:
    Pillow.init()
    return tuple(name for name in FORMATS if name in Pillow.OPEN)  # Pillow may be built without AVIF


def _oversized(where: str, name: str, found: str, max_pixels: int) -> str:
    return (
        f"{where}: {name} is too large: {found}; expected at most {max_pixels} pixels. "
        "Scale it down, or raise max_pixels if you trust the file."
    )


def _array(pixels: np.ndarray, where: str, max_pixels: int) -> np.ndarray:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise UserError(
            f"{where}: picture array is {pixels.dtype} of shape {pixels.shape}; "
            "expected uint8 (height, width, 3). Convert it to RGB first."
        )
    if pixels.shape[0] * pixels.shape[1] > max_pixels:
        size = f"{pixels.shape[1]}x{pixels.shape[0]}"
        raise UserError(_oversized(where, "picture array", size, max_pixels))
    return pixels


def _check_header(image: Pillow.Image, where: str, name: str, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise UserError(_oversized(where, name, f"{image.width}x{image.height}", max_pixels))
    # An MPO is a photograph with a preview behind it; in the other formats a second frame is an animation.
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        raise UserError(
            f"{where}: {name} has {image.n_frames} frames; expected a still picture. Save the frame you mean."
        )


def _decode(image: Pillow.Image, where: str, name: str) -> np.ndarray:
    try:
        image.load()
        return _rgb(ImageOps.exif_transpose(image), where, name)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{where}: {name} is truncated or damaged ({error}). Fetch the file again or remove the row."
        ) from error


def _rgb(image: Pillow.Image, where: str, name: str) -> np.ndarray:
    if image.mode.startswith("I"):  # 16 bit grey; Pillow's own conversion clips instead of scaling
        grey = np.asarray(image)
        if grey.min() < 0 or grey.max() > 65535:
            raise UserError(f"{where}: {name} has values beyond 16 bits. Save it with 8 bits a channel.")
        return np.repeat((grey // 257).astype(np.uint8)[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise UserError(f"{where}: {name} holds floating point numbers. Save it with 8 bits a channel.")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Pillow.alpha_composite(Pillow.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))


def unseen(height: int, width: int) -> np.ndarray:
    """What stands in a document for a picture that was not decoded: its shape, in no memory."""
    return np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (height, width, 3))


def fit(
    document: Document,
    multiple: int,
    max_pixels: int = MAX_PIXELS,
    size: int | None = None,
    decoded: bool = True,
) -> Document:
    """Scale all pictures of a document by one shared rule; sides become multiples of `multiple`.

    The rule is one factor for columns and one for rows, anchored at the top left: a point of one picture and
    the same point of another land on the same place.  The factors make the longest side of the largest
    picture `size` (as it is if None), shrunk until no picture has more than `max_pixels`, with that picture's
    sides rounded to multiples; where another picture then falls short of a multiple, its last row or column
    is repeated.  A document that fits already is returned as it is.
    decoded  False: its pictures are `unseen`, and so are those of the result
    """
    shapes = [part.pixels.shape for part in document.parts() if isinstance(part, Image)]
    if not shapes:
        return document
    if max_pixels < multiple * multiple:
        raise UserError(f"max_pixels {max_pixels} does not hold one cell of {multiple}x{multiple} pixels.")
    height, width = max((shape[:2] for shape in shapes), key=lambda shape: shape[0] * shape[1])
    scale = size / max(height, width) if size else 1.0
    if scale == 1.0 and all(
        h % multiple == 0 and w % multiple == 0 and h * w <= max_pixels for h, w, _ in shapes
    ):
        return document
    scale = min(scale, *(sqrt(max_pixels / (h * w)) for h, w, _ in shapes))
    while True:
        tall = max(1, round(height * scale / multiple)) * multiple / height
        wide = max(1, round(width * scale / multiple)) * multiple / width
        sides = [(_side(h * tall, multiple), _side(w * wide, multiple)) for h, w, _ in shapes]
        if all(h * w <= max_pixels for h, w in sides):
            break
        if tall * height == wide * width == multiple:
            raise UserError(
                f"{document.id}: at no scale are its pictures' sides multiples of {multiple} with "
                f"at most {max_pixels} pixels: one is much longer than another. Crop it, or raise max_pixels."
            )
        scale *= 0.98

    def rescale(part):
        if not isinstance(part, Image):
            return part
        if not decoded:
            h, w, _ = part.pixels.shape
            return replace(part, pixels=unseen(_side(h * tall, multiple), _side(w * wide, multiple)))
        return replace(part, pixels=_resize(part.pixels, tall, wide, multiple))

    turns = tuple(Turn(turn.role, tuple(rescale(part) for part in turn.parts)) for turn in document.turns)
    return replace(document, turns=turns)


def _side(length: float, multiple: int) -> int:
    return max(1, ceil(length / multiple - 1e-6)) * multiple


def _resize(pixels: np.ndarray, tall: float, wide: float, multiple: int) -> np.ndarray:
    height, width = pixels.shape[:2]
    rows, columns = (max(1, floor(n + 1e-6)) for n in (height * tall, width * wide))
    if (tall, wide) != (1.0, 1.0):
        # Whole target pixels only, cut from exactly the source area they cover: nothing shifts by a fraction.
        box = (0, 0, min(width, columns / wide), min(height, rows / tall))
        image = Pillow.fromarray(pixels).resize((columns, rows), Pillow.Resampling.LANCZOS, box=box)
        pixels = np.asarray(image)
    down, right = _side(height * tall, multiple) - rows, _side(width * wide, multiple) - columns
    return np.pad(pixels, ((0, down), (0, right), (0, 0)), mode="edge")
