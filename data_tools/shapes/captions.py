"""Captions: what a picture is asked to hold, in GenEval's six kinds, and whether a scene holds just that.

A caption is a `Spec`: groups of things, at most one relation between the first two, at most a background.
What it leaves open is drawn at random; `follows` asks for everything it promises and nothing more.
The kinds are those of GenEval (Ghosh et al. 2023): single, two, counting, colors, position, attribute.
"""

from dataclasses import dataclass, replace
from itertools import permutations
from random import Random

from data_tools.shapes.language import RELATIONS, Group, a, listed, related, relation_words
from data_tools.shapes.scene import BACKGROUNDS, CELLS, SIZES, Scene, Thing, World, random_scene


@dataclass(frozen=True, slots=True)
class Spec:
    """What a caption promises.  `relation` holds between the first and the second group."""

    groups: tuple[Group, ...]
    relation: str | None = None
    background: str | None = None


def follows(spec: Spec, scene: Scene) -> bool:
    """Whether the scene holds exactly what the caption promises, and no further thing."""
    return spec.background in (None, scene.background) and named(spec, scene) is not None


def named(spec: Spec, scene: Scene) -> tuple[Thing, ...] | None:
    """The things of the scene as the caption names them, in its order, or None if it does not fit."""
    wanted = [group for group in spec.groups for _ in range(group.count)]
    if len(wanted) != len(scene.objects):
        return None
    for things in permutations(scene.objects):
        fit = all(group.fits(thing) for group, thing in zip(wanted, things))
        if fit and (spec.relation is None or related(things[0], spec.relation, things[1])):
            return things
    return None


def _pair_of(rng: Random, world: World, key: bool) -> dict[str, str]:
    colour, shape = rng.choice(world.keys if key else world.pairs)
    return {"colour": colour, "shape": shape}


def _single(rng: Random, world: World) -> Spec:
    named = _pair_of(rng, world, key=True)
    if world.open_colours and rng.random() < 0.6:
        del named["colour"]
    what = rng.random()
    if what < 0.35:
        named["size"] = rng.choice(SIZES)
    elif what < 0.5:
        named["cell"] = rng.choice(CELLS)
    return Spec((Group(**named),))


def _two(rng: Random, world: World) -> Spec:
    first = Group(**_pair_of(rng, world, key=True))
    second = Group(**_pair_of(rng, world, key=False))
    while second.shape == first.shape:
        second = Group(**_pair_of(rng, world, key=False))
    second = replace(second, colour=None)
    if world.open_colours and rng.random() < 0.7:
        first = replace(first, colour=None)
    return Spec((first, second) if rng.random() < 0.5 else (second, first))


def _counting(rng: Random, world: World) -> Spec:
    named = _pair_of(rng, world, key=True)
    what = rng.random()
    if what < 0.35 and world.open_colours:
        del named["colour"]
    elif what > 0.93 and world.keys == world.pairs:
        del named["shape"]
    many = Group(**named, count=rng.randint(2, 4))
    if many.shape is None or many.count == 4 or rng.random() < 0.75:
        return Spec((many,))
    other = Group(**_pair_of(rng, world, key=False), count=rng.randint(1, 4 - many.count))
    while other.shape == many.shape:
        other = replace(other, **_pair_of(rng, world, key=False))
    if many.colour is None:
        other = replace(other, colour=None)
    return Spec((many, other))


def _colors(rng: Random, world: World) -> Spec:
    return Spec((Group(**_pair_of(rng, world, key=True)),))


def _position(rng: Random, world: World) -> Spec:
    first = Group(**_pair_of(rng, world, key=True))
    if rng.random() < 0.25:
        return Spec((replace(first, cell=rng.choice(CELLS)),))
    second = Group(**_pair_of(rng, world, key=False))
    while second.shape == first.shape:
        second = Group(**_pair_of(rng, world, key=False))
    if rng.random() < 0.2:
        here, there = rng.sample(CELLS, 2)
        return Spec((replace(first, cell=here), replace(second, cell=there)))
    if world.open_colours and rng.random() < 0.3:
        first, second = replace(first, colour=None), replace(second, colour=None)
    if rng.random() < 0.5:
        first, second = second, first
    return Spec((first, second), rng.choice(RELATIONS))


def _attribute(rng: Random, world: World) -> Spec:
    groups = [Group(**_pair_of(rng, world, key=True))]
    wanted = 2 if rng.random() < 0.75 else 3
    while len(groups) < wanted:
        group = Group(**_pair_of(rng, world, key=False))
        if group not in groups:
            groups.append(group)
    if rng.random() < 0.2:
        groups = [replace(group, size=rng.choice(SIZES)) for group in groups]
    rng.shuffle(groups)
    return Spec(tuple(groups))


KINDS = {
    "single": _single,
    "two": _two,
    "counting": _counting,
    "colors": _colors,
    "position": _position,
    "attribute": _attribute,
}
FULL = "full"  # no kind of GenEval's: what leaves little or nothing open, for training
# Binding and counting are learned last and are met more often.  What a caption leaves open is noise to one
# who learns what its words mean, so many pictures are told in full.
WEIGHTS = {
    "single": 1.0,
    "two": 1.0,
    "counting": 1.5,
    "colors": 1.0,
    "position": 1.5,
    "attribute": 2.0,
    FULL: 2.0,
}


def _full(rng: Random, world: World) -> Spec:
    scene = random_scene(rng, world, rng.choices((1, 2, 3, 4), (3, 4, 3, 2))[0])
    sized = rng.random() < 0.6
    groups = [Group(t.shape, t.colour, t.size if sized else None, t.cell) for t in scene.objects]
    rng.shuffle(groups)
    return Spec(tuple(groups), background=scene.background if rng.random() < 0.8 else None)


def make_spec(rng: Random, world: World, kind: str) -> Spec:
    """What a caption of this kind promises."""
    if kind == FULL:
        return _full(rng, world)
    spec = KINDS[kind](rng, world)
    return replace(spec, background=rng.choice(tuple(BACKGROUNDS))) if rng.random() < 0.25 else spec


def draw(rng: Random, spec: Spec, world: World) -> Scene:
    """A scene that follows the spec, with everything it leaves open drawn at random.

    A relation is drawn in one row or one column, as a person would draw it.
    """
    wanted = [group for group in spec.groups for _ in range(group.count)]
    if spec.relation:
        line, (low, high) = rng.randrange(3), sorted(rng.sample(range(3), 2))
        first, second = (low, high) if spec.relation in ("left of", "above") else (high, low)
        across = spec.relation in ("left of", "right of")
        cells = [3 * line + at if across else 3 * at + line for at in (first, second)]
    else:
        named = {group.cell for group in wanted}
        free = rng.sample([cell for cell in CELLS if cell not in named], len(wanted))
        cells = [free[k] if group.cell is None else group.cell for k, group in enumerate(wanted)]
    things = []
    for group, cell in zip(wanted, cells):
        colour, shape = _any_pair(rng, group, world)
        things.append(Thing(cell, shape, colour, group.size or rng.choice(SIZES)))
    return Scene(tuple(things), spec.background or rng.choice(tuple(BACKGROUNDS)))


def _any_pair(rng: Random, group: Group, world: World) -> tuple[str, str]:
    if group.colour and group.shape:
        return group.colour, group.shape
    return rng.choice(world.options(group.shape, group.colour))


def caption(rng: Random, spec: Spec) -> str:
    """The spec in words, without a verb: "a red circle and a blue star on a black background"."""
    if spec.relation:
        first, second = spec.groups
        words = f"{a(first)} {relation_words(spec.relation, rng)} {a(second)}"
    else:
        words = listed([a(group) for group in spec.groups])
    return f"{words} on a {spec.background} background" if spec.background else words


_REQUESTS = (
    ("{}", 40),
    ("draw {}", 34),
    ("a picture of {}", 6),
    ("show me {}", 4),
    ("paint {}", 4),
    ("make a picture of {}", 3),
    ("please draw {}", 4),
    ("can you draw {}?", 3),
    ("i want {}", 2),
)


def request(rng: Random, words: str) -> str:
    """Ask for a picture: the bare caption or "draw ..." mostly."""
    forms, weights = zip(*_REQUESTS)
    return rng.choices(forms, weights)[0].format(words)
