"""What a picture of the shapes world holds: coloured shapes in the cells of a 3x3 grid.

A `Scene` is a value: sorted, comparable, hashable.  A `World` says which (colour, shape) pairs may occur at
all and which ones the key thing of an example is drawn from; the three splits are three worlds.
"""

from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from random import Random

SHAPES = ("circle", "square", "triangle", "diamond", "star", "cross", "heart", "ring")
SIZES = ("small", "large")
COLOURS = {
    "red": (214, 24, 36),
    "orange": (250, 122, 0),
    "yellow": (255, 230, 20),
    "green": (24, 156, 48),
    "blue": (30, 70, 230),
    "purple": (136, 32, 184),
    "pink": (255, 128, 192),
    "cyan": (0, 208, 224),
}
BACKGROUNDS = {
    "white": (255, 255, 255),
    "black": (16, 16, 16),
    "gray": (128, 128, 128),
    "beige": (222, 198, 156),
}
CELLS = range(9)  # row by row from the top left
MOST = 4  # things in a drawn scene

# Each colour and each shape is held out once and so is still seen with seven partners.
HELD_OUT = (
    ("red", "diamond"),
    ("orange", "square"),
    ("yellow", "heart"),
    ("green", "star"),
    ("blue", "cross"),
    ("purple", "circle"),
    ("pink", "triangle"),
    ("cyan", "ring"),
)
Pair = tuple[str, str]


@dataclass(frozen=True, slots=True, order=True)
class Thing:
    """One shape.  `cell` counts the grid row by row, 0 top left to 8 bottom right."""

    cell: int
    shape: str
    colour: str
    size: str

    @property
    def pair(self) -> Pair:
        """(colour, shape), the unit that is held out."""
        return self.colour, self.shape

    @property
    def row(self) -> int:
        """0 top, 1 middle, 2 bottom."""
        return self.cell // 3

    @property
    def column(self) -> int:
        """0 left, 1 middle, 2 right."""
        return self.cell % 3


@dataclass(frozen=True, slots=True)
class Scene:
    """Things in order of their cells, on a background.  Two scenes that look the same are equal."""

    objects: tuple[Thing, ...]
    background: str

    def __post_init__(self):
        cells = [thing.cell for thing in self.objects]
        if any(a >= b for a, b in pairwise(cells)):
            if len(set(cells)) < len(cells):
                raise ValueError(f"two things in one cell: {self.objects}")
            object.__setattr__(self, "objects", tuple(sorted(self.objects)))

    def free(self) -> list[int]:
        """Cells that hold nothing."""
        taken = {thing.cell for thing in self.objects}
        return [cell for cell in CELLS if cell not in taken]

    def swapped(self, old: Thing, *new: Thing) -> "Scene":
        """The scene with `new` (possibly nothing) in place of `old`."""
        return replace(self, objects=tuple(t for t in self.objects if t != old) + new)


@dataclass(frozen=True)
class World:
    """Which pairs occur (`pairs`), and which ones the key thing of an example is taken from (`keys`).

    `open_colours`: whether a caption may leave the colour of the key thing to the painter.
    """

    pairs: tuple[Pair, ...]
    keys: tuple[Pair, ...]
    shapes: tuple[str, ...] = SHAPES
    open_colours: bool = True

    @cache  # noqa: B019  (a handful of worlds live as long as the program)
    def options(self, shape: str | None, colour: str | None, key: bool = False) -> tuple[Pair, ...]:
        """Pairs of this world with that shape and that colour, where given."""
        return tuple(
            (c, s)
            for c, s in (self.keys if key else self.pairs)
            if shape in (None, s) and colour in (None, c)
        )


ALL_PAIRS = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)
SEEN = tuple(pair for pair in ALL_PAIRS if pair not in HELD_OUT)
WORLDS = {
    "train": World(SEEN, SEEN),
    "val": World(SEEN, SEEN),
    "unseen": World(ALL_PAIRS, HELD_OUT, open_colours=False),
}


def random_thing(rng: Random, pairs: tuple[Pair, ...], cell: int) -> Thing:
    """A thing of one of `pairs` and any size in `cell`."""
    colour, shape = rng.choice(pairs)
    return Thing(cell, shape, colour, rng.choice(SIZES))


def random_scene(rng: Random, world: World, count: int | None = None) -> Scene:
    """A scene of `count` things (else 1 to 4) of which at least one is a key pair of the world."""
    count = count or rng.randint(1, MOST)
    cells = rng.sample(CELLS, count)
    key = random_thing(rng, world.keys, cells[0])
    others = tuple(random_thing(rng, world.pairs, cell) for cell in cells[1:])
    return Scene((key, *others), rng.choice(tuple(BACKGROUNDS)))


def has_held_out(scene: Scene) -> bool:
    """Whether any thing of the scene is of a held-out pair."""
    return any(thing.pair in HELD_OUT for thing in scene.objects)
