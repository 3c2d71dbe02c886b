"""Edits of the doll: something put on, taken off or changed, told in words, the right answer known exactly.

Held-out items are new as a whole: no picture of `train` shows one.  Their kind and their colour occur apart,
so that what they look like can be told; the others, which no one could guess, stay in `train`.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from PIL import Image

from data_tools.tiles.art import Tiles
from data_tools.tiles.doll import SEEN, Doll, changed, dress
from data_tools.tiles.layers import Body, Item
from data_tools.tiles.wardrobe import GROWN, HELD
from data_tools.tiles.words import COLOURS

ACTIONS = {"add": 0.4, "remove": 0.4, "swap": 0.2}
WEAR = ("put on {a}", "make it wear {a}", "add {a}")
HOLD = ("give it {a}", "put {a} in its hand", "add {a}")
GROW = ("give it {a}", "add {a}")
UNDRESS = ("take off the {item}", "remove the {item}", "take off the {kind}", "remove the {kind}")
DROP = ("take away the {item}", "remove the {item}", "take away the {kind}", "remove the {kind}")
SWAP = ("change the {item} to {a}", "replace the {item} with {a}", "swap the {item} for {a}")
TRIES = 200
FEWEST = 3  # items of a kind, so that one can be held out and two show the kind
COLOUR_WORDS = frozenset(word for name in COLOURS.values() for word in name.split())


@dataclass(frozen=True)
class Edit:
    """A doll before and after, and the words that ask for it.

    item     what was put on, or what was taken off
    instead  what a swap took off
    """

    action: str
    before: Doll
    after: Doll
    item: Item
    instead: Item | None
    words: str


def split_items(items: list[Item], val: float, rng: Random) -> tuple[list[Item], list[Item]]:
    """Train and val: of every kind with at least FEWEST items its share of those told by colour alone."""
    kept = list(items)
    kinds = Counter((item.slot, item.kind) for item in items)
    wanted = {kind: max(1, round(val * n)) for kind, n in kinds.items() if n >= FEWEST}
    order = sorted(items)
    rng.shuffle(order)
    held = []
    for item in order:
        kind, words = (item.slot, item.kind), item.adjective.split()
        if not words or not COLOUR_WORDS.issuperset(words) or not wanted.get(kind):
            continue
        others = [one for one in kept if one != item]
        if all(any(word in one.adjective.split() for one in others) for word in words):
            wanted[kind] -= 1
            held.append(item)
            kept = others
    return kept, sorted(held)


def edits(
    tiles: Tiles,
    background: Image.Image,
    bodies: list[Body],
    items: list[Item],
    worn: list[Item],
    count: int,
    rng: Random,
) -> Iterator[Edit]:
    """`count` different edits at most, about `items` in turn, on dolls that wear `worn` besides.

    Every item shows by at least SEEN pixels of a tile.  Fewer come out where dolls run out.
    """
    if not items:
        return
    done: set[tuple] = set()
    turns: list[Item] = []
    for _ in range(count):
        for _ in range(TRIES):
            if not turns:
                turns = rng.sample(items, len(items))
            item = turns.pop()
            edit = _edit(item, bodies, worn, rng)
            if edit is None:
                continue
            bare = edit.before.without(item.slot)
            a, b, c = (doll.draw(tiles, background) for doll in (edit.before, edit.after, bare))
            key = (a.tobytes(), b.tobytes(), edit.words)
            # What a swap takes off and puts on has to show, each beside the doll without it.
            pairs = [(a, b), (a, c), (b, c)] if edit.instead else [(a, b)]
            if key not in done and all(changed(*pair).sum() >= SEEN for pair in pairs):
                done.add(key)
                yield edit
                break
        else:
            return


def _edit(item: Item, bodies: list[Body], worn: list[Item], rng: Random) -> Edit | None:
    fitting = [body for body in bodies if body.fits(item)]
    if not fitting:
        return None
    doll = dress(rng.choice(fitting), worn, rng)
    bare, dressed = doll.without(item.slot), doll.with_(item)
    (action,) = rng.choices(list(ACTIONS), list(ACTIONS.values()))
    if action == "add":
        forms = HOLD if item.slot in HELD else GROW if item.slot in GROWN else WEAR
        return Edit(action, bare, dressed, item, None, rng.choice(forms).format(a=item.a))
    if action == "remove":
        forms = DROP if item.slot in HELD + GROWN else UNDRESS
        if any(one.kind == item.kind for one in bare.items):
            forms = forms[:2]  # the kind alone would not say which
        words = rng.choice(forms).format(item=item.name, kind=item.kind)
        return Edit(action, dressed, bare, item, None, words)
    others = [one for one in worn if one.slot == item.slot and one != item and doll.body.fits(one)]
    if not others:
        return None
    other = rng.choice(others)
    words = rng.choice(SWAP).format(item=other.name, a=item.a)
    return Edit(action, bare.with_(other), dressed, item, other, words)
