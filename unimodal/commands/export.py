"""`unimodal export`: a model for other programs."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Format(StrEnum):
    """What a model can be exported to."""

    llm = "llm"


def export(
    model: Annotated[str, typer.Argument(help="A shipped model, a folder that `train` wrote, or a hub id.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write to.")],
    to: Annotated[Format, typer.Option(help="llm: the text part, as a checkpoint of transformers.")],
) -> None:
    """Give the text part back as a checkpoint of transformers."""
    from unimodal.pretrained.export import export_llm

    for name, value in (export_llm(model, folder) | {"folder": str(folder)}).items():
        typer.echo(f"{name}: {value}")
