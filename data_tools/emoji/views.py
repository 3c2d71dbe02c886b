"""Ways to show one emoji (other grounds, mirrored, small), and the edits between them that all emoji allow.

Few families have variants, so tone, gender and direction alone teach to copy what stays of some people at one
size and place.  Edits of the view ask it of everything there is, and variants are shown in several views.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random

import numpy as np
from PIL import Image

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
FULL = "full"
PLACES = {  # where a smaller one stands: shares of the free room on its left and above it
    "middle": (0.5, 0.5),
    "upper_left": (0, 0),
    "upper_right": (1, 0),
    "lower_left": (0, 1),
    "lower_right": (1, 1),
}
SMALL = 62.5  # side of a smaller one, in per cent of the picture's
HALF = 50
SIDES = (HALF, SMALL, 75, 87.5)  # of one that questions are asked about
FORMS = {
    "background": ("put it on a {} background", "change the background to {}", "make the background {}"),
    "mirror": ("mirror it", "flip it from left to right"),
    "smaller": ("make it smaller", "shrink it"),
    "larger": ("make it larger", "enlarge it"),
}
LOPSIDED = 0.02  # share of pixels that a mirror has to change
DIFFERENT = 8  # levels by which a pixel has to differ to count
NAME = re.compile(
    r"(?P<id>[0-9a-f-]+?)(?P<mirrored>-mirrored)?(-on-(?P<ground>[a-z]+))?(-at-(?P<place>[a-z_]+))?"
    r"(-of-(?P<side>[0-9.]+))?(-beside-(?P<beside>[0-9a-f-]+))?"
)

Change = tuple[str, str, "View", "View", str, str]  # kind, words, views before and after, from, to


@dataclass(frozen=True)
class View:
    """How an emoji is shown; the default is as the font has it, on white.

    side    in per cent of the picture's, unless its place is the whole picture
    beside  id of another emoji, as large, which stands where this one would in a mirror
    """

    mirrored: bool = False
    ground: str = "white"
    place: str = FULL
    side: float = SMALL
    beside: str = ""

    def name(self, emoji: str) -> str:
        """The name of the picture of the emoji of this id."""
        ground = "" if self.ground == "white" else f"-on-{self.ground}"
        place = "" if self.place == FULL else f"-at-{self.place}"
        side = "" if self.side == SMALL else f"-of-{self.side:g}"
        beside = f"-beside-{self.beside}" if self.beside else ""
        return f"{emoji}{'-mirrored' if self.mirrored else ''}{ground}{place}{side}{beside}"

    @classmethod
    def parse(cls, name: str) -> tuple[str, "View"]:
        """The id of the emoji and the view that `name` was made of."""
        found = NAME.fullmatch(name)
        side = float(found["side"] or SMALL)
        ground, place = found["ground"] or "white", found["place"] or FULL
        return found["id"], cls(bool(found["mirrored"]), ground, place, side, found["beside"] or "")

    def show(self, pixels: np.ndarray, beside: np.ndarray | None = None) -> np.ndarray:
        """A square picture uint8 (S, S, 3) of an emoji, already on this view's ground, as it is seen here.

        beside  the picture of the other, on the same ground
        """
        pixels = pixels[:, ::-1] if self.mirrored else pixels
        if self.place == FULL:
            return pixels
        shown = np.full_like(pixels, GROUNDS[self.ground])
        across, down = PLACES[self.place]
        self._put(pixels, shown, (across, down))
        if beside is not None:
            self._put(beside, shown, (1 - across, down))
        return shown

    def _put(self, pixels: np.ndarray, shown: np.ndarray, place: tuple[float, float]) -> None:
        """Draw it smaller into `shown`."""
        side = len(pixels)
        small = round(self.side / 100 * side)
        left, top = (round(share * (side - small)) for share in place)
        resized = Image.fromarray(pixels).resize((small, small), Image.Resampling.BICUBIC)
        shown[top : top + small, left : left + small] = np.asarray(resized)


def some_view(rng: Random) -> View:
    """Any view but the plain one."""
    while True:
        view = View(rng.random() < 0.5, rng.choice(list(GROUNDS)), rng.choice([FULL, FULL, *PLACES]))
        if view != View():
            return view


def views_to_ask_of(count: int, others: list[str], rng: Random) -> list[View]:
    """Different views, of more sizes than edits have, half of them beside one of `others`, ids of emoji.

    What tells variants apart is small in some pictures, and among other things.
    """
    views: dict[View, None] = {}
    while len(views) < count:
        view = some_view(rng)
        if others and rng.random() < 0.5:
            corner = rng.choice([name for name in PLACES if name != "middle"])
            view = replace(view, place=corner, side=HALF, beside=rng.choice(others))
        elif view.place != FULL:
            view = replace(view, side=rng.choice(SIDES))
        views[view] = None
    return list(views)


def family_views(one: Emoji, count: int = 4) -> list[View]:
    """Views that the emoji of a family share, so that its variants can be shown alike."""
    rng = Random(f"views/{one.family}")
    return [some_view(rng) for _ in range(count)]


def view_edits(one: Emoji, lopsided: bool, rng: Random) -> Iterator[Change]:
    """Edits of the view of one emoji, both ways round: seen plainly, and in some view of its family.

    lopsided  whether its mirror image is another picture
    """
    for seen in (View(), rng.choice(family_views(one))):
        other = rng.choice([name for name in GROUNDS if name != seen.ground])
        sides = (seen, replace(seen, ground=other))
        for before, after in (sides, sides[::-1]):
            words = rng.choice(FORMS["background"]).format(after.ground)
            yield "background", words, before, after, before.ground, after.ground
        if lopsided:
            before, after = seen, replace(seen, mirrored=not seen.mirrored)
            yield "mirror", rng.choice(FORMS["mirror"]), before, after, "one way", "the other"
            yield "mirror", rng.choice(FORMS["mirror"]), after, before, "the other", "one way"
    large = replace(rng.choice(family_views(one)), place=FULL)
    small = replace(large, place="middle")
    yield "size", rng.choice(FORMS["smaller"]), large, small, "large", "small"
    yield "size", rng.choice(FORMS["larger"]), small, large, "small", "large"


def is_lopsided(pixels: np.ndarray) -> bool:
    """Whether uint8 (H, W, 3) and its mirror image are different pictures."""
    changed = np.abs(pixels.astype(int) - pixels[:, ::-1]).max(-1) > DIFFERENT
    return bool(changed.mean() > LOPSIDED)
