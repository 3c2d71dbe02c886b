"""Write the tiles' data: pictures, masks of what each edit changes, rows, and the truth beside each.

OUT/pictures/*.png   OUT/masks/*.png        a mask is white where the two pictures of an edit differ
OUT/train.jsonl   OUT/train.truth.jsonl     line n of the truth is about line n of the rows
OUT/val.jsonl     OUT/val.truth.jsonl       names, and items of the doll, that no row of `train` has
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from data_tools.real import SPLITS, Example, Made, ask, check_share, write_meta, write_split
from data_tools.shapes.build import empty_folder
from data_tools.tiles.art import ADDRESS, LICENCE, Tiles, enlarge, scale_of
from data_tools.tiles.doll import Doll, changed, told
from data_tools.tiles.edits import edits, split_items
from data_tools.tiles.kin import families, section_of
from data_tools.tiles.layers import Item, Wardrobe, read_wardrobe
from data_tools.tiles.names import name_of
from data_tools.tiles.wardrobe import BODY, FOLDERS
from unimodal.errors import UserError

MARK = "<image>"
DRAW = ("{}", "draw {}", "a picture of {}", "a game tile of {}")
TASKS = ("t2i", "edit")
MOST = 4  # drawings of one name; of a floor there are a dozen, hardly to be told apart
SHARE = 10  # val gets one edit for so many of train


def make_tiles(
    folder: str | Path,
    out: str | Path,
    count: int = 4000,
    size: int = 64,
    background: str = "white",
    tasks: tuple[str, ...] = TASKS,
    val: float = 0.1,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Made:
    """Write rows about the tiles in `folder`, a copy of `crawl/tiles`.

    count       edits of train, and as many dolls to draw; a tenth as many for val
    size        side of the pictures, a multiple of 32
    background  what tiles are laid over: a colour, or the path of a floor tile in the release
    tasks       "t2i" (names of tiles; dolls told in words), "edit" (layers of the doll), or both
    val         share of names, and of items of the doll, that are held out
    Truth of an edit: kind "edit/add", "edit/remove" or "edit/swap", the item, its slot, the path of its mask,
    and the share of changed pixels.  The same arguments and tiles write the same bytes.
    Raises UserError if the folder is not that of the tiles, or an option is out of range.
    """
    check_share(val)
    if count < 1 or not tasks or not set(tasks) <= set(TASKS):
        raise UserError(f"count {count}, tasks {tasks}; expected at least 1, and some of {', '.join(TASKS)}")
    scale = scale_of(size)
    tiles = Tiles(folder)
    maker = _Maker(tiles, tiles.background(background), scale, empty_folder(Path(out)))
    wardrobe = read_wardrobe(tiles)
    made = Made(left_out=tiles.left_out)
    held = dict(zip(SPLITS, split_items(wardrobe.items, val, Random(f"items/{seed}"))))
    names: dict[str, dict[str, str]] = {split: {} for split in SPLITS}
    if "t2i" in tasks:
        names = _split_names(tiles, val, Random(f"names/{seed}"), made)
    _merge(made.left_out, wardrobe.left_out)
    total = sum(map(len, names.values())) + count + -(-count // SHARE)
    for split in SPLITS:
        rng = Random(f"{split}/{seed}")
        examples = list(maker.named(names[split], rng))
        wanted = count if split == "train" else -(-count // SHARE)
        before = maker.done
        for example in maker.dolls(split, wardrobe, held, wanted, tasks, rng):
            examples.append(example)
            if progress is not None:
                progress(maker.done, total)
        if maker.done - before < wanted:
            made.notes.append(f"{split}: no more than {maker.done - before} of {wanted} edits could be made")
        rng.shuffle(examples)
        made.rows[split] = write_split(maker.out, split, examples)
        made.notes.append(
            f"{split}: {len(set(names[split].values()))} names, {len(held[split])} items of the doll"
        )
    options = {"count": count, "size": size, "background": background, "tasks": tasks, "val": val}
    held_out = {"names": sorted(set(names["val"].values())), "items": [i.name for i in held["val"]]}
    write_meta(maker.out, made, ADDRESS, LICENCE, **options, seed=seed, held_out=held_out)
    return made


class _Maker:
    """Draws and saves pictures; `done` counts them."""

    def __init__(self, tiles: Tiles, background: Image.Image, scale: int, out: Path):
        self.tiles, self.background, self.scale, self.out = tiles, background, scale, out
        self.done = 0
        for name in ("pictures", "masks"):
            (out / name).mkdir()

    def named(self, names: dict[str, str], rng: Random) -> Iterator[Example]:
        """Two rows for each tile that has a name."""
        for path, name in names.items():
            picture = self._save("pictures", path.replace("/", "--"), self.tiles.over(self.background, path))
            truth = {"kind": "t2i/name", "name": name, "section": section_of(path), "tile": path}
            for form in rng.sample(DRAW, 2):
                yield ask(form.format(name), MARK, picture), truth
            self.done += 1

    def dolls(
        self,
        split: str,
        wardrobe: Wardrobe,
        held: dict[str, list[Item]],
        count: int,
        tasks: tuple[str, ...],
        rng: Random,
    ) -> Iterator[Example]:
        """Edits about the split's items, and of each the doll with the item in it told in words."""
        found = edits(self.tiles, self.background, wardrobe.bodies, held[split], held["train"], count, rng)
        for number, edit in enumerate(found):
            name = f"{split}-{number:05d}"
            before, after = (doll.draw(self.tiles, self.background) for doll in (edit.before, edit.after))
            mask = changed(before, after)
            shown = edit.before if edit.action == "remove" else edit.after
            if "edit" in tasks:
                pictures = [
                    self._save("pictures", f"{name}-{when}.png", pixels)
                    for when, pixels in (("before", before), ("after", after))
                ]
                truth = {
                    "kind": f"edit/{edit.action}",
                    "item": edit.item.name,
                    "instead": edit.instead and edit.instead.name,
                    "slot": edit.item.slot,
                    BODY: edit.after.body.name,
                    "mask": self._save("masks", f"{name}.png", mask.astype(np.uint8) * 255),
                    "changed": round(float(mask.mean()), 4),
                }
                yield ask(MARK + edit.words, MARK, *pictures), truth
            if "t2i" in tasks:
                when = "before" if edit.action == "remove" else "after"
                yield self._told(shown, f"{name}-{when}.png", rng)
            self.done += 1

    def _told(self, doll: Doll, name: str, rng: Random) -> Example:
        seen = doll.seen(self.tiles, self.background)
        picture = self._save("pictures", name, doll.draw(self.tiles, self.background))
        truth = {"kind": "t2i/doll", BODY: doll.body.name, "items": [item.name for item in seen]}
        return ask(rng.choice(DRAW[:3]).format(told(doll.body, seen)), MARK, picture), truth

    def _save(self, folder: str, name: str, pixels: np.ndarray) -> str:
        path = f"{folder}/{name}"
        Image.fromarray(enlarge(pixels, self.scale)).save(self.out / path)
        return path


def _split_names(tiles: Tiles, val: float, rng: Random, made: Made) -> dict[str, dict[str, str]]:
    """Names by tile path for each split; of every section a share of its families is held out."""
    names: dict[str, str] = {}
    drawings: Counter = Counter()
    for path in tiles.paths:
        if path.rpartition("/")[0] in (*FOLDERS, f"player/{BODY}"):
            continue  # the wardrobe's
        name, reason = name_of(path)
        if name is None:
            made.left_out.setdefault(reason, []).append(path)
        elif drawings[name] == MOST:
            made.left_out.setdefault(f"more than {MOST} drawings of one name", []).append(path)
        else:
            drawings[name] += 1
            names[path] = name
    family = families(tiles, names)
    sections: dict[str, set[str]] = defaultdict(set)
    taken: set[str] = set()
    for path, name in names.items():
        if family[name] not in taken:
            taken.add(family[name])
            sections[section_of(path)].add(family[name])
    held: set[str] = set()
    for section in sorted(sections):
        some = sorted(sections[section])
        rng.shuffle(some)
        held |= set(some[: round(val * len(some))])
    return {
        "train": {path: name for path, name in names.items() if family[name] not in held},
        "val": {path: name for path, name in names.items() if family[name] in held},
    }


def _merge(into: dict[str, list[str]], more: dict[str, list[str]]) -> None:
    for reason, paths in more.items():
        into.setdefault(reason, []).extend(paths)
