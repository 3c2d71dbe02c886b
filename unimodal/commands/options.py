"""Options that several verbs have, and the loading that they stand for."""

from pathlib import Path
from typing import Annotated

import typer

DEFAULT = "shapes-base"
PICTURES = Path("unimodal-pictures")

Model = Annotated[
    str | None,
    typer.Option(
        help="A shipped model, a folder that `train` wrote, or a hub id.  "
        f"\\[default: the adapter's, or {DEFAULT}]"
    ),
]
Adapter = Annotated[
    list[str] | None,
    typer.Option(
        help="Adapter folder, or NAME=FOLDER; may be repeated, the first is used. It knows its model.",
        metavar="FOLDER",
    ),
]
Device = Annotated[
    str | None,
    typer.Option(help="Where to compute: cpu, cuda, cuda:1.  \\[default: CUDA where there is one]"),
]
Dtype = Annotated[
    str | None,
    typer.Option(help="Of the decoder's weights: float32, bfloat16, float16.  \\[default: float32]"),
]
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same result.")]
Steps = Annotated[
    int | None, typer.Option(min=1, help="Steps or forwards of a picture.  \\[default: the model's]")
]
Guidance = Annotated[
    float | None, typer.Option(min=0, help="How closely to follow the words.  \\[default: the model's]")
]
Size = Annotated[int | None, typer.Option(min=1, help="Longer side in pixels.  \\[default: the model's]")]
N = Annotated[int, typer.Option("--n", "-n", min=1, help="Pictures for each prompt.")]
Out = Annotated[
    Path, typer.Option(help="Picture file, or folder to number pictures in; nothing is overwritten.")
]
Tokens = Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")]
Temperature = Annotated[float, typer.Option(min=0, help="0 takes the likeliest word.")]


def load(name: str | None, adapters: list[str] | None, device: str | None, dtype: str | None):
    """`unimodal.load`, imported only when called: the chat greets before torch is there."""
    import unimodal

    said = {"adapter": adapters or None, "device": device, "dtype": dtype}
    said = {option: value for option, value in said.items() if value is not None}
    return unimodal.load(name if adapters else name or DEFAULT, **said)
