"""Alpaca: an instruction, perhaps an input to it, and an output; one exchange of texts.

LLaMA-Factory's additions are read too: `system`, earlier exchanges under `history`, and `images` for
`<image>` marks.  Without `images` a text that says "<image>" means these letters.
"""

from collections.abc import Iterator

from unimodal.data.importers.importer import Drop, Importer, Record, make_row, read_table
from unimodal.data.importers.turns import all_taken, blank, marked, no_other_media


def alpaca_rows(record: Record) -> Iterator[dict]:
    """One row; the input, if there is one, stands on a new line after the instruction."""
    no_other_media(record)
    images = record.pictures("images", "image")
    waiting = iter(images or ())

    def parts(text: str) -> list:
        return [text] if images is None else marked(text, waiting, record.where)

    turns = []
    if not blank(record.get("system")):
        turns.append(("system", parts(record.text("system"))))
    for asked, answered in _history(record):
        turns += [("user", parts(asked)), ("assistant", parts(answered))]
    asked = record.text("instruction")
    if not blank(record.get("input")):  # alpaca writes "" where there is none
        asked += "\n" + record.text("input")
    turns += [("user", parts(asked)), ("assistant", parts(record.text("output")))]
    all_taken(waiting, record.where)
    yield make_row(*turns)


def _history(record: Record) -> list[tuple[str, str]]:
    history = record.get("history") or []
    if not isinstance(history, list) or any(not isinstance(e, list) or len(e) != 2 for e in history):
        raise Drop(
            "'history' is no list of pairs",
            f"{record.where}: 'history' is {history!r:.60}; expected pairs of what was asked and answered.",
        )
    return [(record.spoken(a, "history"), record.spoken(b, "history")) for a, b in history]


ALPACA = Importer(
    about="alpaca: instruction, input, output; also system, history, images",
    sign="fields 'instruction' and 'output'",
    fields=("instruction", "input", "output", "system", "history", "images"),
    fits=lambda look: (
        "its objects have 'instruction' and 'output'" if look.has("instruction", "output") else None
    ),
    read=read_table,
    rows=alpaca_rows,
)
