"""`unimodal data`: check, look at, and make training rows."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from unimodal.commands.convert import convert
from unimodal.commands.progress import bar
from unimodal.commands.real_data import REAL
from unimodal.errors import UserError

app = typer.Typer(no_args_is_help=True, help="Training rows: check, preview, convert, make.")
app.command()(convert)
make = typer.Typer(no_args_is_help=True, help="Make rows: shapes, emoji, or from real data.")
app.add_typer(make, name="make")

Rows = Annotated[Path, typer.Argument(help="Rows as JSONL or parquet.", metavar="PATH")]
Root = Annotated[
    Path | None, typer.Option(help="What image paths are relative to.  \\[default: the file's folder]")
]
Out = Annotated[Path, typer.Option("--out", help="Folder to write to.")]


class EmojiTask(StrEnum):
    """What rows of emoji are about."""

    t2i = "t2i"
    edit = "edit"
    vqa = "vqa"


@app.command()
def check(
    path: Rows,
    image_root: Root = None,
    model: Annotated[str | None, typer.Option(help="Measure rows as this model would lay them out.")] = None,
    budget: Annotated[int, typer.Option(min=1, help="data.tokens of the recipe; needs --model.")] = 4096,
) -> None:
    """Check every row: a report, and exit code 1 if there is an error."""
    from unimodal.data.check import check, print_report

    measure = row_length(model) if model else None
    with bar("checking") as progress:
        report = check(path, measure, budget if model else None, image_root, progress=progress)
    print_report(report)
    raise typer.Exit(0 if report.ok else 1)


def row_length(model: str) -> Callable:
    """A function from a Document to the positions it takes in that model, which refuses what is too long."""
    from unimodal.data.document import Document
    from unimodal.data.pictures import fit
    from unimodal.model.folder import find_model, load_model
    from unimodal.sequence.room import Room, too_far

    loaded, tokenizer = load_model(find_model(model))
    room = Room(tokenizer, loaded.path, loaded.multiple, loaded.block, loaded.vision_grid)
    size, limit = loaded.config.image_size, loaded.config.limit

    def length(document: Document) -> int:
        fitted = fit(document, loaded.multiple, size=size)
        if limit is not None and (reach := room.farther(fitted, limit)) is not None:
            raise UserError(too_far(f"{document.id}: the row", reach, limit))
        return room.exactly(fitted)

    return length


@app.command()
def preview(
    path: Rows,
    image_root: Root = None,
    n: Annotated[int, typer.Option("--n", "-n", min=1, help="How many rows, from the first.")] = 4,
    out: Annotated[Path | None, typer.Option(help="PNG to write.  \\[default: show in the terminal]")] = None,
    font: Annotated[
        Path | None, typer.Option(help="TrueType file for the PNG's text, where it is not Latin.")
    ] = None,
) -> None:
    """Show rows as the model reads them, with what it learns to write or draw marked."""
    from rich.console import Console

    from unimodal.chat.terminal import Screen
    from unimodal.commands.pictures import save_all
    from unimodal.data import preview
    from unimodal.data.rows import parse_row
    from unimodal.data.source import FileSource

    source = FileSource(path, image_root)
    rows = (source.row(i) for i in range(min(n, source.length)))
    documents = [parse_row(row, where, source.image_root) for where, row in rows]
    if out:
        typer.echo(save_all([preview.sheet(documents, font)], out)[0])
        return
    console = Console()
    console.print(preview.LEGEND, style="dim")
    for document in documents:
        console.print(preview.terminal(document, Screen(console).inline()))


@make.command()
def shapes(
    out: Out,
    count: Annotated[
        int, typer.Option(min=1, help="Rows of train; a tenth as many of each other split.")
    ] = 10_000,
    seed: int = 0,
) -> None:
    """Coloured shapes on a grid: drawing, editing, questions, text and conversations, exactly judged."""
    from data_tools.shapes.build import make_shapes

    for split, rows in make_shapes(out, count, seed).items():
        typer.echo(f"{out / split}.jsonl: {rows} rows")


@make.command()
def emoji(
    out: Out,
    font: Annotated[Path | None, typer.Option(help="NotoColorEmoji.ttf.  \\[default: Debian's]")] = None,
    names: Annotated[Path | None, typer.Option(help="emoji-test.txt.  \\[default: Debian's]")] = None,
    size: Annotated[int, typer.Option(min=16, help="Side of the pictures in pixels.")] = 64,
    task: Annotated[
        list[EmojiTask] | None, typer.Option(help="Only these rows; may be repeated.  \\[default: all]")
    ] = None,
    seed: int = 0,
) -> None:
    """Real art: names, skin tones, gender and direction, from the fonts of this machine."""
    from data_tools.emoji.build import TASKS, make_emoji

    tasks = tuple(one.value for one in task) if task else TASKS
    with bar("drawing emoji") as progress:
        made = make_emoji(out, font, size, seed, names=names, progress=progress, tasks=tasks)
    typer.echo(made.summary())


for command in REAL:
    make.command()(command)
