"""BAGEL's parquet: `image` and `captions` for drawing, `image_list` and `instruction_list` for editing.

`captions` is a JSON object, each value a caption of its own; BAGEL draws one at random each time, here each
gives a row.  Editing goes from picture to picture, step k having one or more wordings of its instruction.
Source: the example data and loaders of github.com/ByteDance-Seed/Bagel.
"""

import json
from collections.abc import Iterator

from unimodal.data.importers.importer import Drop, Importer, Look, Picture, Record, make_row, read_table


def bagel_rows(record: Record) -> Iterator[dict | Drop]:
    """Rows of either kind, told by the fields."""
    return _edits(record) if "image_list" in record else _captions(record)


def _captions(record: Record) -> Iterator[dict | Drop]:
    image, captions = record.picture("image"), record.need("captions")
    if isinstance(captions, str):
        try:
            captions = json.loads(captions)
        except (ValueError, RecursionError) as error:
            raise Drop(
                "'captions' is not JSON", f"{record.where}: 'captions' is not JSON ({error}). Mend it."
            ) from error
    if not isinstance(captions, dict) or not captions:
        raise Drop(
            "'captions' is no object",
            f"{record.where}: 'captions' is {captions!r:.60}; expected captions by name. Mend it.",
        )
    for caption in captions.values():
        try:
            yield make_row(("user", [record.spoken(caption, "captions")]), ("assistant", [image]))
        except Drop as drop:
            yield drop


def _edits(record: Record) -> Iterator[dict]:
    pictures, told = record.need("image_list"), record.need("instruction_list")
    if (
        not isinstance(pictures, list)
        or not isinstance(told, list)
        or len(told) != len(pictures) - 1
        or not told
    ):
        count = [len(x) if isinstance(x, list) else "no list of" for x in (pictures, told)]
        raise Drop(
            "pictures and instructions do not alternate",
            f"{record.where}: {count[0]} pictures and {count[1]} instructions; expected one instruction "
            "between each picture and the next. Mend the lists.",
        )
    wordings = [_wordings(step, record) for step in told]
    # Row r takes wording r of each step, beginning anew where a step has fewer: every wording is used.
    for r in range(max(map(len, wordings))):
        turns = []
        for k, step in enumerate(wordings):
            asked = [Picture(pictures[0])] if k == 0 else []
            turns += [
                ("user", [*asked, step[r % len(step)]]),
                ("assistant", [Picture(pictures[k + 1])]),
            ]
        yield make_row(*turns)


def _wordings(step, record: Record) -> list[str]:
    several = step if isinstance(step, list) else [step]
    if not several:
        raise Drop(
            "a step without an instruction",
            f"{record.where}: a step of 'instruction_list' is empty. Fill it.",
        )
    return [record.spoken(one, "instruction_list") for one in several]


def _fits(look: Look) -> str | None:
    for names in (("image", "captions"), ("image_list", "instruction_list")):
        if look.has(*names):
            return f"its columns are {' and '.join(names)}"
    return None


BAGEL = Importer(
    about="BAGEL's parquet: pictures with captions as JSON, or chains of edits",
    sign="columns image and captions, or image_list and instruction_list",
    fields=("image", "captions", "image_list", "instruction_list"),
    fits=_fits,
    read=read_table,
    rows=bagel_rows,
)
