"""Which named tiles belong together, so that what is held out is really new.

Two names are kin if tiles of theirs are drawn nearly alike (a merfolk in and out of water); kin go to one
split.
"""

from collections import defaultdict

import numpy as np

from data_tools.tiles.art import Tiles

ALIKE = 0.75  # share of equal pixels, of those that either of two tiles covers, from which they are kin


def families(tiles: Tiles, names: dict[str, str]) -> dict[str, str]:
    """A family for every name, by tile path to name.

    Tiles are compared with those of the same section ("mon", "item/armour"), and everywhere if wholly equal.
    """
    family = {name: name for name in names.values()}

    def root(name: str) -> str:
        while family[name] != name:
            name = family[name]
        return name

    def join(a: str, b: str) -> None:
        a, b = sorted((root(a), root(b)))
        family[b] = a

    first: dict[bytes, str] = {}
    sections: dict[str, list[str]] = defaultdict(list)
    for path, name in names.items():
        join(name, first.setdefault(tiles.art(path).tobytes(), name))
        sections[section_of(path)].append(path)
    for paths in sections.values():
        art = np.stack([np.asarray(tiles.art(path)) for path in paths])  # (n, 32, 32, 4)
        covered = art[..., 3] > 0
        pixels = np.ascontiguousarray(art).view(np.uint32)[..., 0]
        for k in range(1, len(paths)):
            either = covered[:k] | covered[k]
            same = ((pixels[:k] == pixels[k]) & either).sum((1, 2))
            for j in np.nonzero(same >= ALIKE * either.sum((1, 2)))[0]:
                join(names[paths[j]], names[paths[k]])
    return {name: root(name) for name in family}


def section_of(path: str) -> str:
    """The folder of a tile, two deep at most."""
    return "/".join(path.split("/")[:-1][:2])
