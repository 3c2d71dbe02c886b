"""Write the emoji data: a folder of PNGs, rows for training and held-out rows, and the truth beside each.

OUT/pictures/*.png
OUT/train.jsonl   OUT/train.truth.jsonl     line n of the truth is about line n of the rows
OUT/val.jsonl     OUT/val.truth.jsonl       families that `train` has no picture of
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from PIL import Image

from data_tools.emoji.glyphs import Glyphs
from data_tools.emoji.names import Emoji, read_names
from data_tools.emoji.rows import EDITS, Example, examples, variants
from data_tools.emoji.views import GROUNDS, View, is_lopsided
from unimodal.errors import UserError

SPLITS = ("train", "val")
TASKS = ("t2i", "edit", "vqa")


@dataclass
class Made:
    """What `make_emoji` wrote and left out.

    pictures      how many PNGs
    families      families by split
    rows          rows by split and kind, as {"train": {"t2i": 7000, ...}, ...}
    left_out      names of emoji that the font does not show as one glyph
    alike         pairs of variants that the font draws alike, so that there is nothing to edit
    shaping       what joined code points to glyphs: "raqm", or "basic", which joins hardly any
    """

    pictures: int = 0
    families: Counter = field(default_factory=Counter)
    rows: dict[str, Counter] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    alike: int = 0
    shaping: str = ""

    def summary(self) -> str:
        """What was written and left out, in lines for a person."""
        lines = [f"{self.pictures} pictures, text shaped by {self.shaping}"]
        for split, rows in self.rows.items():
            kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(rows.items()))
            lines.append(f"{split}: {rows.total()} rows of {self.families[split]} families ({kinds})")
        if self.left_out:
            names = "; ".join(self.left_out[:3])
            lines.append(
                f"left out: {len(self.left_out)} emoji that the font does not show as one ({names} ...)"
            )
        if self.alike:
            lines.append(f"left out: edits between {self.alike} pairs that the font draws alike")
        return "\n".join(lines)


def make_emoji(
    out: str | Path,
    font: str | Path | None = None,
    size: int = 64,
    seed: int = 0,
    val: float = 0.1,
    names: str | Path | None = None,
    keep: Callable[[Emoji], bool] | None = None,
    progress: Callable[[int, int], None] | None = None,
    tasks: tuple[str, ...] = TASKS,
) -> Made:
    """Draw every emoji and write rows about it.

    font      a colour font; Noto Color Emoji where Debian puts it if None
    size      side of the pictures in pixels
    val       share of families held out, of every sort (with tones, with directions, ...)
    names     Unicode's emoji-test.txt; where Debian puts it if None
    keep      takes a part of the emoji only
    progress  called with (emoji drawn, emoji in all)
    tasks     which rows are written, some of TASKS
    The same arguments, font and names write the same bytes.
    Raises UserError if font or names are missing (naming the packages), or `out` has something in it.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not an empty folder. Name a new one, or empty it.")
    if not 0 < val < 1:
        raise UserError(f"val {val} is no share; expected a number between 0 and 1.")
    if not tasks or not set(tasks) <= set(TASKS):
        raise UserError(f"tasks {tasks}; expected some of {', '.join(TASKS)}.")
    glyphs = Glyphs(Path(font) if font else None, size)
    emoji = [one for one in read_names(Path(names) if names else None) if keep is None or keep(one)]
    made = Made(shaping=glyphs.shaping)
    (out / "pictures").mkdir(parents=True, exist_ok=True)
    shown, twins, lopsided = [], {}, set()
    first: dict[bytes, str] = {}
    for number, one in enumerate(emoji, 1):
        pixels = glyphs.draw(one.text)
        if pixels is None:
            made.left_out.append(one.name)
        else:
            Image.fromarray(pixels).save(out / "pictures" / f"{one.id}.png")
            shown.append(one)
            twins[one.id] = first.setdefault(pixels.tobytes(), one.id)
            if is_lopsided(pixels):
                lopsided.add(one.id)
        if progress is not None:
            progress(number, len(emoji))
    made.alike = _alike(shown, twins)
    for split, members in zip(SPLITS, split_families(shown, twins, val, Random(f"split/{seed}"))):
        made.families[split] = len({one.family for one in members})
        # Held-out pictures are plain: in other views they would be a harder test, not a larger one.
        rows = _rows(members, twins, lopsided, tasks, Random(f"{split}/{seed}"), varied=split == "train")
        made.rows[split] = _write(out, split, rows)
        _draw_views(out, glyphs, members, rows)
    made.pictures = sum(1 for _ in (out / "pictures").iterdir())
    return made


def split_families(
    emoji: list[Emoji], twins: dict[str, str], val: float, rng: Random
) -> tuple[list[Emoji], list[Emoji]]:
    """Train and val; families that share a picture stay together, and each sort of family gives its share."""
    cluster = {one.family: one.family for one in emoji}

    def root(family):
        while cluster[family] != family:
            family = cluster[family]
        return family

    by_id = {one.id: one for one in emoji}
    for one in emoji:
        a, b = root(one.family), root(by_id[twins[one.id]].family)
        cluster[max(a, b)] = min(a, b)
    sorts: dict[tuple, set] = defaultdict(set)
    traits = {family: [False] * len(EDITS) for family in cluster}
    for k, attribute in enumerate(EDITS):
        for group in variants(emoji, attribute):
            for one in group:
                traits[root(one.family)][k] = True
    for family in cluster:
        sorts[tuple(traits[root(family)])].add(root(family))
    held = set()
    for sort in sorted(sorts):
        families = sorted(sorts[sort])
        rng.shuffle(families)
        if len(families) > 1:
            held |= set(families[: max(1, round(val * len(families)))])
    return [e for e in emoji if root(e.family) not in held], [e for e in emoji if root(e.family) in held]


def _alike(emoji: list[Emoji], twins: dict[str, str]) -> int:
    return sum(
        twins[a.id] == twins[b.id]
        for attribute in EDITS
        for group in variants(emoji, attribute)
        for i, a in enumerate(group)
        for b in group[:i]
    )


def _rows(
    emoji: list[Emoji],
    twins: dict[str, str],
    lopsided: set[str],
    tasks: tuple[str, ...],
    rng: Random,
    varied: bool,
) -> list[Example]:
    """The rows of a split and their truth, shuffled."""
    found = list(examples(emoji, twins, lopsided, rng, varied))
    rng.shuffle(found)
    return [example for example in found if example[1]["kind"].split("/")[0] in tasks]


def _write(out: Path, split: str, rows: list[Example]) -> Counter:
    """Rows and truth of a split, line by line; returns how many of each kind."""
    for name, column in ((f"{split}.jsonl", 0), (f"{split}.truth.jsonl", 1)):
        lines = [json.dumps(row[column], ensure_ascii=False) + "\n" for row in rows]
        (out / name).write_text("".join(lines), encoding="utf-8")
    return Counter(truth["kind"] for _, truth in rows)


def _draw_views(out: Path, glyphs: Glyphs, emoji: list[Emoji], rows: list[Example]) -> None:
    """Draw what the rows show besides the emoji as they are: on another ground, mirrored, small."""
    by_id = {one.id: one for one in emoji}
    for name in sorted({name for row, _ in rows for name in row["images"]}):
        if not (out / name).exists():
            plain, view = View.parse(Path(name).stem)
            pixels, beside = (
                glyphs.draw(by_id[emoji].text, GROUNDS[view.ground]) if emoji else None
                for emoji in (plain, view.beside)
            )
            Image.fromarray(view.show(pixels, beside)).save(out / name)
