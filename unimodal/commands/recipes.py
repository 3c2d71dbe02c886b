"""The shipped recipes: find, list, read and copy them.

They lie beside the package, in `recipes/`, in a clone as well as in an installed wheel.
"""

import json
import re
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any

import typer

from unimodal.errors import UserError, nearest

RECIPES = Path(__file__).parents[2] / "recipes"

app = typer.Typer(no_args_is_help=True, help="The recipes that ship with the package: ls, show, cp.")


def shipped_recipes() -> dict[str, Path]:
    """Shipped recipes by name, as `emoji` or `codec/shapes`, in alphabetical order."""
    return {
        path.relative_to(RECIPES).with_suffix("").as_posix(): path for path in sorted(RECIPES.rglob("*.yaml"))
    }


def find_recipe(name: str) -> Path:
    """A recipe file by its path, or a shipped one by its name, also as `recipes/NAME.yaml`.

    Raises UserError for neither.
    """
    path, known = Path(name), shipped_recipes()
    if path.is_file():
        return path
    short = name.removesuffix(".yaml")
    if short not in known:  # as it is called in a clone, and in the headers
        short = short.removeprefix("./").removeprefix("recipes/")
    if short in known:
        return known[short]
    raise UserError(
        f"there is no recipe {name!r}{nearest(short, known)}: expected the path of a YAML file, or a shipped "
        f"recipe ({', '.join(known) or 'none'})"
    )


def maker(path: Path) -> str | None:
    """The command whose output folder holds `path`, if a shipped recipe has it."""
    from omegaconf import OmegaConf

    for name, file in shipped_recipes().items():
        output = OmegaConf.select(OmegaConf.load(file), "output.dir")
        if output and (Path(output) in path.parents or Path(output) == path):
            return f"unimodal train {name}"
    return None


def rows_maker(path: Path) -> str | None:
    """The command that makes a file of rows, in backquotes, if a shipped recipe's header has it."""
    folders = "|".join(re.escape(str(folder)) for folder in path.parents if folder.parts)
    if not folders:
        return None
    for file in shipped_recipes().values():
        lines = takewhile(lambda line: line.startswith("#"), file.read_text(encoding="utf-8").splitlines())
        for line in lines:
            command, _, note = line.removeprefix("#").strip().removeprefix("before").strip().partition("   ")
            if re.search(rf"(--out |')({folders})(['\s]|$)", command):
                return f"`{command}` {note.strip()}".rstrip()
    return None


def first_line(path: Path) -> str:
    """The first line of a recipe's header comment."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if text := line.lstrip("# ").strip():
            return text if line.startswith("#") else ""
    return ""


def copy_recipe(name: str, target: Path) -> Path:
    """Copy a recipe to a file or into a folder and return its path.  Nothing is overwritten.

    Its run gets a folder of its own, `runs/` and the name of the copy: the shipped recipe's run is another.
    """
    source = find_recipe(name)
    path = target / source.name if target.is_dir() else target
    if path.exists():
        raise UserError(f"{path} is there already; remove it, or name another file to copy {source.name} to")
    try:
        text = source.read_text(encoding="utf-8")
        path.write_text(with_output(text, f"runs/{path.stem}"), encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot copy {source.name} to {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"cannot copy {source}: not UTF-8 at byte {error.start}, so no recipe") from error
    return path


def with_output(text: str, folder: str) -> str:
    """A recipe with another `output.dir`, every other character as it is; one without any as it is."""
    import yaml

    try:
        node = yaml.compose(text)
    except yaml.YAMLError:
        return text  # what is wrong with it is told when it is used
    for key in ("output", "dir"):
        node = next((value for name, value in _items(node) if name.value == key), None)
    if node is None:
        return text
    said = folder if re.fullmatch(r"[\w./-]+", folder) else json.dumps(folder, ensure_ascii=False)
    return text[: node.start_mark.index] + said + text[node.end_mark.index :]


def _items(node: Any) -> list[tuple[Any, Any]]:
    return node.value if getattr(node, "id", None) == "mapping" else []


@app.command("ls")
def ls() -> None:
    """List the shipped recipes."""
    from rich.console import Console
    from rich.table import Table

    table = Table("recipe", "what it makes", box=None, pad_edge=False, header_style="bold")
    for name, path in shipped_recipes().items():
        table.add_row(name, first_line(path))
    Console(highlight=False).print(table)


@app.command("show")
def show(name: Annotated[str, typer.Argument(help="As `unimodal recipes ls` names it.")]) -> None:
    """Print a recipe: what it needs, how long it takes, what to expect, and every setting."""
    from rich.console import Console
    from rich.syntax import Syntax

    text, console = find_recipe(name).read_text(encoding="utf-8"), Console()
    if console.is_terminal:
        console.print(Syntax(text, "yaml", background_color="default", word_wrap=True))
    else:
        typer.echo(text, nl=False)


@app.command("cp")
def cp(
    name: Annotated[str, typer.Argument(help="As `unimodal recipes ls` names it.")],
    target: Annotated[Path, typer.Argument(help="File or folder to copy to.")] = Path(),
) -> None:
    """Copy a recipe here, to change it and train with it in a folder of its own, `runs/COPY`."""
    typer.echo(copy_recipe(name, target))
