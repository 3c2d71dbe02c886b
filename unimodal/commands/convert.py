"""`unimodal data convert`: other people's formats to rows."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from unimodal.commands.progress import bar

NAMES = (
    *("llava", "alpaca", "openai", "imagefolder", "captions", "columns-t2i", "columns-edit", "columns-vqa"),
    *("control", "bagel", "webdataset", "rows"),
)


def convert(
    path: Annotated[Path, typer.Argument(help="File or folder to read.", metavar="PATH")],
    out: Annotated[Path, typer.Option("--out", help="New or empty folder to write to.")],
    importer: Annotated[
        str, typer.Option("--from", help=f"auto, {', '.join(NAMES)}.", metavar="NAME")
    ] = "auto",
    mapping: Annotated[
        list[str] | None,
        typer.Option(
            "--map", help="What a field is called in the data; may be repeated.", metavar="FIELD=NAME"
        ),
    ] = None,
    image_root: Annotated[
        Path | None,
        typer.Option(
            help="What picture paths are relative to; none may leave it.  Without it: PATH's folder."
        ),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Which split of a dataset that has several.")] = None,
    form: Annotated[
        Literal["jsonl", "parquet"],
        typer.Option("--format", help="rows.jsonl with images/, or rows.parquet with the pictures in it."),
    ] = "jsonl",
    val: Annotated[
        float | None,
        typer.Option(help="Share of the rows to hold out: train and val are written in place of rows."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Write nothing if anything is left out.")] = False,
) -> None:
    """Make rows from LLaVA, alpaca, OpenAI, ImageFolder, datasets, BAGEL, tars and more."""
    from unimodal.data.importers.convert import convert, print_report
    from unimodal.data.importers.importer import Options

    options = Options(_pairs(mapping or []), image_root, split)
    with bar("converting") as progress:
        report = convert(
            path, out, importer, options, form, strict, progress=lambda done: progress(done, None), val=val
        )
    print_report(report)
    raise typer.Exit(1 if report.refusal else 0)


def _pairs(mapping: list[str]) -> dict[str, str]:
    from unimodal.errors import UserError

    pairs: dict[str, str] = {}
    for one in mapping:
        field, equals, name = one.partition("=")
        if not (field and equals and name) or field in pairs:
            raise UserError(f"--map {one}: expected FIELD=NAME, each field once, as --map text=caption.")
        pairs[field] = name
    return pairs
