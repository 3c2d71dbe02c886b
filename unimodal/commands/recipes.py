"""The shipped recipes: find, list, read and copy them.

They lie beside the package, in `recipes/`, in a clone as well as in an installed wheel.
"""

import shutil
from pathlib import Path
from typing import Annotated

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
    """A recipe file by its path, or a shipped one by its name.  Raises UserError for neither."""
    path, known = Path(name), shipped_recipes()
    if path.is_file():
        return path
    short = name.removesuffix(".yaml")
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


def first_line(path: Path) -> str:
    """The first line of a recipe's header comment."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if text := line.lstrip("# ").strip():
            return text if line.startswith("#") else ""
    return ""


def copy_recipe(name: str, target: Path) -> Path:
    """Copy a recipe to a file or into a folder and return its path.  Nothing is overwritten."""
    source = find_recipe(name)
    path = target / source.name if target.is_dir() else target
    if path.exists():
        raise UserError(f"{path} is there already; remove it, or name another file to copy {source.name} to")
    try:
        shutil.copyfile(source, path)
    except OSError as error:
        raise UserError(f"cannot copy {source.name} to {path}: {error.strerror}") from error
    return path


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
    """Copy a recipe here, to change it and train with it."""
    typer.echo(copy_recipe(name, target))
