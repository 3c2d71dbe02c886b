"""`unimodal init`: a unified model of a pretrained language model and a codec."""

from pathlib import Path
from typing import Annotated

import typer


def init(
    llm: Annotated[
        str, typer.Option(help="Checkpoint folder or hub id, of Llama, Mistral, Qwen2, Qwen3 or SmolLM.")
    ],
    codec: Annotated[str, typer.Option(help="Codec: folder or hub id of a diffusers autoencoder.")],
    out: Annotated[Path, typer.Option(help="Folder to write the model to.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="What the language model leaves open, as image_size=512.",
        ),
    ] = None,
    path: Annotated[str, typer.Option(help="The way images are made.")] = "flow",
    vision: Annotated[
        str | None,
        typer.Option(help="SigLIP, CLIP or DINOv2, folder or hub id, to read input pictures a second time."),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="Of the saved weights: float32, bfloat16, float16.  \\[default: the checkpoint's]"),
    ] = None,
    device: Annotated[str, typer.Option(help="Where weights are converted.")] = "cpu",
    max_length: Annotated[
        int | None, typer.Option(min=1, help="Longest document in positions, for a sliding window.")
    ] = None,
) -> None:
    """Make a model of a pretrained language model and a codec, to be trained."""
    from unimodal.pretrained.initialise import init_model

    _print(
        init_model(llm, codec, out, path, settings or (), dtype, device, max_length, vision)
        | {"folder": str(out)}
    )


def _print(summary: dict[str, str]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in summary.items():
        table.add_row(name, value)
    Console(highlight=False, markup=False).print(table)
