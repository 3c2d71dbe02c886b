"""Emoji to pixels: one glyph on white, all at one scale and place, so that variants lie on each other.

A sequence that the font cannot show as one picture would come out as several side by side, or as nothing;
such a sequence is no picture, and `draw` says so.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, features

from data_tools.emoji.names import INSTALL
from unimodal.errors import UserError

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
STRIKE = 109  # the one size in which the font holds its bitmaps
PROBE = "\N{GRINNING FACE}"


class Glyphs:
    """Draws emoji of one font.

    font  a colour font with bitmaps like Noto Color Emoji's; FONT if None
    size  side of the pictures in pixels
    `shaping` says what joins code points to glyphs: raqm joins all, basic hardly any.
    Raises UserError if the font is missing or holds no colour bitmaps.
    """

    def __init__(self, font: Path | None = None, size: int = 64):
        path = Path(font) if font else FONT
        if not path.is_file():
            raise UserError(f"no emoji font at {path}. On Debian: {INSTALL}")
        if size < 8:
            raise UserError(f"size {size} is too small for a picture; expected at least 8 pixels.")
        self.size = size
        self.shaping = "raqm" if features.check("raqm") else "basic"
        try:
            self._font = ImageFont.truetype(str(path), STRIKE)
            self._advance = self._font.getlength(PROBE)
            left, top, right, bottom = self._font.getbbox(PROBE)
        except OSError as error:
            raise UserError(
                f"{path} is no font with colour bitmaps of size {STRIKE} ({error}); expected "
                f"NotoColorEmoji.ttf. On Debian: {INSTALL}"
            ) from error
        self._side = max(right - left, bottom - top)
        if not self._side or self.draw(PROBE) is None:
            raise UserError(f"{path} has no picture of {PROBE}; expected an emoji font. On Debian: {INSTALL}")
        self._corner = ((self._side - right - left) // 2, (self._side - bottom - top) // 2)

    _corner = (0, 0)

    def draw(self, text: str, ground: tuple[int, int, int] = (255, 255, 255)) -> np.ndarray | None:
        """The picture of one emoji on a ground of this colour, uint8 (size, size, 3).

        None if it does not come out as one glyph.
        """
        if self._font.getlength(text) > 1.5 * self._advance:
            return None
        canvas = Image.new("RGBA", (self._side, self._side), (255, 255, 255, 0))
        ImageDraw.Draw(canvas).text(self._corner, text, font=self._font, embedded_color=True)
        if not canvas.getextrema()[3][1]:  # the font's sign for a missing glyph is empty
            return None
        behind = Image.new("RGBA", canvas.size, (*ground, 255))
        picture = Image.alpha_composite(behind, canvas).convert("RGB")
        return np.array(picture.resize((self.size, self.size), Image.Resampling.BICUBIC))
