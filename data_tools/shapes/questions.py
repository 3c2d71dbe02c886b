"""Questions about a scene, with short answers that a program can compute for any scene.

The same questions are asked of a picture and of a scene told in words (see `question_words`).  The wanted
answer is drawn first and a scene made to fit it, so that yes and no, and the numbers, are equally frequent.
"""

from collections.abc import Callable
from dataclasses import replace
from random import Random

from data_tools.shapes import open_questions
from data_tools.shapes.language import (
    IT,
    NUMBERS,
    OPPOSITE,
    PLACES,
    RELATIONS,
    Group,
    refer,
    related,
)
from data_tools.shapes.question import Question
from data_tools.shapes.scene import BACKGROUNDS, COLOURS, MOST, SIZES, Scene, Thing, World, random_scene


def answer(question: Question, scene: Scene) -> str | None:
    """The answer in this scene, or None where the words do not single out a thing."""
    q = question
    if q.kind == "background":
        return scene.background
    if q.kind in open_questions.ANSWERS:
        return open_questions.ANSWERS[q.kind](q, scene)
    if q.kind == "count":
        return NUMBERS[len(q.a.among(scene))] if len(q.a.among(scene)) < len(NUMBERS) else None
    if q.kind == "existence":
        return _yes(bool(q.a.among(scene)))
    if q.kind == "comparison" and q.word == "more":
        return _yes(len(q.a.among(scene)) > len(q.b.among(scene)))
    first = q.a.only(scene)
    if first is None:
        return None
    if q.kind in ("colour", "shape"):
        return getattr(first, q.kind)
    if q.kind == "position":
        return PLACES[first.cell]
    second = q.b.only(scene)
    if second in (None, first):
        return None
    if q.kind == "relation":
        return _yes(related(first, q.word, second))
    if q.word == "larger":
        return _yes(first.size == "large" and second.size == "small")
    if q.word == "smaller":
        return _yes(first.size == "small" and second.size == "large")
    return _yes(getattr(first, q.word) == getattr(second, q.word))


def _yes(value: bool) -> str:
    return "yes" if value else "no"


Made = tuple[Scene, Question]


def _key_of(rng: Random, scene: Scene, world: World) -> Thing:
    return rng.choice([thing for thing in scene.objects if thing.pair in world.keys])


def _attribute(rng: Random, world: World, kind: str) -> Made | None:
    scene = random_scene(rng, world)
    group = refer(rng, scene, _key_of(rng, scene, world), without=(kind,))
    return group and (scene, Question(kind, group))


def _position(rng: Random, world: World, kind: str) -> Made | None:
    scene = random_scene(rng, world)
    group = refer(rng, scene, _key_of(rng, scene, world), without=("cell",))
    return group and (scene, Question(kind, group))


def _open(rng: Random, world: World, kind: str) -> Made | None:
    scene = random_scene(rng, world)
    question = open_questions.open_question(rng, scene, kind)
    return question and (scene, question)


def _background(rng: Random, world: World, kind: str) -> Made:
    return random_scene(rng, world), Question(kind)


def _count(rng: Random, world: World, kind: str) -> Made | None:
    wanted = rng.randint(0, MOST)
    colour, shape = rng.choice(world.keys)
    groups = (Group(shape), Group(None, colour), Group(shape, colour), IT)
    group = rng.choices(groups, (4, 3, 1.5, 1.5 if wanted else 0))[0]
    return _with(rng, world, [(group, wanted)], Question(kind, group))


def _existence(rng: Random, world: World, kind: str) -> Made:
    scene = random_scene(rng, world)
    yes = rng.random() < 0.5
    things = scene.objects
    while True:
        if yes:
            colour, shape = _key_of(rng, scene, world).pair
        elif len(things) > 1 and rng.random() < 0.5:  # the colour of one thing with the shape of another
            colour, shape = rng.choice(things).colour, rng.choice(things).shape
        else:
            colour, shape = rng.choice(world.pairs)
        group = rng.choice((Group(shape, colour), Group(shape, colour), Group(shape), Group(None, colour)))
        if bool(group.among(scene)) == yes and ((colour, shape) in world.pairs):
            return scene, Question(kind, group)


def _with(rng: Random, world: World, wanted: list[tuple[Group, int]], question: Question) -> Made | None:
    """A scene with the wanted number of each group, a key thing among them, and others that fit none."""
    things: list[tuple[str, str]] = []
    for group, count in wanted:
        things += [rng.choice(world.options(group.shape, group.colour)) for _ in range(count)]
    room = MOST - len(things)
    if room < 0:
        return None
    strangers = [pair for pair in world.pairs if not any(_fits(group, pair) for group, _ in wanted)]
    more = rng.randint(0 if things else 1, room) if strangers else 0
    things += [rng.choice(strangers) for _ in range(more)]
    if not any(pair in world.keys for pair in things):
        return None
    free = rng.sample(range(9), len(things))
    objects = tuple(Thing(cell, s, c, rng.choice(SIZES)) for cell, (c, s) in zip(free, things))
    return Scene(objects, rng.choice(tuple(BACKGROUNDS))), question


def _fits(group: Group, pair: tuple[str, str]) -> bool:
    return group.colour in (None, pair[0]) and group.shape in (None, pair[1])


def _two_things(rng: Random, world: World, kind: str, without: tuple[str, ...]) -> tuple | None:
    scene = random_scene(rng, world, rng.choice((2, 2, 3, 3, 4)))
    one, other = rng.sample(scene.objects, 2)
    if not (one.pair in world.keys or other.pair in world.keys):
        return None
    first = refer(rng, scene, one, without)
    second = refer(rng, scene, other, without)
    return (scene, one, other, first, second) if first and second else None


def _relation(rng: Random, world: World, kind: str) -> Made | None:
    made = _two_things(rng, world, kind, ("cell",))
    if made is None:
        return None
    scene, one, other, first, second = made
    true = [name for name in RELATIONS if related(one, name, other)]
    relation = rng.choice(true)
    return scene, Question(kind, first, second, relation if rng.random() < 0.5 else OPPOSITE[relation])


def _comparison(rng: Random, world: World, kind: str) -> Made | None:
    word = rng.choice(("more", "more", "larger", "smaller", "colour", "size", "shape"))
    yes = rng.random() < 0.5
    if word == "more":
        name = rng.choice(("shape", "colour"))
        one, other = rng.sample(world.shapes if name == "shape" else tuple(COLOURS), 2)
        many, few = rng.choice(((1, 0), (2, 0), (2, 1), (2, 1), (3, 0), (3, 1)))
        low, high = rng.choice(((few, many), (few, many), (1, 1), (2, 2)))
        counts = (many, few) if yes else (low, high)
        groups = [Group(**{name: value}) for value in (one, other)]
        return _with(rng, world, list(zip(groups, counts)), Question(kind, *groups, word))
    made = _two_things(
        rng, world, kind, ("cell", "size") if word in ("larger", "smaller", "size") else ("cell", word)
    )
    if made is None:
        return None
    scene, one, other, first, second = made
    changed = other
    if word in ("larger", "smaller"):
        big, small = SIZES[1], SIZES[0]
        sizes = (big, small) if (word == "larger") == yes else (small, big)
        if not yes and rng.random() < 0.3:
            sizes = (rng.choice(SIZES),) * 2
        scene = scene.swapped(one, replace(one, size=sizes[0]))
        changed = replace(other, size=sizes[1])
    elif word == "size" and yes != (one.size == other.size):
        changed = replace(other, size=SIZES[other.size == "small"])
    elif word in ("colour", "shape") and yes and getattr(one, word) != getattr(other, word):
        changed = replace(other, **{word: getattr(one, word)})
        if changed.pair not in world.pairs:
            return None
    elif word in ("colour", "shape") and not yes and getattr(one, word) == getattr(other, word):
        return None
    scene = scene.swapped(other, changed)
    question = Question(kind, first, second, word)
    keyed = any(thing.pair in world.keys for thing in scene.objects)
    return (scene, question) if keyed and answer(question, scene) == _yes(yes) else None


KINDS: dict[str, Callable[[Random, World, str], Made | None]] = {
    "colour": _attribute,
    "shape": _attribute,
    "count": _count,
    "existence": _existence,
    "relation": _relation,
    "comparison": _comparison,
    "position": _position,
    "background": _background,
    **dict.fromkeys(open_questions.ANSWERS, _open),
}
# What takes two looks is learned last, so it is asked more often.
WEIGHTS = {name: 1.0 for name in KINDS} | {
    "background": 0.5,
    "count": 3.5,
    "relation": 4.0,
    "comparison": 2.0,
    "existence": 1.5,
    "list": 2.0,
}


def make_question(rng: Random, world: World, kind: str) -> Made:
    """A scene and a question of this kind that has one right answer in it."""
    while True:
        made = KINDS[kind](rng, world, kind)
        if made:
            return made
