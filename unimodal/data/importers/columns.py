"""Columns: one picture and its text, an edit with its instruction, or a question and its answer, a line each.

The names are those of published datasets on the hub; any others are mapped.  A text may be a list of texts
that say the same: each gives a row.
"""

from collections.abc import Callable, Iterator

from unimodal.data.importers.conversations import llava_rows
from unimodal.data.importers.importer import Importer, Look, Record, make_row, read_table

# Field -> the names it goes by, the first that is there being read.
T2I = {"image": ("image",), "text": ("text",)}
EDIT = {
    "input_image": ("input_image", "original_image", "source_img"),  # InstructPix2Pix, its source, MagicBrush
    "edit_prompt": ("edit_prompt", "instruction"),
    "edited_image": ("edited_image", "target_img"),
}
VQA = {"image": ("image",), "question": ("question",), "answer": ("answer",)}
FIELDS = tuple(dict.fromkeys((*T2I, *EDIT, *VQA)))


def t2i_rows(record: Record) -> Iterator[dict]:
    """The text asks, the picture answers."""
    image = record.picture(*T2I["image"])
    for text in record.texts(*T2I["text"]):
        yield make_row(("user", [text]), ("assistant", [image]))


def edit_rows(record: Record) -> Iterator[dict]:
    """Picture and instruction ask, the edited picture answers."""
    before, after = (record.picture(*EDIT[name]) for name in ("input_image", "edited_image"))
    for told in record.texts(*EDIT["edit_prompt"]):
        yield make_row(("user", [before, told]), ("assistant", [after]))


def vqa_rows(record: Record) -> Iterator[dict]:
    """Picture and question ask, the text answers."""
    question, answer = record.text(*VQA["question"]), record.said(*VQA["answer"])
    yield make_row(("user", [record.picture(*VQA["image"]), question]), ("assistant", [answer]))


def any_rows(record: Record) -> Iterator[dict]:
    """What the fields allow: a conversation, an edit, a question, or else a picture from a text."""
    if "conversations" in record:
        return llava_rows(record)
    for form, rows in ((EDIT, edit_rows), (VQA, vqa_rows)):
        if _complete(record.values.keys(), form):
            return rows(record)
    return t2i_rows(record)


def _complete(names, form: dict[str, tuple[str, ...]]) -> list[str] | None:
    """The names under which all fields of a form are there, or None."""
    found = [next((name for name in known if name in names), None) for known in form.values()]
    return None if None in found else found


def _importer(form: dict[str, tuple[str, ...]], about: str, rows: Callable) -> Importer:
    def fits(look: Look) -> str | None:
        found = _complete(look.names, form)
        return f"its fields are {', '.join(found)}" if found else None

    sign = "fields " + ", ".join("|".join(names) for names in form.values())
    return Importer(about, sign, tuple(form), fits, read_table, rows)


COLUMNS_T2I = _importer(T2I, "columns of pictures and their texts", t2i_rows)
COLUMNS_EDIT = _importer(EDIT, "columns as in InstructPix2Pix and MagicBrush", edit_rows)
COLUMNS_VQA = _importer(VQA, "columns of pictures, questions and answers", vqa_rows)
