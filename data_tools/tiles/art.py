"""Reading the tiles: which may be used, their pixels, and how they become a picture.

A tile is 32x32 with transparency.  Pictures are tiles laid over a background and enlarged by a whole number,
every pixel a square, so that a mask of changed pixels is exact at both sizes.
"""

import re
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor

from data_tools.real import given, of_another_shape
from unimodal.errors import UserError

RELEASE = "releases/Nov-2015"
UNKNOWN_LICENCE = "TILES_UNDER_UNKNOWN_LICENSE.md"
SIDE = 32
WHAT = f"the tiles of Dungeon Crawl: {UNKNOWN_LICENCE} and {RELEASE}"
ADDRESS = "https://github.com/crawl/tiles"
LICENCE = "CC0 1.0; the artists are named in ARTISTS.md of crawl/tiles"
LISTED = re.compile(r"^\s*[-*]\s+(\S+\.png)\s*$", re.MULTILINE)


class Tiles:
    """The usable tiles of a copy of `crawl/tiles`.

    paths     of the tiles, relative to the release ("item/potion/ruby.png"), in order
    left_out  paths by the reason why they are not used
    Raises UserError if the folder is missing or of another shape.
    """

    def __init__(self, folder: str | Path):
        folder = given(folder, [UNKNOWN_LICENCE, RELEASE], WHAT, ADDRESS)
        self.folder = folder / RELEASE
        self.left_out: dict[str, list[str]] = {}
        unknown = unlicensed(folder / UNKNOWN_LICENCE)
        self._art: dict[str, Image.Image] = {}
        for path in sorted(self.folder.rglob("*.png")):
            name = path.relative_to(self.folder).as_posix()
            if path.name in unknown:
                self.left_out.setdefault(f"named in {UNKNOWN_LICENCE}", []).append(name)
                continue
            try:
                with Image.open(path, formats=("PNG",)) as tile:
                    size = tile.size
                    art = tile.convert("RGBA") if size == (SIDE, SIDE) else None
            except (OSError, ValueError, SyntaxError) as error:
                raise of_another_shape(path, f"no readable PNG ({error})", WHAT, ADDRESS) from error
            if art is None:
                reason = f"not {SIDE}x{SIDE}, so no whole number of times in the others' size"
                self.left_out.setdefault(reason, []).append(name)
            elif not art.getextrema()[3][1]:
                self.left_out.setdefault("wholly transparent", []).append(name)
            else:
                self._art[name] = art
        self.paths = list(self._art)
        if not self.paths:
            raise of_another_shape(self.folder, f"no PNG of {SIDE}x{SIDE}", WHAT, ADDRESS)

    def art(self, path: str) -> Image.Image:
        """The tile as RGBA 32x32."""
        return self._art[path]

    def over(self, background: Image.Image, *paths: str) -> np.ndarray:
        """Tiles laid over a background, the last on top: uint8 (32, 32, 3)."""
        canvas = background.convert("RGBA")
        for path in paths:
            canvas.alpha_composite(self._art[path])
        return np.array(canvas.convert("RGB"))

    def background(self, text: str) -> Image.Image:
        """A colour ("white", "#808080") or a tile ("dngn/floor/grass/grass0.png") as RGB 32x32."""
        if text in self._art:
            if self._art[text].getextrema()[3][0] < 255:
                raise UserError(f"background {text}: has transparent pixels; expected a floor without any.")
            return self._art[text].convert("RGB")
        try:
            return Image.new("RGB", (SIDE, SIDE), ImageColor.getrgb(text)[:3])
        except ValueError as error:
            raise UserError(
                f"background {text!r}: no colour, and no tile of {self.folder}; expected a name like white, "
                "#rrggbb, or a path like dngn/floor/grass/grass0.png"
            ) from error


def unlicensed(path: Path) -> set[str]:
    """File names of the tiles that the list names, whatever folder it has them in: tiles were moved about.

    Raises UserError if it names none, for then the licence of no tile is known.
    """
    found = {match[1].split("/")[-1] for match in LISTED.finditer(path.read_text(encoding="utf-8"))}
    if not found:
        raise of_another_shape(path, "it names no tile", "a list of lines like `- name.png`", ADDRESS)
    return found


def scale_of(size: int) -> int:
    """How many times a tile is enlarged to `size`; UserError if that is no whole number."""
    if size < SIDE or size % SIDE:
        raise UserError(f"size {size}; expected a multiple of {SIDE}, as every pixel becomes a square.")
    return size // SIDE


def enlarge(pixels: np.ndarray, scale: int) -> np.ndarray:
    """(32, 32, ...) to (32 scale, 32 scale, ...), every pixel a square."""
    return pixels.repeat(scale, axis=0).repeat(scale, axis=1)
