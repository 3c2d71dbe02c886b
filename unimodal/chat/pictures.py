"""Pictures from and to disk, as chat and command line need them."""

from itertools import count
from pathlib import Path

from PIL import Image

from unimodal.data.pictures import open_picture


def open_image(path: str) -> Image.Image:
    """Read a picture with the checks that training data gets.  Raises UserError if it is not one."""
    return Image.fromarray(open_picture(Path(path).expanduser(), "image"))


def save_picture(image: Image.Image, folder: Path, stem: str) -> Path:
    """Save as the next free `STEM-0001.png` in `folder`, never over another file; return the path."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        path = folder / f"{stem}-{number:04d}.png"
        try:
            with path.open("xb") as file:
                image.save(file, format="PNG")
            return path
        except FileExistsError:
            continue
    raise AssertionError("unreachable")
