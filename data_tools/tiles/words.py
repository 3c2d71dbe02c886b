"""File names to words: `wizard_lightgreen2` to `light green wizard`, with the reason where none come out.

A file name is words for the artist, some of them in short, with numbers for further drawings of one thing.
"""

import re

COLOURS = {
    name: name
    for name in (
        "black blue brown cyan gold green grey magenta orange pink purple red tan turquoise white yellow "
        "golden silver ruby"
    ).split()
} | {
    "gray": "grey",
    "redbrown": "red-brown",
    "ybrown": "yellow-brown",
    "blackgold": "black and gold",
    "blackred": "black and red",
    "bluegreen": "blue and green",
    "rb": "red and blue",
    "rw": "red and white",
}
DEPTHS = ("dark", "light", "brilliant", "sky")
COLOURS |= {f"{depth}{name}": f"{depth} {COLOURS[name]}" for depth in DEPTHS for name in COLOURS}

PERSONS = frozenset(
    "aragorn aragorn2 arwen boromir frodo gandalf gandalf_g gil-galad gimli helm_gimli isildur kryias "
    "legolas maxwell merry pipin sam saruman vanhel1 zhor chunli glove_chunli jessica pj lshield_louise "
    "shield_donald".split()
)
BY_NAME = "named for a person, which says nothing of what is seen"
PIECE = "a piece of a larger thing"
MARK = "a mark laid over other tiles"
NO_WORDS = "no plain words in the file name"

# Where a thing goes on in the next tile: sides, corners, borders; a lone letter says the same.
SIDES = frozenset(
    "left right middle up down top btm lft rgt bord corner wave overlay "
    "ne nw se sw tl tr bl br bb bcl bcr".split()
)


def tokens(stem: str) -> list[str]:
    """Words of a file name without the numbers that count drawings."""
    parts = [re.sub(r"\d+[a-z]?$", "", part) for part in re.split(r"[_\- ]+", stem)]
    found: list[str] = []
    for part in filter(None, parts):
        if found and found[-1] in DEPTHS and part in COLOURS:  # `dark_blue` is one colour
            part = found.pop() + part
        found.append(part)
    return found


def is_piece(stem: str) -> bool:
    """Whether a file name says that the tile is a side, a corner or a border of something."""
    parts = [part.lower() for part in re.split(r"[_\- ]+", stem)]
    bare = (re.sub(r"\d+$", "", part) for part in parts)
    return any(
        p in SIDES or len(p) == 1 or re.fullmatch(r"\d+[a-z]|[a-z]\d?", q) for p, q in zip(bare, parts)
    )


def listed(words: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def article(words: str) -> str:
    """The words with `a` or `an` before them."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"
