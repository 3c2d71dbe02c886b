"""Edits that every emoji allows: another ground behind it, and its mirror image.

Few families have variants, so tone, gender and direction teach to copy what stays of people alone.  These
rows ask it of everything there is.
"""

from collections.abc import Iterator
from random import Random

import numpy as np

from data_tools.emoji.names import Emoji

GROUNDS = {
    "white": (255, 255, 255),
    "black": (24, 24, 24),
    "gray": (128, 128, 128),
    "blue": (120, 170, 240),
    "green": (130, 200, 130),
    "pink": (245, 170, 200),
    "yellow": (250, 225, 120),
}
FORMS = {
    "background": ("put it on a {} background", "change the background to {}", "make the background {}"),
    "mirror": ("mirror it", "flip it from left to right"),
}
MIRRORED = "-mirrored"
ON = "-on-"
LOPSIDED = 0.02  # share of pixels that a mirror has to change
DIFFERENT = 8  # levels by which a pixel has to differ to count

View = tuple[str, str, str, str, str, str]  # kind, words, ids of the pictures before and after, from, to


def views(one: Emoji, lopsided: bool, rng: Random) -> Iterator[View]:
    """The edits of one emoji, both ways round.

    lopsided  whether its mirror image is another picture
    """
    ground = rng.choice([name for name in GROUNDS if name != "white"])
    sides = ((one.id, "white"), (f"{one.id}{ON}{ground}", ground))
    for (before, was), (after, is_now) in (sides, sides[::-1]):
        yield "background", rng.choice(FORMS["background"]).format(is_now), before, after, was, is_now
    if lopsided:
        sides = ((one.id, "plain"), (one.id + MIRRORED, "mirrored"))
        for (before, was), (after, is_now) in (sides, sides[::-1]):
            yield "mirror", rng.choice(FORMS["mirror"]), before, after, was, is_now


def is_lopsided(pixels: np.ndarray) -> bool:
    """Whether uint8 (H, W, 3) and its mirror image are different pictures."""
    changed = np.abs(pixels.astype(int) - pixels[:, ::-1]).max(-1) > DIFFERENT
    return bool(changed.mean() > LOPSIDED)
