"""What an importer is, and the few things that all of them share: records, pictures, rows, drops.

An importer reads *records* (a JSON object, a line of a table, files of one stem) and turns each into rows of
the format of `rows`.  A record that gives no row is a `Drop` with a reason; nothing is left out without one.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from unimodal.data.importers.tables import Drop, is_table, records
from unimodal.data.rows import MARK
from unimodal.errors import UserError, nearest

SAMPLE = 20  # records looked at to recognise what a table holds


@dataclass(frozen=True)
class Picture:
    """Where a picture stands in a turn; `source` as in the `images` of a row."""

    source: Any


class Record:
    """One record by field, after `--map`; remembers which fields were asked for.

    values  field -> value; None counts as absent
    where   "file:line" of the record
    """

    def __init__(self, values: dict, where: str, mapping: dict[str, str] | None = None):
        self.values = {name: value for name, value in values.items() if value is not None}
        self.where = where
        self.used: set[str] = set()
        self.without_place: set[str] = set()  # of fields that are used
        moved = {name: self.values.pop(old) for name, old in (mapping or {}).items() if old in self.values}
        self.values |= moved

    def __contains__(self, name: str) -> bool:
        return name in self.values

    @property
    def unused(self) -> set[str]:
        """Fields, and parts of fields, that no row was made from."""
        return (self.values.keys() - self.used) | self.without_place

    def move(self, old: str, new: str) -> None:
        """Call the field `old` `new`."""
        self.values[new] = self.values.pop(old)

    def get(self, *names: str) -> Any:
        """The value of the first of `names` that is there, or None."""
        for name in names:
            if name in self.values:
                self.used.add(name)
                return self.values[name]
        return None

    def need(self, *names: str) -> Any:
        """As `get`; raises Drop if none of them is there."""
        value = self.get(*names)
        if value is None:
            have = ", ".join(sorted(map(str, self.values))) or "nothing"
            raise Drop(
                f"no {names[0]!r}",
                f"{self.where}: no {' or '.join(map(repr, names))}; it has {have}. If another holds it, "
                f"say --map {names[0]}=FIELD.",
            )
        return value

    def text(self, *names: str) -> str:
        """The text under the first of `names`; raises Drop if there is none or it is blank."""
        return self.spoken(self.need(*names), names[0])

    def said(self, *names: str) -> str:
        """As `text`; a number, as answers in parquet are, is taken as its digits."""
        value = self.need(*names)
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        return self.spoken(str(value) if number else value, names[0])

    def texts(self, *names: str) -> list[str]:
        """One text, or a list of them that say the same in other words."""
        value = self.need(*names)
        if isinstance(value, list) and value:
            return [self.spoken(one, names[0]) for one in value]
        return [self.spoken(value, names[0])]

    def spoken(self, value: Any, name: str) -> str:
        """`value` if it is a text with something in it; raises Drop otherwise."""
        if not self.written(value, name).strip():
            raise Drop(f"{name!r} is empty", f"{self.where}: {name!r} is empty; expected a text. Fill it in.")
        return value

    def written(self, value: Any, name: str) -> str:
        """`value` if it is a text, be it blank; raises Drop otherwise."""
        if not isinstance(value, str):
            raise Drop(
                f"{name!r} is no text", f"{self.where}: {name!r} is {value!r:.60}; expected a text. Mend it."
            )
        try:
            value.encode()
        except UnicodeEncodeError as error:  # JSON can spell half a character: "\\ud83d"
            raise Drop(
                f"{name!r} holds half a character",
                f"{self.where}: {name!r} holds half a character at {error.start}. Mend the text.",
            ) from error
        return value

    def picture(self, *names: str) -> Picture:
        """The picture under the first of `names`; raises Drop if there is none."""
        return Picture(self.need(*names))

    def pictures(self, *names: str) -> list | None:
        """One picture or a list of them, always as a list of sources; None if no field is there, or is ""."""
        found = self.get(*names)
        if found is None or found == "":
            return None
        return found if isinstance(found, list) else [found]


def make_row(*turns: tuple) -> dict:
    """A row of turns `(role, parts)` or `(role, parts, trained)`; a part is a text or a Picture.

    A text that says "<image>" itself stays what it is: its message is then written as a list of parts.
    """
    messages, images = [], []
    for role, parts, *trained in turns:
        pictures = [part.source for part in parts if isinstance(part, Picture)]
        content: str | list = "".join(MARK if isinstance(part, Picture) else part for part in parts)
        if content.count(MARK) != len(pictures):
            content = [
                {"type": "image"} if isinstance(part, Picture) else {"type": "text", "text": part}
                for part in parts
            ]
        images += pictures
        more = {"trained": trained[0]} if trained and trained[0] is not None else {}
        messages.append({"role": role, "content": content, **more})
    return {"messages": messages, "images": images}


@dataclass(frozen=True)
class Options:
    """What the user said beside the path.

    mapping     field -> the name it has in the data
    image_root  relative picture paths start here and none may leave it; None: the importer's own folder
    split       which part of a dataset that has several
    """

    mapping: dict[str, str] = field(default_factory=dict)
    image_root: Path | None = None
    split: str | None = None


@dataclass(eq=False)
class Look:
    """A first look at what a path holds.

    problem  why its records could not be read
    seen     the fields of the first records, as the data calls them
    """

    path: Path
    options: Options = Options()
    problem: str = ""
    seen: set[str] = field(default_factory=set)

    @cached_property
    def records(self) -> list[Record]:
        """The first records of a table, renamed; none if the path is no table."""
        if not is_table(self.path):
            return []
        try:
            found = list(islice(records(self.path, self.options.split), SAMPLE))
        except UserError as error:
            self.problem = str(error)
            return []
        self.seen = {name for _, r in found if isinstance(r, dict) for name in r}
        return [Record(r, w, self.options.mapping) for w, r in found if isinstance(r, dict)]

    def has(self, *names: str) -> bool:
        """Whether all fields are in the table."""
        return set(names) <= self.names

    @cached_property
    def names(self) -> set[str]:
        """All fields of the first records."""
        return {name for record in self.records for name in record.values}


@dataclass(frozen=True)
class Importer:
    """One format.

    about   what it reads, in a few words
    sign    what it is recognised by
    fields  which fields `--map` can rename
    fits    why a path seems to be of this format, or None
    read    `(path, options)` -> `("file:line", record)`; a UserError in place of a record drops it
    rows    record -> rows; a Drop in place of a row leaves out that one, a raised one the whole record
    maps_folders  whether `--map` names folders, which `read` looks for, in place of fields
    """

    about: str
    sign: str
    fields: tuple[str, ...]
    fits: Callable[[Look], str | None]
    read: Callable[[Path, Options], Iterator[tuple[str, dict | UserError]]]
    rows: Callable[[Record], Iterator[dict | Drop]]
    maps_folders: bool = False


def never_seen(mapping: dict[str, str], seen: Iterable[str], path: Path) -> str:
    """A sentence about the mapped names that no record has, or ""."""
    for mapped, name in mapping.items():
        if name not in seen:
            has = ", ".join(sorted(map(str, seen)))
            return (
                f"--map {mapped}={name}: no record of {path} has {name!r}{nearest(name, seen)}; "
                f"they have {has}. Mend --map."
            )
    return ""


def read_table(path: Path, options: Options) -> Iterator[tuple[str, dict | UserError]]:
    """The `read` of every importer of tables."""
    return records(path, options.split)
