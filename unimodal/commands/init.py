"""`unimodal init`: a unified model of a pretrained language model, or of one of ours, and a codec."""

from pathlib import Path
from typing import Annotated

import typer

from unimodal.errors import UserError


def init(
    codec: Annotated[str, typer.Option(help="Codec: folder or hub id of a diffusers autoencoder.")],
    out: Annotated[Path, typer.Option(help="Folder to write the model to.")],
    llm: Annotated[
        str | None,
        typer.Option(help="Checkpoint folder or hub id, of Llama, Mistral, Qwen2, Qwen3 or SmolLM."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help="In its place: a model of this toolkit, which gets this codec and stays as it is."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="What the language model leaves open, as image_size=512.",
        ),
    ] = None,
    path: Annotated[
        str | None, typer.Option(help="The way images are made.  \\[default: flow]", show_default=False)
    ] = None,
    vision: Annotated[
        str | None,
        typer.Option(help="SigLIP, CLIP or DINOv2, folder or hub id, to read input pictures a second time."),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="Of the saved weights: float32, bfloat16, float16.  \\[default: the checkpoint's]"),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Where weights are converted.  \\[default: cpu]", show_default=False)
    ] = None,
    max_length: Annotated[
        int | None,
        typer.Option(
            min=1, help="Positions of the longest document, for a sliding window; none may be longer."
        ),
    ] = None,
) -> None:
    """Make a model of a pretrained language model and a codec, or give a model another codec."""
    if (llm is None) == (base is None):
        raise UserError("init makes a model either of --llm or of --base; give one of them.")
    if base is not None:
        given = {"--path": path, "--vision": vision, "--dtype": dtype, "--device": device}
        given |= {"--max-length": max_length, "KEY=VALUE": settings}
        if useless := [name for name, value in given.items() if value]:
            raise UserError(f"{', '.join(useless)}: a --base brings its own, and only its codec is changed.")
        from unimodal.pretrained.other_codec import swap_codec

        summary = swap_codec(base, codec, out)
    else:
        from unimodal.pretrained.initialise import init_model

        summary = init_model(
            llm, codec, out, path or "flow", settings or (), dtype, device or "cpu", max_length, vision
        )
    _print(summary | {"folder": str(out)})


def _print(summary: dict[str, str]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in summary.items():
        table.add_row(name, value)
    Console(highlight=False, markup=False).print(table)
