"""`unimodal train`: a recipe, run or forecast."""

from typing import Annotated

import typer

from unimodal.commands.recipes import find_recipe


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
    path = find_recipe(recipe)
    from unimodal.training.config import load_recipe

    settings = load_recipe(path, overrides)
    if dry_run:
        from unimodal.training.dry_run import dry_run as forecast
        from unimodal.training.dry_run import print_forecast

        print_forecast(forecast(settings))
        return
    from unimodal.training.loop import train

    train(settings)
