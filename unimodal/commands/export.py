"""`unimodal export`: a model for other programs, or an adapter as a model of its own."""

from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer


class Format(StrEnum):
    """What a model can be exported to."""

    llm = "llm"


def export(
    model: Annotated[
        str,
        typer.Argument(
            help="A shipped model, a folder that `train` wrote, a hub id; or an adapter, to --merge.",
            metavar="MODEL",
        ),
    ],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write to.")],
    to: Annotated[
        Format | None, typer.Option(help="llm: the text part, as a checkpoint of transformers.")
    ] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Work an adapter into its base: a model that needs no adapter.")
    ] = False,
    base: Annotated[
        str | None, typer.Option(help="The adapter's base, if it is elsewhere now.", metavar="MODEL")
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="Of merged weights: float32, bfloat16, float16.  \\[default: float32]"),
    ] = None,
) -> None:
    """Merge an adapter, give the text part back as a checkpoint of transformers, or both in turn."""
    from unimodal.adapters.base import is_adapter
    from unimodal.errors import UserError

    if not (to or merge):
        raise UserError("say what to export: --to llm (the text part) or --merge (an adapter in its base)")
    if not merge:
        if base or dtype:
            raise UserError(f"--{'base' if base else 'dtype'} goes with --merge: only merged weights are new")
        if is_adapter(model):
            raise UserError(
                f"{model} is an adapter, which has no text part of its own: add --merge, and it is "
                "worked into its base first."
            )
        _to_llm(model, folder)
    elif not to:
        typer.echo(f"folder: {_merged(model, folder, base, dtype)}")
    else:
        from unimodal.pretrained.checkpoint import check_free

        check_free(folder)
        with TemporaryDirectory() as between:
            _to_llm(str(_merged(model, Path(between) / "merged", base, dtype)), folder)


def _merged(adapter: str, out: Path, base: str | None, dtype: str | None) -> Path:
    import torch

    from unimodal.adapters.merge import merge_adapter
    from unimodal.pretrained.choices import dtype_of

    return merge_adapter(base, adapter, out, dtype_of(dtype) or torch.float32)


def _to_llm(model: str, folder: Path) -> None:
    from unimodal.pretrained.export import export_llm

    for name, value in (export_llm(model, folder) | {"folder": str(folder)}).items():
        typer.echo(f"{name}: {value}")
