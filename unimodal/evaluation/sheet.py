"""Picture sheets: pictures in a grid, each with its words below."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

MARGIN, CAPTION, LINE = 8, 11, 13  # pixels: around a tile, font size, line height


def sheet(
    tiles: Sequence[tuple[Image.Image, str]], columns: int = 6, side: int = 160, title: str | None = None
) -> Image.Image:
    """Put pictures with captions on one white sheet, row by row.

    side   pixels of a picture's longer side on the sheet; small pictures are enlarged without smoothing
    title  words above everything
    """
    font = ImageFont.load_default(CAPTION)
    wrapped = [_wrap(caption, side, font) for _, caption in tiles]
    rows = -(-len(tiles) // columns)
    heights = [
        side + LINE * max(len(lines) for lines in wrapped[row * columns : (row + 1) * columns]) + 2 * MARGIN
        for row in range(rows)
    ]
    top = LINE + 2 * MARGIN if title else 0
    page = Image.new("RGB", (columns * (side + MARGIN) + MARGIN, top + sum(heights) + MARGIN), "white")
    pen = ImageDraw.Draw(page)
    if title:
        pen.text((MARGIN, MARGIN), title, "black", ImageFont.load_default(CAPTION + 2))
    for number, ((picture, _), lines) in enumerate(zip(tiles, wrapped)):
        row, column = divmod(number, columns)
        x, y = MARGIN + column * (side + MARGIN), top + MARGIN + sum(heights[:row])
        page.paste(_enlarged(picture, side), (x, y))
        for place, line in enumerate(lines):
            pen.text((x, y + side + 3 + place * LINE), line, "black", font)
    return page


def _enlarged(picture: Image.Image, side: int) -> Image.Image:
    scale = side / max(picture.size)
    size = tuple(max(1, round(length * scale)) for length in picture.size)
    return picture.convert("RGB").resize(
        size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    )


def _wrap(text: str, width: int, font: ImageFont.FreeTypeFont) -> list[str]:
    """Break at blanks so that no line is wider than the picture, where a word allows it."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
