"""Where the pictures of `generate` and `edit` go, and how they are shown."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from unimodal.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def save_all(images: Sequence[Image.Image], out: Path) -> list[Path]:
    """Save to the file `out` (or `out-1.png`, `out-2.png`, ... if many), or numbered into the folder `out`.

    Returns the paths.  Raises UserError if a file is there already or cannot be written: nothing is
    overwritten.
    """
    from unimodal.chat.pictures import save_picture

    try:
        if out.suffix.lower() not in SUFFIXES:
            return [save_picture(image, out, "picture") for image in images]
        out.parent.mkdir(parents=True, exist_ok=True)
        names = (
            [out] if len(images) == 1 else [out.with_stem(f"{out.stem}-{n + 1}") for n in range(len(images))]
        )
        if there := [name for name in names if name.exists()]:
            raise UserError(f"{there[0]} is there already; remove it, or give another --out")
        for name, image in zip(names, images):
            image.save(name)
    except OSError as error:
        raise UserError(f"cannot save pictures to {out}: {error.strerror or error}") from error
    return names


def show_all(images: Sequence[Image.Image], out: Path) -> None:
    """Save the pictures and print their paths, each under its picture where the terminal can show it."""
    from unimodal.chat.terminal import Screen

    screen = Screen()
    for image, path in zip(images, save_all(images, out)):
        screen.picture(image, path)
