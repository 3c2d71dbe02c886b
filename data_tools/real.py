"""What the builders of real data share: the folder they are given, the split by name, the folder they write.

OUT/train.jsonl   OUT/train.truth.jsonl     line n of the truth is about line n of the rows
OUT/val.jsonl     OUT/val.truth.jsonl       rows about things that `train` has no row of
OUT/meta.json                               source, licence, options, counts, and what was left out and why
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unimodal.errors import UserError

SPLITS = ("train", "val")
LINE_ENDS = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}

Example = tuple[dict[str, Any], dict[str, Any]]  # a row as training reads it, and what a judge has to know


@dataclass
class Made:
    """What a builder wrote and left out.

    rows      rows by split and kind, as {"train": {"t2i/name": 700, ...}, ...}
    left_out  what was read but not used, by the reason
    notes     further lines for a person
    """

    rows: dict[str, Counter] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """What was written and left out, in lines for a person."""
        lines = list(self.notes)
        for split, rows in self.rows.items():
            kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(rows.items()))
            lines.append(f"{split}: {rows.total()} rows ({kinds})")
        for reason, names in self.left_out.items():
            some = ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
            lines.append(f"left out: {len(names)}, {reason} ({some})")
        return "\n".join(lines)


def given(folder: str | Path, files: Iterable[str], what: str, address: str) -> Path:
    """The folder, if all `files` are in it; else UserError saying which is missing and where to get it."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected {what}. Get it from {address}")
    for file in files:
        if not (folder / file).exists():
            raise UserError(f"{folder}: {file} is missing; expected {what}. Get it from {address}")
    return folder


def of_another_shape(where: object, found: str, expected: str, address: str) -> UserError:
    """The error of a file that is there, but is not what the builder reads."""
    return UserError(f"{where}: {found}; expected {expected}. Get it from {address}")


def check_share(val: float) -> None:
    """UserError unless `val` is a share of rows that leaves some for each split."""
    if not 0 < val < 1:
        raise UserError(f"val {val} is no share; expected a number between 0 and 1.")


def held_out(key: str, val: float, seed: int) -> bool:
    """Whether a key is of the held-out share: told from the key alone, so that other keys change nothing."""
    digest = hashlib.sha256(f"{seed}/{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < val * 2**64


def write_split(out: Path, split: str, examples: Iterable[Example]) -> Counter:
    """Write rows and, line by line beside them, their truth; gives the number of each kind.

    Raises UserError if there is no example: a recipe that names an empty file fails much later.
    """
    kinds: Counter = Counter()
    rows, truths = out / f"{split}.jsonl", out / f"{split}.truth.jsonl"
    with rows.open("w", encoding="utf-8") as rows_file, truths.open("w", encoding="utf-8") as truths_file:
        for row, truth in examples:
            rows_file.write(_line(row))
            truths_file.write(_line(truth))
            kinds[truth["kind"]] += 1
    if not kinds:
        raise UserError(
            f"{rows}: no row for this split. Give more data, or another share of held-out rows (val)."
        )
    return kinds


def _line(value: dict[str, Any]) -> str:
    """JSON on one line for every reader: some take these three characters for the end of a line, too."""
    return json.dumps(value, ensure_ascii=False).translate(LINE_ENDS) + "\n"


def write_meta(out: Path, made: Made, source: str, licence: str, **more: Any) -> None:
    """Write meta.json: where the data is from, under which licence, how it was made and what was left out."""
    meta = {"source": source, "licence": licence, **more, "rows": made.rows, "left_out": made.left_out}
    (out / "meta.json").write_text(json.dumps(meta, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def ask(user: str, assistant: str, *images: str) -> dict[str, Any]:
    """A row of one question and one reply; `images` are paths relative to the file of rows."""
    messages = [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
    return {"messages": messages, "images": list(images)} if images else {"messages": messages}
