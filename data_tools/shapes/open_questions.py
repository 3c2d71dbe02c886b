"""Questions whose answers say more than yes or no: they teach, and are not judged.

A yes tells one bit of what was understood.  Where something stands from something else, which colours the
stars have, or all there is, is found by the same looks and tells all of what they saw.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import permutations
from random import Random

from data_tools.shapes.language import IT, PLACES, Group, everything, listed, noun, refer, the
from data_tools.shapes.question import Question
from data_tools.shapes.scene import COLOURS, SHAPES, SIZES, Scene, Thing

NOTHING = "nothing"


def _each(say: Callable[[Thing], str], order: Sequence[str]) -> Callable[[Question, Scene], str]:
    """Something of the things that fit, each value once and in an order that needs no places."""

    def answer(q: Question, scene: Scene) -> str:
        found = {say(thing) for thing in q.a.among(scene)}
        known = [value for value in order if value in found]
        return listed(known + sorted(found.difference(order)) or [NOTHING])  # a new word comes last

    return answer


def _direction(q: Question, scene: Scene) -> str | None:
    first, second = q.a.only(scene), q.b.only(scene)
    if None in (first, second) or first == second:
        return None
    up = "above" if first.row < second.row else "below" if first.row > second.row else ""
    aside = "left" if first.column < second.column else "right" if first.column > second.column else ""
    return " and ".join(word for word in (up, aside) if word)


def _more(q: Question, scene: Scene) -> str:
    first, second = len(q.a.among(scene)), len(q.b.among(scene))
    return _many(q.a) if first > second else _many(q.b) if second > first else "neither"


def _many(group: Group) -> str:
    return noun(replace(group, count=2))


ANSWERS: dict[str, Callable[[Question, Scene], str | None]] = {
    "list": lambda q, scene: everything(scene),
    "places": _each(lambda thing: PLACES[thing.cell], PLACES),
    "colours": _each(lambda thing: thing.colour, tuple(COLOURS)),
    "shapes": _each(lambda thing: thing.shape, SHAPES),
    "sizes": _each(lambda thing: thing.size, SIZES),
    "direction": _direction,
    "most": _more,
}
PLACED = ("list", "places", "direction")  # what has to be told of a scene to answer them
SIZED = ("list", "sizes")
# How often each is asked where there is something to look at.
WEIGHTS = {
    "list": 3.0,
    "places": 1.0,
    "colours": 1.0,
    "shapes": 1.0,
    "sizes": 1.0,
    "direction": 2.0,
    "most": 1.0,
}


def forms(q: Question) -> tuple[str, ...]:
    """The ways to ask."""
    first, second, many = the(q.a), the(q.b), _many(q.a)
    return {
        "list": ("what is there?", "list the shapes", "what do you see?", "describe it"),
        "places": (f"where are the {many}?", f"in which places are {many}?"),
        "colours": (f"what colors are the {many}?", f"which colors do the {many} have?"),
        "shapes": (f"what shapes are the {many}?", f"which shapes do the {many} have?"),
        "sizes": (f"what sizes are the {many}?", f"which sizes do the {many} have?"),
        "direction": (f"where is {first} from {second}?", f"how does {first} stand to {second}?"),
        "most": (f"which are more, the {many} or the {_many(q.b)}?",),
    }[q.kind]


def open_question(rng: Random, scene: Scene, kind: str, without: tuple[str, ...] = ()) -> Question | None:
    """A question of this kind about a scene, naming nothing of `without`; None where there is none."""
    if kind == "list":
        return Question(kind)
    thing = rng.choice(scene.objects)
    if kind == "direction":
        if len(scene.objects) < 2:
            return None
        pair = rng.choice(list(permutations(scene.objects, 2)))
        first, second = (refer(rng, scene, one, (*without, "cell")) for one in pair)
        return first and second and Question(kind, first, second)
    name = {"colours": "shape", "shapes": "colour"}.get(kind) or rng.choice(("shape", "colour"))
    values = SHAPES if name == "shape" else tuple(COLOURS)
    here = getattr(thing, name)
    groups = [Group(**{name: value}) for value in (here, rng.choice([v for v in values if v != here]))]
    if kind == "most":
        return Question(kind, *rng.sample(groups, 2))
    everything = kind != "places" and rng.random() < 0.2
    return Question(kind, IT if everything else groups[rng.random() < 0.15])
