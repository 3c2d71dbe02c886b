"""`unimodal eval`, `table`, `compare`, `bench`: what a model is worth, and what it costs."""

from pathlib import Path
from typing import Annotated

import typer

from unimodal.commands.options import DEFAULT, Adapter, Device, Dtype, Seed, load
from unimodal.commands.recipes import find_recipe
from unimodal.errors import UserError


def evaluate(
    model: Annotated[
        str | None,
        typer.Argument(help="A shipped model or codec, a folder of one that `train` wrote, or a hub id."),
    ] = None,
    adapter: Adapter = None,
    device: Device = None,
    dtype: Dtype = None,
    suite: Annotated[str, typer.Option(help="shapes, emoji, rows, codec or cost.")] = "shapes",
    split: Annotated[str, typer.Option(help="Which prompts, as val or unseen.")] = "val",
    task: Annotated[
        list[str] | None,
        typer.Option(help="A part of the shapes suite, as vqa; may be repeated.  \\[default: all]"),
    ] = None,
    n: Annotated[int, typer.Option("--n", "-n", min=1, help="Prompts of each kind.")] = 64,
    seed: Seed = 0,
    json: Annotated[Path | None, typer.Option(help="Write the scores here.")] = None,
    sheet: Annotated[Path | None, typer.Option(help="Write a sheet of the first failures here.")] = None,
    sheet_all: Annotated[
        bool, typer.Option("--sheet-all", help="Let the sheet show what was right as well.")
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(help="For emoji, rows, codec: the folder that `data make` wrote; emoji need none."),
    ] = None,
    cost: Annotated[
        bool, typer.Option("--cost", help="Measure forwards, operations and seconds a picture as well.")
    ] = False,
) -> None:
    """Judge a model: scores with counts and 95 % intervals."""
    if not (model or adapter):
        raise UserError("name the model to judge, or an --adapter, which knows its model")
    from unimodal.evaluation.run import evaluate, print_report

    judged = load(model, adapter, device, dtype) if adapter else model
    report = evaluate(
        judged,
        suite,
        split=split,
        tasks=tuple(task) if task else None,
        n=n,
        seed=seed,
        json=json,
        sheet=sheet,
        sheet_all=sheet_all,
        data=data,
        cost=cost,
        device=device,
        dtype=dtype,
    )
    print_report(report)


def table(
    files: Annotated[
        list[Path], typer.Argument(help="As `eval --json` wrote them.", metavar="SCORES.json...")
    ],
) -> None:
    """Put scores side by side, as a Markdown table."""
    from unimodal.evaluation.markdown import read_reports, table

    typer.echo(table(read_reports(files)))


def compare(
    comparison: Annotated[
        str, typer.Argument(help="YAML file, or a shipped comparison's name.", metavar="COMPARISON.yaml")
    ],
    budget: Annotated[
        str, typer.Option(help="How much training each entrant gets, as the file says.")
    ] = "5m",
    out: Annotated[
        Path, typer.Option(help="Folder for runs and report; a killed comparison goes on.")
    ] = Path("comparison"),
    jobs: Annotated[
        int,
        typer.Option(min=1, help="Entrants trained and judged at once, each on its share of the threads."),
    ] = 1,
) -> None:
    """Train ways of making pictures on equal terms, judge them alike, and write a report."""
    path = find_recipe(comparison)
    from unimodal.compare.run import compare

    compare(path, budget, out, jobs)
    typer.echo(f"{out / 'report.html'}")


def bench(
    model: Annotated[
        str, typer.Option(help="A shipped model, a folder that `train` wrote, or a hub id.")
    ] = DEFAULT,
) -> None:
    """Measure speed here: training, reading, writing and drawing."""
    from unimodal.evaluation.bench import bench

    bench(model)
