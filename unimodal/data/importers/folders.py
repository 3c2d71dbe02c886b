"""Folders of pictures: with a .txt beside each, or with a control each.

Hidden files are no data; every other file that gives no row is
told.
"""

from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path, PurePosixPath

from unimodal.data.importers.columns import t2i_rows
from unimodal.data.importers.importer import Drop, Importer, Look, Options, Record, make_row
from unimodal.data.importers.tables import GLIMPSE, PICTURES, Records, read_text
from unimodal.errors import UserError, nearest

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
    beside = "captions" not in options.mapping and not captions.is_dir()
    return conditions, targets, targets if beside else captions


def read_control(path: Path, options: Options) -> Records:
    """One record for each stem found in any of the folders; then every other file."""
    folders = _control(path, options)
    for folder, name in zip(folders, CONTROL):
        if not folder.is_dir():
            there = [one.name for one in sorted(path.iterdir()) if one.is_dir()] if path.is_dir() else []
            raise UserError(
                f"{folder}: there is no such folder{nearest(folder.name, there)}; expected one of {name}. "
                f"Say --map {name}=FOLDER."
            )
    found: list[dict[str, list[Path]]] = []
    for folder, text in zip(folders, (False, False, True)):
        stems: dict[str, list[Path]] = defaultdict(list)
        for name in files(folder):
            if name.lower().endswith(".txt") if text else is_picture(name):
                stems[_stem(name)].append(folder / name)
        found.append(stems)
    for stem in sorted({*found[0], *found[1], *found[2]}):
        missing = [name for name, stems in zip(CONTROL, found) if stem not in stems]
        several = next((stems[stem] for stems in found if len(stems.get(stem, ())) > 1), None)
        where = str(next(stems[stem][0] for stems in found if stem in stems))
        if several:
            sentence = f"{where}: {several[0]} and {several[1]} are of one stem. Rename one."
            yield where, Drop("two files of one stem", sentence)
        elif missing:
            sentence = f"{where}: nothing of this stem in {', '.join(missing)}. Add it or remove the others."
            yield where, Drop(f"no partner in {missing[0]}", sentence)
        else:
            text = _caption(found[2][stem][0])
            # Whole paths: a mapped folder may lie elsewhere.
            pictures = [str(stems[stem][0].absolute()) for stems in found[:2]]
            yield where, text if isinstance(text, Drop) else dict(zip(CONTROL, [*pictures, text]))
    taken = {file for stems in found for some in stems.values() for file in some}
    for other in sorted({folder / name for folder in (path, *folders) for name in files(folder)} - taken):
        sentence = f"{other}: neither a picture of {', '.join(CONTROL[:2])} nor a .txt of captions."
        yield str(other), Drop("file of no stem's", sentence)


def control_rows(record: Record) -> Iterator[dict]:
    """Condition and caption ask, the target answers."""
    asked = [record.picture("conditions"), record.text("captions")]
    yield make_row(("user", asked), ("assistant", [record.picture("targets")]))


def _fits_control(look: Look) -> str | None:
    conditions, targets, _ = _control(look.path, look.options)
    if conditions.is_dir() and targets.is_dir():
        return f"there are the folders {conditions.name} and {targets.name} in it"
    return None


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
    maps_folders=True,
)
