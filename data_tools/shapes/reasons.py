"""What a reply says before its answer: what a picture is going to hold, or what was seen that decides.

A caption leaves much of a picture open.  Said first, it is chosen word by word and never blended, and what is
drawn after it is told in full (chain of thought, Wei et al. 2022; before pictures, BAGEL, Deng et al. 2025).
A question that takes two looks is answered after what each of them saw.  The answer follows the last colon.
"""

from data_tools.shapes.language import OPPOSITE, PLACES, Group, listed, place, related
from data_tools.shapes.open_questions import NOTHING
from data_tools.shapes.question import Question
from data_tools.shapes.scene import COLOURS, SHAPES, Scene, Thing

NOWHERE = "nowhere"
COLON = ":"


def placed(scene: Scene, words: str) -> bool:
    """Whether words tell the place of everything in the scene."""
    return all(place(thing.cell) in words for thing in scene.objects)


def reason(question: Question, scene: Scene, places: bool = True) -> str | None:
    """What decides the answer in this scene; None where one look is enough or all there is.

    places  whether it is known where things are, as in a picture
    """
    q = question
    if q.kind == "count":
        return _found(q.a, scene, places)
    if q.kind == "existence":
        return _partners(q.a, scene)
    if q.kind == "comparison" and q.word == "more":
        one, other = (_found(group, scene, places) for group in (q.a, q.b))
        return f"{one} against {other}"
    if q.kind not in ("comparison", "relation"):
        return None
    first, second = q.a.only(scene), q.b.only(scene)
    if first is None or second is None:
        return None
    if q.kind == "comparison":
        name = "size" if q.word in ("larger", "smaller") else q.word
        return f"{getattr(first, name)} and {getattr(second, name)}"
    if places:
        return f"{PLACES[first.cell]} and {PLACES[second.cell]}"
    return next((word for word in (q.word, OPPOSITE[q.word]) if related(first, word, second)), None)


def _found(group: Group, scene: Scene, places: bool) -> str | None:
    """Each thing that fits: where it is, or, where places are not known, what is not named of it."""
    things = group.among(scene)
    if places:
        return listed([PLACES[thing.cell] for thing in things] or [NOWHERE])
    if group.shape and group.colour:
        return None
    return listed(_open(group, things) or [NOTHING])


def _partners(group: Group, scene: Scene) -> str:
    """Of the things of this shape, or else of this colour, the other one, each value once."""
    alike = Group(group.shape) if group.shape else Group(None, group.colour)
    return listed(list(dict.fromkeys(_open(alike, alike.among(scene)))) or [NOTHING])


def _open(group: Group, things: list[Thing]) -> list[str]:
    """Colour, if the shape is named, else shape, of each thing, in the order of the world's own lists."""
    name, order = ("colour", list(COLOURS)) if group.shape else ("shape", list(SHAPES))
    values = [getattr(thing, name) for thing in things]
    return sorted(values, key=lambda value: (order.index(value) if value in order else len(order), value))


def with_reason(why: str | None, answer: str) -> str:
    """The reply."""
    return f"{why}{COLON} {answer}" if why else answer


def final(reply: str) -> str:
    """The answer that a reply comes to: what follows its last colon, or all of it."""
    return reply.rpartition(COLON)[2].strip()
