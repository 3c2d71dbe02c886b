"""ImageFolder: pictures and a metadata.jsonl that names them, in one folder or in one for each split.

Hidden files are no data; every other file that no line names is told.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from unimodal.data.importers.columns import FIELDS, any_rows
from unimodal.data.importers.folders import files, is_picture
from unimodal.data.importers.importer import Drop, Importer, Look, Options, Record
from unimodal.data.importers.tables import METADATA, Records, records
from unimodal.errors import UserError, nearest

NAME = "file_name"


def _tables(path: Path) -> list[Path]:
    """The metadata files of a path: itself, those in it, or else those of its folders, which are splits."""
    if path.is_file():
        return [path] if path.name in METADATA else []
    found = _tables_in(path)
    if found or not path.is_dir():
        return found
    folders = sorted(f for f in path.iterdir() if f.is_dir() and not f.name.startswith("."))
    return [table for folder in folders for table in _tables_in(folder)]


def _tables_in(folder: Path) -> list[Path]:
    return [folder / name for name in METADATA if (folder / name).is_file()]


def _metadata(path: Path, split: str | None) -> Path:
    """The metadata file that is meant.  Raises UserError if there is none, or more than one."""
    found = _tables(path)
    if not found:
        raise UserError(f"{path}: no {', '.join(METADATA)} in it; an ImageFolder has one. Mend the path.")
    splits = list(dict.fromkeys(table.parent.name for table in found if table.parent != path))
    if path.is_dir() and splits:
        if split is None and len(splits) > 1:
            raise UserError(f"{path}: it has the splits {', '.join(splits)}. Say which: --split {splits[0]}.")
        if split is not None and split not in splits:
            raise UserError(
                f"{path}: no split {split!r}{nearest(split, splits)}; it has {', '.join(splits)}. Name one."
            )
        found = [table for table in found if table.parent.name == (split or splits[0])]
    if len(found) > 1:
        folder, (first, second, *_) = found[0].parent, found
        raise UserError(f"{folder}: has {first.name} and {second.name}; name the one that is meant.")
    return found[0]


def read_imagefolder(path: Path, options: Options) -> Records:
    """The lines of the metadata, then each file that no line names."""
    table = _metadata(path, options.split)
    folder = table.parent
    below = path.is_dir() and folder != path  # of a split: its pictures are told from there
    prefix = folder.name if below and options.image_root is None else ""
    pictures = {field: name for field, name in options.mapping.items() if names_a_file(field)}.values()
    named: set[str] = set()
    for where, record in records(table, None if below else options.split):
        if isinstance(record, dict):
            named |= {str(PurePosixPath(value)) for value in record.values() if isinstance(value, str)}
            if prefix:
                record = {
                    name: f"{prefix}/{value}"
                    if isinstance(value, str) and (names_a_file(name) or name in pictures)
                    else value
                    for name, value in record.items()
                }
        yield where, record
    for name in files(folder):
        if name in named or folder / name == table:
            continue
        where, kind = str(folder / name), "picture" if is_picture(name) else "other file"
        yield where, Drop(f"{kind} that no line names", f"{where}: no line of {table.name} names it.")


def names_a_file(field: str) -> bool:
    """Whether a field of the metadata is the name of a picture."""
    return field == NAME or field.endswith(f"_{NAME}")


def imagefolder_rows(record: Record) -> Iterator[dict]:
    """`file_name` is the picture, `X_file_name` the picture of field X."""
    found = [name for name in record.values if names_a_file(name)]
    if not found:
        record.need("image", "input_image", NAME)
    for name in found:
        record.move(name, "image" if name == NAME else name.removesuffix(f"_{NAME}"))
    return any_rows(record)


def _fits_imagefolder(look: Look) -> str | None:
    found = _tables(look.path)
    if look.path.is_file():
        return f"it is named {look.path.name}" if found else None
    return f"there is a {found[0].relative_to(look.path).as_posix()} in it" if found else None


IMAGEFOLDER = Importer(
    about="ImageFolder: pictures and a metadata.jsonl (or .csv, .parquet) of file_name and text",
    sign=f"one of {', '.join(METADATA)}",
    fields=(NAME, *FIELDS),
    fits=_fits_imagefolder,
    read=read_imagefolder,
    rows=imagefolder_rows,
)
