"""Importers: other people's formats to the rows of this toolkit, by name; and which of them fits a path.

Nothing is guessed: a path that several importers fit, or none, is an error that says what was looked for.
"""

from pathlib import Path

from unimodal.data.importers.alpaca import ALPACA
from unimodal.data.importers.bagel import BAGEL
from unimodal.data.importers.columns import COLUMNS_EDIT, COLUMNS_T2I, COLUMNS_VQA
from unimodal.data.importers.conversations import LLAVA, OPENAI, ROWS
from unimodal.data.importers.folders import CAPTIONS, CONTROLS
from unimodal.data.importers.hints import command, of_pictures, plain, renamed, with_more
from unimodal.data.importers.imagefolder import IMAGEFOLDER
from unimodal.data.importers.importer import Importer, Look, Options, Record, never_seen, read_table
from unimodal.data.importers.tables import is_table
from unimodal.data.importers.webdataset import WEBDATASET
from unimodal.errors import UserError, nearest

IMPORTERS: dict[str, Importer] = {
    "llava": LLAVA,
    "alpaca": ALPACA,
    "openai": OPENAI,
    "imagefolder": IMAGEFOLDER,
    "captions": CAPTIONS,
    "columns-t2i": COLUMNS_T2I,
    "columns-edit": COLUMNS_EDIT,
    "columns-vqa": COLUMNS_VQA,
    "control": CONTROLS,
    "bagel": BAGEL,
    "webdataset": WEBDATASET,
    "rows": ROWS,
}


def fitting(look: Look) -> dict[str, str]:
    """Every importer that fits, and why."""
    found = {name: importer.fits(look) for name, importer in IMPORTERS.items()}
    return {name: why for name, why in found.items() if why}


def recognise(path: str | Path) -> str | None:
    """The name of the one importer that fits a path, or None if none or several do."""
    path = Path(path)
    found = list(fitting(Look(path))) if path.exists() else []
    return found[0] if len(found) == 1 else None


def advice(path: str | Path, row: dict | None = None) -> str:
    """A sentence, after a space, that names the command for a path that is no file of rows; or "".

    row  one row of the file: then it alone is looked at, and nothing is read
    """
    if row is None:
        look = Look(Path(path))
        found = fitting(look) if look.path.exists() else {}
    else:
        look = Look(Path("."))
        look.records = [Record(row, str(path))]
        found = {
            name: why for name, one in IMPORTERS.items() if one.read is read_table and (why := one.fits(look))
        }
        found = {"imagefolder": ""} if of_pictures(path, row) else found
    if len(found) > 1:
        return ""
    name = next(iter(found), None)
    if row is not None and name in (None, "rows"):
        return ("" if name else renamed(path, row)) or with_more(path, row)
    if name == "rows" and Path(path).suffix in (".jsonl", ".parquet"):
        return ""
    if name is None:
        return _otherwise(look)
    return f" It looks like {name}: {command(path, name)} makes rows of it."


def _otherwise(look: Look) -> str:
    """What to do with a path that nothing fits, if that can be told."""
    values = [record.values for record in look.records[:1]]
    return renamed(look.path, values[0]) if values else plain(look)


def choose(path: Path, name: str, options: Options) -> tuple[str, Importer, str]:
    """The importer to use and why: the one named, or the one that fits if `name` is `auto`.

    Raises UserError if there is no such path or importer, if several or none fit, or if `options.mapping`
    names a field that it does not have.
    """
    if not path.exists():
        hub = f"; a dataset of the hub comes by `hf download {path} --repo-type dataset --local-dir DIR`"
        raise UserError(
            f"{path}: there is nothing there. Mend the path{hub if len(path.parts) == 2 else ''}."
        )
    if options.image_root is not None and not options.image_root.is_dir():
        raise UserError(f"image root {options.image_root} is no folder. Mend the path.")
    if name != "auto":
        if name not in IMPORTERS:
            raise UserError(
                f"no importer {name!r}{nearest(name, IMPORTERS)}; expected auto, {', '.join(IMPORTERS)}."
            )
        why = "as --from says"
    else:
        name, why = _recognised(path, options)
    importer = IMPORTERS[name]
    for field in options.mapping:
        if field not in importer.fields:
            fields = ", ".join(importer.fields) or "none"
            raise UserError(
                f"--map {field}=...: {name} has no field {field!r}{nearest(field, importer.fields)}; "
                f"it has {fields}. Mend --map."
            )
    return name, importer, why


def _recognised(path: Path, options: Options) -> tuple[str, str]:
    look = Look(path, options)
    found = fitting(look)
    if len(found) == 1:
        return next(iter(found.items()))
    if found:
        which = "; ".join(f"{name}, for {why}" for name, why in found.items())
        raise UserError(
            f"{path} could be read in several ways: {which}. Say which: --from {next(iter(found))}."
        )
    if look.problem:
        raise UserError(f"{look.problem}{plain(look)}")
    if look.seen and (missing := never_seen(options.mapping, look.seen, path)):
        raise UserError(missing)
    if is_table(path) and not look.records:
        raise UserError(f"{path}: it has no records; expected at least one. Is it the file that is meant?")
    has = f" Its fields are {', '.join(sorted(map(str, look.names)))}." if look.names else ""
    looked = "\n".join(f"  {name}: {importer.sign}" for name, importer in IMPORTERS.items())
    raise UserError(
        f"{path} is of no format that is known.{has} What was looked for:\n{looked}\n"
        f"Say which it is with --from, and rename fields with --map FIELD=NAME.{_otherwise(look)}"
    )
