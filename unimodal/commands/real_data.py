"""`unimodal data make tiles | nlvr | gsm8k | plain`: rows from real data that the caller has in a folder."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from unimodal.commands.progress import bar

Out = Annotated[Path, typer.Option("--out", help="Folder to write to.")]
Held = Annotated[float, typer.Option(help="Share that is held out as val.")]
Size = Annotated[int, typer.Option(min=16, help="Side of the pictures in pixels.")]


class Task(StrEnum):
    """What rows of tiles are about."""

    t2i = "t2i"
    edit = "edit"


class Arrangement(StrEnum):
    """How NLVR's three boxes lie in a picture."""

    square = "square"
    row = "row"


def tiles(
    folder: Annotated[Path, typer.Argument(help="A copy of github.com/crawl/tiles.")],
    out: Out,
    count: Annotated[int, typer.Option(min=1, help="Edits of train; a tenth as many of val.")] = 4000,
    size: Size = 64,
    background: Annotated[str, typer.Option(help="A colour, or the path of a floor tile.")] = "white",
    task: Annotated[list[Task] | None, typer.Option(help="Only these rows.  \\[default: t2i, edit]")] = None,
    val: Held = 0.1,
    seed: int = 0,
) -> None:
    """Game art: pictures by name, and a paper doll in layers to put on and take off, with exact masks."""
    from data_tools.tiles.build import TASKS, make_tiles

    tasks = tuple(one.value for one in task) if task else TASKS
    with bar("drawing tiles") as progress:
        made = make_tiles(folder, out, count, size, background, tasks, val, seed, progress)
    typer.echo(made.summary())


def nlvr(
    folder: Annotated[Path, typer.Argument(help="Folder with NLVR's dev.json and nlvr-dev-images.zip.")],
    out: Out,
    size: Size = 64,
    arrangement: Annotated[Arrangement, typer.Option(help="The three boxes.")] = Arrangement.square,
    orders: Annotated[int, typer.Option(min=1, max=6, help="Orders of the boxes that train shows.")] = 6,
    val: Held = 0.2,
    seed: int = 0,
    told: Annotated[bool, typer.Option("--told", help="The boxes in words, in place of pictures.")] = False,
) -> None:
    """Statements about pictures, written by people: yes or no, held out by statement."""
    from data_tools.nlvr.build import make_nlvr

    with bar("telling boxes" if told else "fitting pictures") as progress:
        made = make_nlvr(folder, out, size, arrangement.value, orders, val, seed, told, progress)
    typer.echo(made.summary())


def gsm8k(
    folder: Annotated[Path, typer.Argument(help="Folder with GSM8K's train.jsonl.")],
    out: Out,
    calculations: Annotated[bool, typer.Option(help="Keep the corpus' marks <<48/2=24>>.")] = False,
    val: Held = 0.1,
    seed: int = 0,
) -> None:
    """Word problems of school arithmetic with worked answers: text alone."""
    from data_tools.gsm8k.build import make_gsm8k

    typer.echo(make_gsm8k(folder, out, calculations, val, seed).summary())


def plain(
    source: Annotated[Path, typer.Argument(help="A text file, or a folder of *.txt.")],
    out: Out,
    characters: Annotated[int, typer.Option(min=1, help="Most characters a row.")] = 1000,
    val: Held = 0.1,
) -> None:
    """Any text, cut where paragraphs end; the end of every file is held out."""
    from data_tools.plain.build import make_plain

    typer.echo(make_plain(source, out, characters, val).summary())


REAL = (tiles, nlvr, gsm8k, plain)
