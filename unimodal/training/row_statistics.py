"""What the rows of a recipe are: how many, of which kind, how long, and how often a run shows each."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from unimodal.data.check import task
from unimodal.data.mixture import Mixture
from unimodal.sequence.pack import Pack
from unimodal.training.config import Recipe, SourceSection
from unimodal.training.row_maker import RowMaker

LOOKED_AT = 200  # rows whose task is told


def row_statistics(rows: RowMaker, recipe: Recipe, packs: Sequence[Pack]) -> dict[str, str]:
    """Lines for a person, by name, from a few packs of the stream and the first rows of the mixture."""
    train, mixture = recipe.train, rows.mixture
    steps = train.gradient_accumulation_steps
    documents = np.mean([len(pack.lengths) for pack in packs]) * steps
    lengths = [length for pack in packs for length in pack.lengths]
    least, middle, most = (np.quantile(lengths, q, method="lower") for q in (0, 0.5, 1))
    found = {
        "rows a step": f"{documents:,.1f}",
        "positions a row": f"{least} to {most}, half of them at most {middle}",
        "tasks": _tasks(rows),
    }
    shown = documents * train.steps
    for number, (section, source) in enumerate(zip(recipe.data.sources, mixture.sources)):
        share = mixture.quotas[number] / mixture.block
        told = "endless"
        if source.length is not None:
            told = f"{source.length:,} rows, each shown {shown * share / source.length:,.1f} times in the run"
        found[f"source {number + 1}"] = f"{_name(section)}: {share:.0%} of the mixture, {told}"
    return found


def held_out_statistics(held: Mixture, rows: int, recipe: Recipe) -> dict[str, str]:
    """The same of the held-out rows, of which `rows` are taken."""
    names = ", ".join(
        _name(section) + ("" if source.length is None else f" ({source.length:,} rows)")
        for section, source in zip(recipe.data.eval_sources, held.sources)
    )
    return {"held-out rows": f"{rows:,} of {names}, every {recipe.train.eval_steps} steps"}


def _name(section: SourceSection) -> str:
    return section.source if section.source else str(Path(section.path))


def _tasks(rows: RowMaker) -> str:
    tasks = Counter(task(rows.document(number)) for number in range(LOOKED_AT))
    return ", ".join(f"{name} {count / LOOKED_AT:.0%}" for name, count in tasks.most_common())
