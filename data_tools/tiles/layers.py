"""The layers of the paper doll: bodies, and what a body can wear, hold or grow, each told in words.

A layer's words are an adjective and a kind, `red` and `cloak`, told from its file name: the longest of the
slot's KINDS that the name begins with, and colours or WORDS for the rest.  A name with any other word in it
tells too little, and the layer is left out.
"""

from dataclasses import dataclass, field

from data_tools.tiles.art import Tiles
from data_tools.tiles.wardrobe import (
    BARDING,
    BODY,
    FOLDERS,
    KINDS,
    MASS,
    PLURAL,
    SPECIES,
    UNFIT,
    VARIANT,
    WORDS,
)
from data_tools.tiles.words import BY_NAME, COLOURS, NO_WORDS, PERSONS, article, tokens

AGAIN = "another drawing of the same words"
ALIKE = "drawn exactly like another"


@dataclass(frozen=True, order=True)
class Item:
    """A layer that a body wears, holds or grows."""

    slot: str
    kind: str
    adjective: str
    path: str

    @property
    def name(self) -> str:
        """`red cloak`."""
        return f"{self.adjective} {self.kind}".strip()

    @property
    def a(self) -> str:
        """`a red cloak`, `blue boots`."""
        return self.name if self.kind in PLURAL or self.kind.split()[-1] in MASS else article(self.name)


@dataclass(frozen=True, order=True)
class Body:
    """A naked body; `sort` says what it can wear."""

    name: str
    sort: str
    path: str

    def fits(self, item: Item) -> bool:
        """Whether the item lies on this body as it was drawn to."""
        if item.slot == "barding":
            return BARDING.get(self.sort) == item.kind
        return item.slot not in UNFIT[self.sort]


def item_of(path: str, slot: str) -> Item | str:
    """The item that a layer shows, or why its name does not tell."""
    stem = path.rpartition("/")[2].removesuffix(".png")
    if stem in PERSONS:
        return BY_NAME
    found = _told(stem, KINDS[slot])
    return found if isinstance(found, str) else Item(slot, found[1], found[0], path)


def body_of(path: str) -> Body | str:
    """The body that a layer of the folder `player/base` shows, or why it is no body for the doll."""
    stem = path.rpartition("/")[2].removesuffix(".png")
    bare = stem.rstrip("0123456789").removesuffix("_m").removesuffix("_f")
    found = _told(bare, {key: key for key in SPECIES})
    if isinstance(found, str):
        return found
    name, sort = SPECIES[found[1]]
    return Body(f"{found[0]} {name}".strip(), sort, path)


def _told(stem: str, kinds: dict[str, str]) -> tuple[str, str] | str:
    """(adjective, kind) of a file name, or why it does not tell."""
    parts = [part for part in tokens(stem) if part not in VARIANT]
    for taken in range(len(parts), -1, -1):
        kind = kinds.get("_".join(parts[:taken]))
        if kind is not None:
            break
    else:
        return NO_WORDS
    rest = parts[taken:]
    if any(part not in COLOURS and part not in WORDS for part in rest):
        return NO_WORDS
    told, _, noun = kind.rpartition("|")
    colours = [COLOURS[part] for part in rest if part in COLOURS]
    words = [WORDS[part] for part in rest if part not in COLOURS]
    return " ".join(filter(None, [told, *words, " and ".join(colours)])), noun


@dataclass
class Wardrobe:
    """The bodies and items whose names tell what they are; no two items of the same words or drawn alike."""

    bodies: list[Body] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def _leave_out(self, reason: str, path: str) -> None:
        self.left_out.setdefault(reason, []).append(path)


def read_wardrobe(tiles: Tiles) -> Wardrobe:
    """Every layer of the doll that can be told in words, the first drawing of each."""
    found = Wardrobe()
    names: set[str] = set()
    drawn: set[bytes] = set()
    for path in tiles.paths:
        folder = path.rpartition("/")[0]
        told: Body | Item | str
        if folder == f"player/{BODY}":
            told = body_of(path)
        elif folder in FOLDERS:
            told = item_of(path, FOLDERS[folder])
        else:
            continue
        pixels = tiles.art(path).tobytes()
        if isinstance(told, str):
            found._leave_out(told, path)
        elif pixels in drawn:
            found._leave_out(ALIKE, path)
        elif isinstance(told, Body):
            found.bodies.append(told)
            drawn.add(pixels)
        elif told.name in names:
            found._leave_out(AGAIN, path)
        else:
            found.items.append(told)
            names.add(told.name)
            drawn.add(pixels)
    return found
