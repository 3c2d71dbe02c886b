"""Importers: other people's formats to the rows of this toolkit, by name; and which of them fits a path.

Nothing is guessed: a path that several importers fit, or none, is an error that says what was looked for.
"""

from pathlib import Path

from unimodal.data.importers.alpaca import ALPACA
from unimodal.data.importers.bagel import BAGEL
from unimodal.data.importers.columns import COLUMNS_EDIT, COLUMNS_T2I, COLUMNS_VQA
from unimodal.data.importers.conversations import LLAVA, OPENAI, ROWS
from unimodal.data.importers.folders import CAPTIONS, CONTROLS
from unimodal.data.importers.imagefolder import IMAGEFOLDER
from unimodal.data.importers.importer import Importer, Look, Options, Record, never_seen
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
    """A sentence, after a space, that names the importer for a path that is no file of rows; or "".

    row  one row of the file: then it alone is looked at, and nothing is read
    """
    if row is None:
        name = recognise(path)
    else:
        look = Look(Path("."))
        look.records = [Record(row, str(path))]
        fits = [name for name, one in IMPORTERS.items() if one.read is ROWS.read and one.fits(look)]
        name = fits[0] if len(fits) == 1 else None
    if name in (None, "rows"):
        return ""
    return f" It looks like {name}: unimodal data convert {path} --from {name} --out FOLDER makes rows of it."


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
        raise UserError(look.problem)
    if look.seen and (missing := never_seen(options.mapping, look.seen, path)):
        raise UserError(missing)
    has = f" Its fields are {', '.join(sorted(map(str, look.names)))}." if look.names else ""
    looked = "\n".join(f"  {name}: {importer.sign}" for name, importer in IMPORTERS.items())
    raise UserError(
        f"{path} is of no format that is known.{has} What was looked for:\n{looked}\n"
        "Say which it is with --from, and rename fields with --map FIELD=NAME."
    )
