"""Words for things: noun phrases with open attributes, places, relations and references.

A `Group` is a noun phrase as a value: "two small red circles" leaves the cells open, "the star in the top
left" colour and size.  What is None is open: any thing fits, and a picture drawn from it may choose.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from data_tools.shapes.scene import Scene, Thing

NUMBERS = ("zero", "one", "two", "three", "four")
PLACES = (
    "top left",
    "top",
    "top right",
    "left",
    "middle",
    "right",
    "bottom left",
    "bottom",
    "bottom right",
)
_PREPOSITION = ("in", "at", "in", "on", "in", "on", "in", "at", "in")
RELATIONS = ("left of", "right of", "above", "below")
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
_LONG = {"left of": "to the left of", "right of": "to the right of", "above": "over", "below": "under"}


@dataclass(frozen=True, slots=True)
class Group:
    """`count` things that share what is named here; None leaves an attribute open."""

    shape: str | None = None
    colour: str | None = None
    size: str | None = None
    cell: int | None = None
    count: int = 1

    def fits(self, thing: Thing) -> bool:
        """Whether the thing is as told."""
        return (
            self.shape in (None, thing.shape)
            and self.colour in (None, thing.colour)
            and self.size in (None, thing.size)
            and self.cell in (None, thing.cell)
        )

    def among(self, scene: Scene) -> list[Thing]:
        """All things of the scene that fit."""
        return [thing for thing in scene.objects if self.fits(thing)]

    def only(self, scene: Scene) -> Thing | None:
        """The one thing that fits, or None if there is none or more than one."""
        found = self.among(scene)
        return found[0] if len(found) == 1 else None


IT = Group()  # nothing named: the only thing there is


def article(phrase: str) -> str:
    """The phrase with "a" or "an"."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def plural(noun: str) -> str:
    """The plural of a shape's name."""
    return noun + ("es" if noun.endswith("s") else "s")


def place(cell: int) -> str:
    """Where a cell is: "in the top left", "at the bottom"."""
    return f"{_PREPOSITION[cell]} the {PLACES[cell]}"


def noun(group: Group) -> str:
    """Size, colour and shape without article or place: "small red circles"."""
    name = group.shape or "shape"
    words = (group.size, group.colour, name if group.count == 1 else plural(name))
    return " ".join(word for word in words if word)


def a(group: Group) -> str:
    """Told for the first time: "a red circle at the top", "three stars"."""
    phrase = article(noun(group)) if group.count == 1 else f"{NUMBERS[group.count]} {noun(group)}"
    return phrase if group.cell is None else f"{phrase} {place(group.cell)}"


def the(group: Group) -> str:
    """Told as known: "the red circle", "the shape in the top left"; "it" when nothing is named."""
    if group == IT:
        return "it"
    phrase = f"the {noun(group)}"
    return phrase if group.cell is None else f"{phrase} {place(group.cell)}"


def relation_words(relation: str, rng: Random) -> str:
    """A relation said in its short form mostly, sometimes in its long one."""
    return _LONG[relation] if rng.random() < 0.25 else relation


def related(a: Thing, relation: str, b: Thing) -> bool:
    """Whether a stands left of / right of / above / below b, by grid column or row."""
    if relation == "left of":
        return a.column < b.column
    if relation == "right of":
        return a.column > b.column
    return a.row < b.row if relation == "above" else a.row > b.row


def listed(phrases: list[str]) -> str:
    """ "x", "x and y", "x, y and z"."""
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def everything(scene: Scene, order: Sequence[Thing] = ()) -> str:
    """All there is in a scene, nothing left open; things in this order, or else row by row."""
    things = [a(Group(t.shape, t.colour, t.size, t.cell)) for t in order or scene.objects]
    return f"{listed(things)} on a {scene.background} background"


# How a thing may be referred to, by the attributes named, and how often each way is tried first.
_WAYS: dict[tuple[str, ...], float] = {
    ("colour", "shape"): 5,
    ("shape",): 3,
    ("colour",): 1,
    (): 1,
    ("cell",): 0.5,
    ("size",): 0.5,
    ("size", "shape"): 0.7,
    ("size", "colour", "shape"): 0.7,
    ("shape", "cell"): 0.5,
}


def refer(
    rng: Random, scene: Scene, thing: Thing, without: tuple[str, ...] = (), must: str | None = None
) -> Group | None:
    """A noun phrase that fits this thing of the scene alone, in a way drawn by habit.

    without  attributes that may not be named, as a question for the colour may not name it
    must     an attribute that has to be named
    None if no way is left that singles the thing out.
    """
    ways = [
        way for way in _WAYS if not any(name in without for name in way) and (must is None or must in way)
    ]
    while ways:
        way = rng.choices(ways, [_WAYS[way] for way in ways])[0]
        group = Group(**{name: getattr(thing, name) for name in way})
        if group.only(scene) is not None:
            return group
        ways.remove(way)
    return None


def formal(text: str) -> str:
    """The text with a capital at its start and a mark at its end."""
    text = text[0].upper() + text[1:]
    return text if text[-1] in "?.!" else text + "."
