"""Edits: changes told in words, each a function from scene to scene that touches nothing else.

An `Edit` is applied to any scene in which its words are unambiguous, so that in a conversation it can be
judged on the picture that the model itself drew.
"""

from dataclasses import dataclass, replace
from random import Random

from data_tools.shapes.language import IT, PLACES, Group, a, article, place, refer, the
from data_tools.shapes.scene import BACKGROUNDS, MOST, SIZES, Scene, Thing, World, random_scene


@dataclass(frozen=True, slots=True)
class Edit:
    """A change.  `target` is what changes, `value` the new colour, shape, size, cell or background.

    For an added thing `target` is what is added, open attributes and all; `other` is swapped with `target`.
    """

    kind: str
    target: Group = IT
    value: str | int = ""
    other: Group = IT


_ATTRIBUTE = {"recolour": "colour", "reshape": "shape", "resize": "size", "move": "cell"}


def apply(edit: Edit, scene: Scene) -> Scene | None:
    """The scene after the edit, or None where its words do not say which thing, or it cannot be done.

    What an added thing leaves open is filled in with the first choice; judge by `edit_followed`.
    """
    if edit.kind == "background":
        return replace(scene, background=edit.value)
    if edit.kind == "add":
        return _added(edit.target, scene)
    thing = edit.target.only(scene)
    if thing is None:
        return None
    if edit.kind == "remove":
        return scene.swapped(thing)
    if edit.kind == "swap":
        partner = edit.other.only(scene)
        if partner in (None, thing):
            return None
        moved = replace(thing, cell=partner.cell), replace(partner, cell=thing.cell)
        return scene.swapped(thing).swapped(partner, *moved)
    if edit.kind == "move" and edit.value != thing.cell and edit.value not in scene.free():
        return None
    return scene.swapped(thing, replace(thing, **{_ATTRIBUTE[edit.kind]: edit.value}))


def _added(new: Group, scene: Scene) -> Scene | None:
    free = scene.free()
    if not free or (new.cell is not None and new.cell not in free):
        return None
    cell = free[0] if new.cell is None else new.cell
    thing = Thing(cell, new.shape or "circle", new.colour or "red", new.size or "large")
    return replace(scene, objects=(*scene.objects, thing))


def edit_followed(edit: Edit, before: Scene, got: Scene) -> bool:
    """Whether `got` is `before` with the edit done and everything else untouched."""
    if edit.kind != "add":
        return got == apply(edit, before)
    new = [thing for thing in got.objects if thing not in before.objects]
    return (
        got.background == before.background
        and len(new) == 1
        and len(got.objects) == len(before.objects) + 1
        and edit.target.fits(new[0])
    )


# Each kind gives (scene before, scene after, edit).  The key thing of the world is what changes.
Made = tuple[Scene, Scene, Edit]
Names = tuple[str, ...]


def _done(scene: Scene, edit: Edit | None) -> Made | None:
    return (scene, apply(edit, scene), edit) if edit else None


def _key_of(rng: Random, scene: Scene, world: World) -> Thing:
    keys = [thing for thing in scene.objects if thing.pair in world.keys]
    return rng.choice(keys or scene.objects)


def _to(rng: Random, world: World, thing: Thing, name: str) -> str | None:
    """A new colour or shape for the thing; the old or the new pair is then a key pair."""
    fixed = {"shape": thing.shape} if name == "colour" else {"colour": thing.colour}
    options = world.options(fixed.get("shape"), fixed.get("colour"), thing.pair not in world.keys)
    values = [pair[0] if name == "colour" else pair[1] for pair in options if pair != thing.pair]
    return rng.choice(values) if values else None


def _attribute(rng: Random, world: World, kind: str, scene: Scene, without: Names = ()) -> Made | None:
    name = _ATTRIBUTE[kind]
    thing = rng.choice(scene.objects) if name in ("colour", "shape") else _key_of(rng, scene, world)
    if name == "cell":
        value = rng.choice(scene.free())
    elif name == "size":
        value = SIZES[thing.size == "small"]
    else:
        value = _to(rng, world, thing, name)
    if value is None:
        return None
    target = refer(rng, scene, thing, (*without, "size") if name == "size" else without)
    return _done(scene, target and Edit(kind, target, value))


def _add(rng: Random, world: World, kind: str, scene: Scene, without: Names = ()) -> Made | None:
    if len(scene.objects) == MOST:
        return None
    colour, shape = rng.choice(world.keys)
    thing = Thing(rng.choice(scene.free()), shape, colour, rng.choice(SIZES))
    new = Group(
        shape, colour, thing.size if rng.random() < 0.3 else None, thing.cell if rng.random() < 0.6 else None
    )
    return scene, replace(scene, objects=(*scene.objects, thing)), Edit(kind, new)


def _remove(rng: Random, world: World, kind: str, scene: Scene, without: Names = ()) -> Made | None:
    if len(scene.objects) == 1:
        return None
    target = refer(rng, scene, _key_of(rng, scene, world), without)
    return _done(scene, target and Edit(kind, target))


def _swap(rng: Random, world: World, kind: str, scene: Scene, without: Names = ()) -> Made | None:
    key = _key_of(rng, scene, world)
    others = [thing for thing in scene.objects if replace(thing, cell=0) != replace(key, cell=0)]
    if not others:
        return None
    target, other = (refer(rng, scene, thing, without) for thing in (key, rng.choice(others)))
    return _done(scene, target and other and Edit(kind, target, other=other))


def _background(rng: Random, world: World, kind: str, scene: Scene, without: Names = ()) -> Made | None:
    return _done(
        scene, Edit(kind, value=rng.choice([name for name in BACKGROUNDS if name != scene.background]))
    )


KINDS = {
    "recolour": _attribute,
    "reshape": _attribute,
    "resize": _attribute,
    "move": _attribute,
    "add": _add,
    "remove": _remove,
    "swap": _swap,
    "background": _background,
}
# Two things change at once in a swap, and a move redraws what it covered: they are learned last.
WEIGHTS = {name: 1.0 for name in KINDS} | {"move": 2.0, "swap": 4.0}


def make_edit(rng: Random, world: World, kind: str) -> Made:
    """A scene, an edit of this kind that its words single out in it, and the scene after."""
    while True:
        made = edit_of(rng, world, kind, random_scene(rng, world))
        if made is not None:
            return made


def edit_of(rng: Random, world: World, kind: str, scene: Scene, without: Names = ()) -> Made | None:
    """An edit of this kind to this scene, or None where it has none; `without` names what may not be said."""
    return KINDS[kind](rng, world, kind, scene, without)


_PHRASES = {
    "recolour": ("make {t} {v}", "turn {t} {v}", "paint {t} {v}", "change the color of {t} to {v}"),
    "reshape": ("turn {t} into {av}", "change {t} to {av}", "replace {t} with {av}", "make {t} {av}"),
    "move": ("move {t} to the {p}", "move {t} to the {p}", "put {t} {at}"),
    "add": ("add {new}", "add {new}", "draw {new} too", "put {new} in the picture"),
    "remove": ("remove {t}", "remove {t}", "delete {t}", "take away {t}", "erase {t}"),
    "swap": ("swap {t} and {o}", "swap {t} and {o}", "let {t} and {o} trade places"),
    "background": ("make the background {v}", "change the background to {v}", "use a {v} background"),
}
_RESIZE = {
    "small": ("make {t} small", "make {t} smaller", "shrink {t}"),
    "large": ("make {t} large", "make {t} bigger", "make {t} larger", "enlarge {t}"),
}


def instruction(rng: Random, edit: Edit) -> str:
    """The edit in words."""
    forms = _RESIZE[edit.value] if edit.kind == "resize" else _PHRASES[edit.kind]
    cell = edit.value if edit.kind == "move" else None
    form = rng.choice(forms)
    if "{new}" in form:
        at = edit.target.cell
        if "in the picture" in form and at is not None:  # two places in a row read badly
            form = "add {new}"
        return form.format(new=a(edit.target))
    return form.format(
        t=the(edit.target),
        o=the(edit.other),
        v=edit.value,
        av=article(str(edit.value)) if edit.kind == "reshape" else "",
        p=PLACES[cell] if cell is not None else "",
        at=place(cell) if cell is not None else "",
    )
