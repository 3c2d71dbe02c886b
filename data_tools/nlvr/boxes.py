"""Pictures of three boxes, read from the corpus' archive and fitted to a side.

Every picture is a row of three square boxes, 400x100 with gaps.  Scaled into a square it would leave each box
an eighth of the side wide, so the boxes may be placed in a square instead; the corpus itself shuffles them
(six orders of every picture, under the same statement), so their places carry no meaning.
"""

from pathlib import Path
from zipfile import BadZipFile, ZipFile

import numpy as np
from PIL import Image

from unimodal.data.pictures import open_picture
from unimodal.errors import UserError

LARGEST = 1 << 20  # bytes of one picture, unpacked; those of the corpus have at most 5 KB
GAP = (128, 128, 128)  # what the corpus has between its boxes
ARRANGEMENTS = ("square", "row")


class Archive:
    """The zip of pictures, read file by file and never unpacked to the disk.

    Raises UserError if the file is no zip archive.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            self._zip = ZipFile(path)
        except (BadZipFile, OSError) as error:
            raise UserError(
                f"{path}: no readable zip archive ({error}). Fetch or pack the file again."
            ) from error

    def picture(self, name: str) -> np.ndarray:
        """Pixels uint8 (H, 4H, 3).  UserError if missing, oversized, damaged or of another shape."""
        where = f"{self.path}:{name}"
        try:
            info = self._zip.getinfo(name)
        except KeyError:
            raise UserError(f"{where}: no such picture in the archive; expected one for each row.") from None
        if info.file_size > LARGEST:
            raise UserError(f"{where}: {info.file_size} bytes unpacked; expected at most {LARGEST}.")
        try:
            with self._zip.open(info) as file:
                data = file.read(LARGEST + 1)  # the header may lie about the size
        except (BadZipFile, OSError, RuntimeError, NotImplementedError) as error:
            raise UserError(f"{where}: damaged ({error}). Fetch or pack the archive again.") from error
        if len(data) > LARGEST:
            raise UserError(f"{where}: larger than its {info.file_size} bytes; expected at most {LARGEST}.")
        pixels = open_picture(data, where, max_pixels=1 << 20)
        if pixels.shape[1] != 4 * pixels.shape[0]:
            raise UserError(
                f"{where}: {pixels.shape[1]}x{pixels.shape[0]} pixels; expected three boxes in a row, four "
                "times as wide as high."
            )
        return pixels


def fitted(pixels: np.ndarray, size: int, arrangement: str = "square") -> Image.Image:
    """Three boxes (H, 4H, 3) as a picture whose longer side is `size`.

    square  size x size: two boxes above, the third below left, the corpus' grey between and around them
    row     size x size/4, as the corpus has it
    """
    picture = Image.fromarray(pixels)
    if arrangement == "row":
        return picture.resize((size, size // 4), Image.Resampling.BICUBIC)
    side, gap = (size - size // 16) // 2, size // 16
    canvas = Image.new("RGB", (size, size), GAP)
    height = pixels.shape[0]
    for k in range(3):
        left = k * 3 * height // 2  # a box, then a gap of half a box
        box = picture.crop((left, 0, left + height, height)).resize((side, side), Image.Resampling.BICUBIC)
        canvas.paste(box, ((k % 2) * (side + gap), (k // 2) * (side + gap)))
    return canvas
