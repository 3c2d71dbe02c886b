"""Hints: the command that makes rows of what is no row, for the end of a message.

Other names of fields are known here only to be suggested; what is read is always what the user said.
"""

from pathlib import Path

from unimodal.data.importers.imagefolder import names_a_file
from unimodal.data.importers.importer import Look
from unimodal.data.importers.tables import METADATA
from unimodal.data.importers.turns import OTHER_MEDIA
from unimodal.data.rows import ROW_KEYS
from unimodal.errors import nearest

PICTURE = ("image", "picture", "img", "jpg", "image_path", "file_name")
ASKED, ANSWERED = ("question", "prompt", "query"), ("answer", "response", "completion")
# Importer -> its fields, each by the names that it goes by elsewhere; the first that fits is suggested.
ELSEWHERE = {
    "columns-vqa": {"image": PICTURE, "question": ASKED, "answer": ANSWERED},
    "columns-t2i": {"image": PICTURE, "text": ("text", "caption", "prompt", "description")},
    "alpaca": {
        "instruction": ("instruction", "input", *ASKED),
        "output": ("output", "target", *ANSWERED),
    },
}


def command(path: str | Path, name: str, *maps: str) -> str:
    """The command that converts a path."""
    return " ".join(["unimodal data convert", str(path), "--from", name, *maps, "--out FOLDER"])


def renamed(path: str | Path, row: dict) -> str:
    """A sentence, after a space, with the command that maps the fields of a row; or ""."""
    for importer, fields in ELSEWHERE.items():
        found = {
            field: next((n for n in names if _fits(row.get(n), field)), "") for field, names in fields.items()
        }
        if all(found.values()):
            maps = [f"--map {field}={name}" for field, name in found.items() if field != name]
            return f" If {', '.join(found.values())} are what they seem: {command(path, importer, *maps)}."
    return ""


def _fits(value, field: str) -> bool:
    return value is not None if field == "image" else isinstance(value, str)


def with_more(path: str | Path, row: dict) -> str:
    """A sentence, after a space, for rows with fields that rows have no place for; or ""."""
    has = {name for name, value in row.items() if value is not None}
    more = sorted(str(name) for name in has - ROW_KEYS)
    whole = "messages" in has if "text" not in has else not has & {"messages", "images"}
    if not whole or not more or has & set(OTHER_MEDIA) or any(nearest(name, ROW_KEYS) for name in more):
        return ""
    return f" {command(path, 'rows')} takes off {', '.join(more)}."


def of_pictures(path: str | Path, row: dict) -> bool:
    """Whether a row is a line of an ImageFolder's metadata."""
    return Path(path).name in METADATA and any(names_a_file(str(name)) for name in row)


def plain(look: Look) -> str:
    """A sentence, after a space, for files of plain text; or ""."""
    path = look.path
    if path.suffix.lower() == ".txt" if path.is_file() else any(path.glob("*.txt")):
        return f" For plain text: unimodal data make plain {path} --out FOLDER."
    return ""
