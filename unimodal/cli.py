"""The command line: a few lines a verb over a function that a notebook could call.

Nothing heavy is imported until a verb needs it, so that `--help` and completion answer at once.
"""

import errno
import sys
from pathlib import Path
from typing import Annotated

import typer

from unimodal.commands import data, export, init, recipes
from unimodal.errors import UserError

DEFAULT = "shapes-base"

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="One decoder transformer that reads and writes text and images: train, chat, judge.",
)
app.add_typer(data.app, name="data")
app.add_typer(recipes.app, name="recipes")
app.command()(init.init)
app.command()(export.export)

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
Steps = Annotated[int | None, typer.Option(min=1, help="Denoising steps.  \\[default: the model's]")]
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

PICTURES = Path("unimodal-pictures")


@app.command()
def train(
    recipe: Annotated[
        str, typer.Argument(help="YAML file, or a shipped recipe's name.", metavar="RECIPE.yaml")
    ],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[SECTION.KEY=VALUE]...")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what it would take: memory, time, rows.")
    ] = False,
) -> None:
    """Train or fine-tune a model as a recipe says."""
    path = recipes.find_recipe(recipe)
    from unimodal.training.config import load_recipe

    settings = load_recipe(path, overrides)
    if dry_run:
        from unimodal.training.dry_run import dry_run as forecast
        from unimodal.training.dry_run import print_forecast

        print_forecast(forecast(settings))
        return
    from unimodal.training.loop import train

    train(settings)


@app.command()
def generate(
    prompts: Annotated[list[str], typer.Argument(metavar="PROMPT...")],
    model: Model = None,
    adapter: Adapter = None,
    device: Device = None,
    dtype: Dtype = None,
    n: N = 1,
    seed: Seed = 0,
    steps: Steps = None,
    guidance: Guidance = None,
    size: Size = None,
    out: Out = PICTURES,
) -> None:
    """Draw pictures of what the prompts say."""
    from unimodal.commands.pictures import show_all

    loaded = _load(model, adapter, device, dtype)
    show_all(loaded.generate(prompts, n=n, seed=seed, steps=steps, guidance=guidance, size=size), out)


@app.command()
def edit(
    image: Annotated[str, typer.Argument(help="Picture file.", metavar="IMAGE")],
    instruction: str,
    model: Model = None,
    adapter: Adapter = None,
    device: Device = None,
    dtype: Dtype = None,
    n: N = 1,
    seed: Seed = 0,
    steps: Steps = None,
    guidance: Guidance = None,
    image_guidance: Annotated[
        float | None, typer.Option(min=0, help="How closely to keep to the picture.")
    ] = None,
    size: Size = None,
    out: Out = PICTURES,
) -> None:
    """Change a picture as told."""
    from unimodal.chat.pictures import open_image

    picture = open_image(image)
    from unimodal.commands.pictures import show_all

    options = {"steps": steps, "guidance": guidance, "image_guidance": image_guidance, "size": size}
    show_all(_load(model, adapter, device, dtype).edit(picture, instruction, n=n, seed=seed, **options), out)


@app.command()
def ask(
    image: Annotated[str, typer.Argument(help="Picture file.", metavar="IMAGE")],
    question: str,
    model: Model = None,
    adapter: Adapter = None,
    device: Device = None,
    dtype: Dtype = None,
    max_tokens: Tokens = 128,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
) -> None:
    """Answer a question about a picture."""
    from unimodal.chat.pictures import open_image

    picture = open_image(image)
    loaded = _load(model, adapter, device, dtype)
    typer.echo(loaded.answer(picture, question, max_tokens=max_tokens, temperature=temperature, seed=seed))


@app.command()
def complete(
    text: str,
    model: Model = None,
    adapter: Adapter = None,
    device: Device = None,
    dtype: Dtype = None,
    max_tokens: Tokens = 128,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
) -> None:
    """Go on with a text."""
    loaded = _load(model, adapter, device, dtype)
    typer.echo(loaded.complete(text, max_tokens=max_tokens, temperature=temperature, seed=seed))


@app.command()
def chat(
    model: Annotated[
        str | None,
        typer.Argument(
            help="A shipped model, a folder that `train` wrote, or a hub id.  "
            f"\\[default: the adapter's, or {DEFAULT}]"
        ),
    ] = None,
    adapter: Adapter = None,
    device: Device = None,
    dtype: Dtype = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help="One message, one reply, and out.")
    ] = None,
    image: Annotated[
        list[str] | None, typer.Option(help="Picture for the first message; may be repeated.")
    ] = None,
    save_dir: Annotated[Path, typer.Option(help="Folder for the pictures.")] = PICTURES,
    web: Annotated[
        bool, typer.Option("--web", help="Talk on a page in the browser (needs the extra `web`).")
    ] = False,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of the page.")] = 7860,
) -> None:
    """Talk with a model in words and pictures.  Lines from a pipe are messages too."""
    shown = " with ".join(part for part in (model, *(adapter or [])) if part) or DEFAULT

    def load(name: str):
        # The first model comes with its adapters; /load brings others, without.
        return _load(*((model, adapter) if name == shown else (name, None)), device, dtype)

    if web:
        if prompt or image:
            raise UserError("--web opens a page to talk on; leave --prompt and --image out")
        from unimodal.chat.web import serve

        serve(shown, load, save_dir, port)
        return
    from unimodal.chat.repl import chat

    chat(shown, load, prompt, image or [], save_dir)


def _load(name: str | None, adapters: list[str] | None, device: str | None, dtype: str | None):
    """`unimodal.load`, imported only when called: the chat greets before torch is there."""
    from unimodal import load

    said = {"adapter": adapters or None, "device": device, "dtype": dtype}
    said = {option: value for option, value in said.items() if value is not None}
    return load(name if adapters else name or DEFAULT, **said)


@app.command("eval")
def evaluate(
    model: Annotated[
        str | None,
        typer.Argument(help="A shipped model, a folder that `train` wrote (of a codec too), or a hub id."),
    ] = None,
    adapter: Adapter = None,
    device: Device = None,
    dtype: Dtype = None,
    suite: Annotated[str, typer.Option(help="shapes, emoji, rows or codec.")] = "shapes",
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

    judged = _load(model, adapter, device, dtype) if adapter else model
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


@app.command()
def table(
    files: Annotated[
        list[Path], typer.Argument(help="As `eval --json` wrote them.", metavar="SCORES.json...")
    ],
) -> None:
    """Put scores side by side, as a Markdown table."""
    from unimodal.evaluation.markdown import read_reports, table

    typer.echo(table(read_reports(files)))


@app.command()
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
) -> None:
    """Train ways of making pictures on equal terms, judge them alike, and write a report."""
    path = recipes.find_recipe(comparison)
    from unimodal.compare.run import compare

    compare(path, budget, out)
    typer.echo(f"{out / 'report.html'}")


@app.command()
def bench(
    model: Annotated[
        str, typer.Option(help="A shipped model, a folder that `train` wrote, or a hub id.")
    ] = DEFAULT,
) -> None:
    """Measure speed here: training, reading, writing and drawing."""
    from unimodal.evaluation.bench import bench

    bench(model)


@app.command()
def env() -> None:
    """Say what this machine has, for a bug report: versions, device, speed, terminal."""
    from rich.console import Console
    from rich.table import Table

    from unimodal.commands.env import environment

    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in environment().items():
        table.add_row(name, value)
    Console(highlight=False).print(table)


def main() -> None:
    """The console script.  A user's mistake is one red sentence and exit code 2, never a traceback."""
    try:
        app()
    except UserError as error:
        sentence = str(error)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = error.filename or "what was being written"
        sentence = f"The disk is full: {where} could not be finished. Make room, delete it, and begin again."
    else:
        return
    from rich.console import Console

    Console(stderr=True, highlight=False).print(sentence, style="red", markup=False, soft_wrap=True)
    sys.exit(2)
