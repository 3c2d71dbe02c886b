"""NLVR's development set to rows: a picture, a statement, yes or no; held out by statement.

Several pictures share a statement (it was written to be true of two and false of two), so a split by picture
would show every held-out statement in training.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

from data_tools.nlvr.boxes import ARRANGEMENTS, Archive, fitted
from data_tools.real import (
    SPLITS,
    Example,
    Made,
    ask,
    check_share,
    given,
    held_out,
    of_another_shape,
    write_meta,
    write_split,
)
from data_tools.shapes.build import empty_folder
from unimodal.errors import UserError

FILE, PICTURES = "dev.json", "nlvr-dev-images.zip"
WHAT = f"NLVR's {FILE} and {PICTURES}"
ADDRESS = (
    f"https://github.com/lil-lab/nlvr (nlvr/dev/{FILE}, and in a clone of it: "
    f"git archive -o {PICTURES} HEAD nlvr/dev/images)"
)
LICENCE = "CC BY 4.0; Suhr, Lewis, Yeh and Artzi, A Corpus of Natural Language for Visual Reasoning, ACL 2017"
ORDERS = 6  # pictures of one example: its boxes in every order
QUESTION = "<image>is this true? {}"
TOLD = "{} is this true? {}"
SIZES = {10: "small", 20: "medium", 30: "large"}  # sides in pixels of a box of 100
COLOURS = {"#0099ff": "blue", "black": "black", "yellow": "yellow"}
ANSWER = {"true": "yes", "false": "no"}
KEYS = ("sentence", "identifier", "directory", "label", "structured_rep")


def make_nlvr(
    folder: str | Path,
    out: str | Path,
    size: int = 64,
    arrangement: str = "square",
    orders: int = ORDERS,
    val: float = 0.2,
    seed: int = 0,
    told: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Made:
    """Write rows from the development set.

    size         longer side of the pictures; arrangement "square" or "row", see `boxes.fitted`
    orders       how many of the six orders of its boxes each example of `train` is shown in; `val` has one,
                 so that its rows can be counted as apart
    val          share of statements held out, told from each statement's own hash (case and marks aside)
    told         tell in words what each box holds, and where, in place of a picture: whoever cannot judge
                 statements of these does not fail for want of eyes
    Truth: kind "vqa/nlvr" ("text/nlvr" if told), answer, statement, identifier, order, boxes.
    meta.json has the majority answer of each split and its share, which a judge has to beat.
    Raises UserError if the folder is not NLVR's, or an option out of range.
    """
    check_share(val)
    if arrangement not in ARRANGEMENTS:
        raise UserError(f"arrangement {arrangement!r}; expected {' or '.join(ARRANGEMENTS)}")
    if size < 16 or size % 8 or not 1 <= orders <= ORDERS:
        raise UserError(f"size {size}, orders {orders}; expected a multiple of 8 from 16, and 1 to {ORDERS}")
    folder = given(folder, [FILE, PICTURES], WHAT, ADDRESS)
    examples = read_examples(folder / FILE)
    archive = None if told else Archive(folder / PICTURES)
    out = empty_folder(Path(out))
    if archive:
        (out / "pictures").mkdir()
    splits: dict[str, list[Example]] = {split: [] for split in SPLITS}
    pictures: dict[str, set[str]] = {split: set() for split in SPLITS}
    for number, example in enumerate(examples, 1):
        split = "val" if held_out(key_of(example["sentence"]), val, seed) else "train"
        pictures[split].add(_contents(example))
        for order in range(orders if split == "train" else 1):
            picture = None
            if archive:
                name = f"dev-{example['identifier']}-{order}.png"
                pixels = archive.picture(f"nlvr/dev/images/{example['directory']}/{name}")
                picture = f"pictures/{name}"
                fitted(pixels, size, arrangement).save(out / picture)
            splits[split].append(_example(example, order, picture))
        if progress is not None:
            progress(number, len(examples))
    made = Made()
    majority = {}
    for split, some in splits.items():
        made.rows[split] = write_split(out, split, some)
        majority[split] = _majority(some)
        made.notes.append(f"{split}: {majority[split]['share']:.3f} are answered {majority[split]['answer']}")
    shared = len(pictures["val"] & pictures["train"])
    made.notes.append(f"{shared} pictures of val are also in train, under other statements")
    options = {"orders": orders, "val": val, "seed": seed, "told": told}
    if not told:
        options |= {"size": size, "arrangement": arrangement}
    write_meta(out, made, ADDRESS, LICENCE, **options, majority=majority, pictures_in_both=shared)
    return made


def read_examples(path: Path) -> list[dict[str, Any]]:
    """The examples of dev.json, each with KEYS."""
    found = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                example = json.loads(line)
                right = (
                    all(key in example for key in KEYS)
                    and example["label"] in ANSWER
                    and bool(re.fullmatch(r"\d+-\d+", example["identifier"]))
                    and bool(re.fullmatch(r"\d+", example["directory"]))
                    and bool(example["sentence"].strip())
                )
            except (ValueError, TypeError, AttributeError):
                right = False
            if not right:
                expected = f"an object with {', '.join(KEYS)}, as in NLVR's {FILE}"
                raise of_another_shape(f"{path}:{number}", f"found {line!r:.60}", expected, ADDRESS)
            found.append(example)
    return found


def key_of(sentence: str) -> str:
    """The statement without case and marks: what makes two statements one."""
    return " ".join(re.findall(r"[a-z0-9]+", sentence.lower()))


def _example(example: dict[str, Any], order: int, picture: str | None) -> Example:
    statement, answer = " ".join(example["sentence"].split()), ANSWER[example["label"]]
    truth = {
        "kind": "vqa/nlvr" if picture else "text/nlvr",
        "answer": answer,
        "statement": statement,
        "identifier": example["identifier"],
        "order": order,
        "boxes": example["structured_rep"] if order == 0 else None,  # the corpus tells the first order alone
    }
    if picture:
        return ask(QUESTION.format(statement), answer, picture), truth
    boxes = list(permutations(example["structured_rep"]))[order]
    return ask(TOLD.format(in_words(boxes), statement), answer), truth


def in_words(boxes: Sequence[list[dict[str, Any]]]) -> str:
    """What each box holds: size, colour, shape, and the pixels from the left and from above (of 100)."""
    things = [", ".join(_thing_in_words(thing) for thing in box) for box in boxes]
    return " ".join(f"box {k}: {some or 'nothing'}." for k, some in enumerate(things, 1))


def _thing_in_words(thing: dict[str, Any]) -> str:
    size, colour = SIZES[thing["size"]], COLOURS[thing["color"].lower()]
    return f"{size} {colour} {thing['type']} {thing['x_loc']} {thing['y_loc']}"


def _contents(example: dict[str, Any]) -> str:
    """What a picture shows, in whichever order its boxes and their things are told."""
    boxes = [sorted(json.dumps(thing, sort_keys=True) for thing in b) for b in example["structured_rep"]]
    return json.dumps(sorted(boxes))


def _majority(examples: list[Example]) -> dict[str, Any]:
    (answer, count), *_ = Counter(truth["answer"] for _, truth in examples).most_common(1)
    return {"answer": answer, "share": count / len(examples)}
