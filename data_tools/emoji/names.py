"""What each emoji is: read from Unicode's `emoji-test.txt` and told from its code points.

An emoji is a sequence of code points; skin tone, gender, hair and direction are code points of their own (UTS
#51), so taking them out gives the family of an emoji, and taking one out says which emoji differ by it alone.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from unimodal.errors import UserError

NAMES = Path("/usr/share/unicode/emoji/emoji-test.txt")
INSTALL = "apt-get install fonts-noto-color-emoji unicode-data"

JOIN, SHOW_AS_EMOJI, ARROW = 0x200D, 0xFE0F, 0x27A1
TONES = {
    0x1F3FB: "light",
    0x1F3FC: "medium-light",
    0x1F3FD: "medium",
    0x1F3FE: "medium-dark",
    0x1F3FF: "dark",
}
NO_TONE = "yellow"
HAIR = range(0x1F9B0, 0x1F9B4)
SIGNS = {0x2640: "woman", 0x2642: "man"}
# Code points that are a person of a gender: gender, and the person without it.
PERSONS = {
    0x1F9D1: ("person", 0x1F9D1),
    0x1F468: ("man", 0x1F9D1),
    0x1F469: ("woman", 0x1F9D1),
    0x1F9D2: ("person", 0x1F9D2),
    0x1F466: ("man", 0x1F9D2),
    0x1F467: ("woman", 0x1F9D2),
    0x1F9D3: ("person", 0x1F9D3),
    0x1F474: ("man", 0x1F9D3),
    0x1F475: ("woman", 0x1F9D3),
}
NOUNS = {
    0x1F9D2: {"person": "a child", "man": "a boy", "woman": "a girl"},
    0x1F9D3: {"person": "an older person", "man": "an old man", "woman": "an old woman"},
}
ADULTS = {"person": "a person", "man": "a man", "woman": "a woman"}
# One code point that shows what a longer sequence shows, or the same role under another gender.
SAME_FAMILY = {
    0x1F46B: (0x1F9D1, JOIN, 0x1F91D, JOIN, 0x1F9D1),
    0x1F46C: (0x1F9D1, JOIN, 0x1F91D, JOIN, 0x1F9D1),
    0x1F46D: (0x1F9D1, JOIN, 0x1F91D, JOIN, 0x1F9D1),
    0x1F491: (0x1F9D1, JOIN, 0x2764, JOIN, 0x1F9D1),
    0x1F48F: (0x1F9D1, JOIN, 0x2764, JOIN, 0x1F48B, JOIN, 0x1F9D1),
    0x1F934: (0x1FAC5,),
    0x1F478: (0x1FAC5,),
    0x1F385: (0x1F9D1, JOIN, 0x1F384),
    0x1F936: (0x1F9D1, JOIN, 0x1F384),
}
# Since Unicode 15.1 these face left, and right with an arrow; older lists do not name the latter.
FACING = frozenset(
    [(0x1F6B6,), (0x1F3C3,), (0x1F9CE,)] + [(0x1F9D1, JOIN, thing) for thing in (0x1F9AF, 0x1F9BC, 0x1F9BD)]
)


@dataclass(frozen=True)
class Emoji:
    """One emoji: its code points, and Unicode's name, group and subgroup for it."""

    points: tuple[int, ...]
    name: str
    group: str
    subgroup: str

    @property
    def text(self) -> str:
        """The string that a font draws."""
        return "".join(map(chr, self.points))

    @property
    def id(self) -> str:
        """Code points in hex, joined by `-`; the name of its picture."""
        return "-".join(f"{p:x}" for p in self.points)

    @cached_property
    def bare(self) -> tuple[int, ...]:
        """Code points without the selector that only asks for a coloured picture."""
        return tuple(p for p in self.points if p != SHOW_AS_EMOJI)

    @property
    def tones(self) -> tuple[str, ...]:
        """Skin tones that are named, in order; several for several people."""
        return tuple(TONES[p] for p in self.points if p in TONES)

    @property
    def short_name(self) -> str:
        """Unicode's name without skin tones: `man: dark skin tone, red hair` is `man: red hair`."""
        head, _, tail = self.name.partition(": ")
        rest = [word for word in tail.split(", ") if word and not word.endswith("skin tone")]
        return f"{head}: {', '.join(rest)}" if rest else head

    @property
    def gender(self) -> str | None:
        """`man`, `woman` or `person`; None if it shows no single person."""
        people = [p for p in self.bare if p in PERSONS]
        signs = [p for p in self.bare if p in SIGNS]
        if len(people) > 1 or {"men", "women", "people"} & set(self.name.replace(":", "").split()):
            return None
        if signs:
            return SIGNS[signs[0]]
        return PERSONS[people[0]][0] if people else "person"

    def noun(self, gender: str) -> str:
        """What this emoji would be called under another gender: a woman, a girl, an old woman."""
        base = PERSONS.get(self.bare[0], ("", 0))[1]
        return NOUNS.get(base, ADULTS)[gender]

    @property
    def without_gender(self) -> tuple[int, ...]:
        """Bare code points with neutral people and no gender signs."""
        return _without_signs(tuple(PERSONS[p][1] if p in PERSONS else p for p in self.bare))

    @property
    def without_tone(self) -> tuple[int, ...]:
        """Bare code points without skin tones."""
        return tuple(p for p in self.bare if p not in TONES)

    @property
    def without_direction(self) -> tuple[int, ...]:
        """Bare code points without the arrow that turns it to the right."""
        return self.bare[:-2] if self.bare[-2:] == (JOIN, ARROW) else self.bare

    @property
    def direction(self) -> str | None:
        """`left` or `right` where both exist, else None."""
        if self.without_direction != self.bare:
            return "right"
        return "left" if self.family in FACING else None

    @cached_property
    def family(self) -> tuple[int, ...]:
        """Code points without tone, gender, hair and direction: what must not be split apart."""
        points = replace(self, points=self.without_direction).without_gender
        points = tuple(p for p in points if p not in TONES and p not in HAIR)
        points = tuple(p for q in points for p in SAME_FAMILY.get(q, (q,)))
        return _tidy(points)


def _without_signs(points: tuple[int, ...]) -> tuple[int, ...]:
    """Leave out gender signs that are joined to a person; the signs themselves stay."""
    kept = [p for i, p in enumerate(points) if not (i and p in SIGNS and points[i - 1] == JOIN)]
    return _tidy(kept)


def _tidy(points) -> tuple[int, ...]:
    """Leave out joiners that join nothing."""
    kept: list[int] = []
    for p in points:
        if p != JOIN or (kept and kept[-1] != JOIN):
            kept.append(p)
    while kept and kept[-1] == JOIN:
        kept.pop()
    return tuple(kept)


def read_names(path: Path | None = None) -> list[Emoji]:
    """Every fully qualified emoji of `emoji-test.txt`, and those that face right.

    Raises UserError if the file is missing or is another one.
    """
    path = Path(path) if path else NAMES
    if not path.is_file():
        raise UserError(f"no list of emoji at {path}. On Debian: {INSTALL}")
    found: list[Emoji] = []
    group = subgroup = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# group: "):
            group = line.removeprefix("# group: ")
        elif line.startswith("# subgroup: "):
            subgroup = line.removeprefix("# subgroup: ")
        elif "; fully-qualified" in line:
            points, _, rest = line.partition(";")
            name = rest.partition("#")[2].split(maxsplit=2)[2]  # the emoji, its version, its name
            found.append(Emoji(tuple(int(p, 16) for p in points.split()), name, group, subgroup))
    if not found:
        raise UserError(f"{path} names no emoji; expected Unicode's emoji-test.txt. On Debian: {INSTALL}")
    known = {emoji.bare for emoji in found}
    turned = [_turned(emoji) for emoji in found if emoji.direction == "left"]
    return found + [emoji for emoji in turned if emoji.bare not in known]


def _turned(emoji: Emoji) -> Emoji:
    """The emoji facing right, named as Unicode 15.1 does."""
    head, colon, tail = emoji.name.partition(":")
    name = f"{head} facing right{colon}{tail}"
    return replace(emoji, points=(*emoji.points, JOIN, ARROW, SHOW_AS_EMOJI), name=name)
