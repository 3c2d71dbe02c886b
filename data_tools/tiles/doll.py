"""The paper doll: a body and what it wears, drawn layer on layer, and what of it can be seen.

What a layer changes is told by drawing the doll with and without it, so what is hidden below another layer is
known to be hidden.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

import numpy as np
from PIL import Image

from data_tools.tiles.art import Tiles
from data_tools.tiles.layers import Body, Item
from data_tools.tiles.wardrobe import BODY, GROWN, HELD, ORDER
from data_tools.tiles.words import article, listed

SEEN = 8  # pixels of a tile by which a layer has to change a doll to be seen
WORN = {  # how often a doll wears something in a slot
    "halo": 0.05,
    "wings": 0.1,
    "cloak": 0.25,
    "boots": 0.5,
    "legs": 0.5,
    "barding": 0.5,
    "body": 0.6,
    "gloves": 0.3,
    "hand1": 0.4,
    "hand2": 0.3,
    "hair": 0.5,
    "head": 0.3,
}


@dataclass(frozen=True)
class Doll:
    """A body with at most one item in each slot."""

    body: Body
    items: tuple[Item, ...] = ()

    def with_(self, item: Item) -> "Doll":
        """The doll with the item in its slot, instead of what is there."""
        return Doll(self.body, (*self.without(item.slot).items, item))

    def without(self, slot: str) -> "Doll":
        """The doll with nothing in a slot."""
        return Doll(self.body, tuple(item for item in self.items if item.slot != slot))

    def draw(self, tiles: Tiles, background: Image.Image) -> np.ndarray:
        """Pixels uint8 (32, 32, 3)."""
        paths = {item.slot: item.path for item in self.items} | {BODY: self.body.path}
        return tiles.over(background, *(paths[slot] for slot in ORDER if slot in paths))

    def seen(self, tiles: Tiles, background: Image.Image) -> tuple[Item, ...]:
        """The items that show: without one of them, at least SEEN pixels are others."""
        whole = self.draw(tiles, background)
        return tuple(
            item
            for item in sorted(self.items)
            if changed(whole, self.without(item.slot).draw(tiles, background)).sum() >= SEEN
        )


def changed(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where two pictures (H, W, 3) differ: bool (H, W)."""
    return (a != b).any(-1)


def dress(body: Body, items: Iterable[Item], rng: Random) -> Doll:
    """A body with items drawn by chance, WORN saying how often a slot is filled."""
    slots: dict[str, list[Item]] = {}
    for item in items:
        if body.fits(item):
            slots.setdefault(item.slot, []).append(item)
    return Doll(body, tuple(rng.choice(some) for slot, some in slots.items() if rng.random() < WORN[slot]))


def told(body: Body, items: Iterable[Item]) -> str:
    """The doll in words: `an elf with long red hair and a spear, wearing a red cloak and blue boots`."""
    items = sorted(items, key=lambda item: ORDER.index(item.slot))
    has = [item.a for item in items if item.slot in GROWN + HELD]
    wears = [item.a for item in items if item.slot not in GROWN + HELD]
    words = article(body.name)
    if has:
        words += f" with {listed(has)}"
    if wears:
        words += f"{',' if has else ''} wearing {listed(wears)}"
    return words
