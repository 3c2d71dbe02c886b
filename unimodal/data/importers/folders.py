"""Folders of pictures: with metadata.jsonl (ImageFolder), with a .txt beside each, or with a control each.

Paths in records are relative to the folder.  Hidden files are no data; every other file that gives no row is
told.
"""

from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path, PurePosixPath

from unimodal.data.importers.columns import FIELDS, any_rows, t2i_rows
from unimodal.data.importers.importer import Drop, Importer, Look, Options, Record, make_row
from unimodal.data.importers.tables import GLIMPSE, METADATA, PICTURES, Records, read_text, records
from unimodal.errors import UserError

NAME = "file_name"
CONTROL = ("conditions", "targets", "captions")


def files(folder: Path, most: int | None = None) -> list[str]:
    """The files below `folder` that are not hidden, sorted, relative to it, with / between folders.

    most  how many entries are looked at; None: all
    """
    entries = sorted(islice(folder.rglob("*"), most))
    found = (path.relative_to(folder) for path in entries if path.is_file())
    return [path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts)]


def is_picture(name: str) -> bool:
    """Whether a file is a picture by its ending."""
    return PurePosixPath(name).suffix.lower() in PICTURES


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _caption(path: Path) -> str | Drop:
    try:
        return read_text(path).strip()
    except UserError as error:
        return Drop("caption not readable", str(error))


# ImageFolder


def _metadata(path: Path) -> Path | None:
    """The one metadata file of a folder, or the file itself if it is one."""
    if path.is_file():
        return path if path.name in METADATA else None
    found = [path / name for name in METADATA if (path / name).is_file()]
    if len(found) > 1:
        raise UserError(f"{path}: has {found[0].name} and {found[1].name}; name the one that is meant.")
    return found[0] if found else None


def read_imagefolder(path: Path, options: Options) -> Records:
    """The lines of the metadata, then each picture that no line names."""
    table = _metadata(path)
    if table is None:
        raise UserError(f"{path}: no {', '.join(METADATA)} in it; an ImageFolder has one. Mend the path.")
    named: set[str] = set()
    for where, record in records(table, options.split):
        if isinstance(record, dict):
            named |= {str(PurePosixPath(value)) for value in record.values() if isinstance(value, str)}
        yield where, record
    for name in files(table.parent):
        if is_picture(name) and name not in named:
            where = f"{table.parent / name}"
            yield where, Drop("picture that no line names", f"{where}: no line of {table.name} names it.")


def imagefolder_rows(record: Record) -> Iterator[dict]:
    """`file_name` is the picture, `X_file_name` the picture of field X."""
    found = [name for name in record.values if name == NAME or name.endswith(f"_{NAME}")]
    if not found:
        record.need("image", "input_image", NAME)
    for name in found:
        record.move(name, "image" if name == NAME else name.removesuffix(f"_{NAME}"))
    return any_rows(record)


def _fits_imagefolder(look: Look) -> str | None:
    if look.path.is_file():
        return f"it is named {look.path.name}" if look.path.name in METADATA else None
    found = [name for name in METADATA if (look.path / name).is_file()]
    return f"there is a {found[0]} in it" if found else None


# A caption beside each picture


def read_captions(path: Path, options: Options) -> Records:
    """Files of one stem make a record: picture, text, and what else there is under its ending."""
    if not path.is_dir():
        raise UserError(f"{path}: expected a folder of pictures with a .txt beside each. Mend the path.")
    groups: dict[str, list[str]] = defaultdict(list)
    for name in files(path):
        groups[_stem(name)].append(name)
    for names in groups.values():
        pictures = [name for name in names if is_picture(name)]
        texts = [name for name in names if name.lower().endswith(".txt")]
        where = str(path / (pictures or texts or names)[0])
        if len(pictures) > 1:
            both = f"{pictures[0]} and {pictures[1]}"
            yield where, Drop("two pictures of one stem", f"{where}: {both} share a caption. Rename one.")
        elif not pictures:
            reason = "caption without a picture" if texts else "neither picture nor caption"
            yield where, Drop(reason, f"{where}: no picture of this stem stands beside it.")
        elif not texts:
            yield where, Drop("picture without a caption", f"{where}: no .txt of this stem stands beside it.")
        else:
            text = _caption(path / texts[0])
            others = {PurePosixPath(name).suffix: name for name in {*names} - {*pictures, *texts[:1]}}
            record = {"image": pictures[0], "text": text, **others}
            yield where, text if isinstance(text, Drop) else record


def _fits_captions(look: Look) -> str | None:
    if not look.path.is_dir() or _fits_control(look):  # the captions of a control folder are its own
        return None
    names = files(look.path, GLIMPSE)
    texts = {_stem(name) for name in names if name.lower().endswith(".txt")}
    pair = next((name for name in names if is_picture(name) and _stem(name) in texts), None)
    return f"{pair} has a .txt of the same stem" if pair else None


# A control for each target


def _control(path: Path, options: Options) -> tuple[Path, Path, Path]:
    """The three folders; captions stand beside the targets where they have no folder of their own."""
    conditions, targets, captions = (path / options.mapping.get(name, name) for name in CONTROL)
    return conditions, targets, captions if captions.is_dir() else targets


def read_control(path: Path, options: Options) -> Records:
    """One record for each stem found in any of the folders."""
    folders = _control(path, options)
    for folder, name in zip(folders, CONTROL):
        if not folder.is_dir():
            raise UserError(
                f"{folder}: there is no such folder; expected one of {name}. Say --map {name}=FOLDER."
            )
    found: list[dict[str, str]] = []
    for folder, text in zip(folders, (False, False, True)):
        names = [n for n in files(folder) if (n.lower().endswith(".txt") if text else is_picture(n))]
        found.append({_stem(name): name for name in names})
    for stem in sorted({*found[0], *found[1], *found[2]}):
        missing = [name for name, stems in zip(CONTROL, found) if stem not in stems]
        where = str(next(folder / stems[stem] for folder, stems in zip(folders, found) if stem in stems))
        if missing:
            sentence = f"{where}: nothing of this stem in {', '.join(missing)}. Add it or remove the others."
            yield where, Drop(f"no partner in {missing[0]}", sentence)
            continue
        text = _caption(folders[2] / found[2][stem])
        pictures = [(f / s[stem]).relative_to(path).as_posix() for f, s in zip(folders[:2], found)]
        yield where, text if isinstance(text, Drop) else dict(zip(CONTROL, [*pictures, text]))


def control_rows(record: Record) -> Iterator[dict]:
    """Condition and caption ask, the target answers."""
    asked = [record.picture("conditions"), record.text("captions")]
    yield make_row(("user", asked), ("assistant", [record.picture("targets")]))


def _fits_control(look: Look) -> str | None:
    conditions, targets, _ = _control(look.path, look.options)
    if conditions.is_dir() and targets.is_dir():
        return f"there are the folders {conditions.name} and {targets.name} in it"
    return None


IMAGEFOLDER = Importer(
    about="ImageFolder: pictures and a metadata.jsonl (or .csv, .parquet) of file_name and text",
    sign=f"one of {', '.join(METADATA)}",
    fields=(NAME, *FIELDS),
    fits=_fits_imagefolder,
    read=read_imagefolder,
    rows=imagefolder_rows,
)
CAPTIONS = Importer(
    about="pictures with a .txt of the same stem beside each, in any depth of folders",
    sign="a picture and a .txt of the same stem",
    fields=(),
    fits=_fits_captions,
    read=read_captions,
    rows=t2i_rows,
)
CONTROLS = Importer(
    about="a folder of conditions, one of targets, and captions, all of the same stems",
    sign="folders 'conditions' and 'targets'",
    fields=CONTROL,
    fits=_fits_control,
    read=read_control,
    rows=control_rows,
)
