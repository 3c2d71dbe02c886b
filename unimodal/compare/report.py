"""What a comparison leaves: results.json, report.md, plots, and a report.html that needs no other file."""

import json
from pathlib import Path
from typing import Any

from unimodal.compare.entrant import TASKS
from unimodal.compare.grid import picture_grid

LEADS = {
    "t2i": "t2i/mean",
    "edit": "edit/followed",
    "vqa": "vqa/mean",
    "text": "text/mean",
    "chat": "chat/mean",
}
KINDS = tuple(f"t2i/{tag}" for tag in ("single", "two", "counting", "colors", "position", "attribute"))
SCORES = (*LEADS.values(), *KINDS, "edit/psnr_outside", "edit/copy_baseline", "codec/psnr")
COSTS = {
    "M trained": lambda told: told["params"]["trained"] / 1e6,
    "M in all": lambda told: told["params"]["total"] / 1e6,
    "training PFLOPs": lambda told: told["training"]["flops"] / 1e15,
    "training minutes": lambda told: told["training"]["seconds"] / 60,
    "threads in training": lambda told: told["training"]["threads"],
    "training rows/s": lambda told: told["training"]["rows_per_second"],
    "GFLOPs a picture": lambda told: told["flops_per_picture"] / 1e9,
    "forwards a picture": lambda told: told["forwards_per_picture"],
    "s a picture": lambda told: told["seconds_per_picture"],
    "s a picture of 16": lambda told: told["seconds_per_picture_of_16"],
    "GB drawing": lambda told: told["memory_gb"],
    "conditions kept: a step is so many times as fast": lambda told: (told["condition_cache"] or {}).get(
        "gain"
    ),
    "rows read": lambda told: told["training"]["rows"]["read"],
    "of them without a picture": lambda told: told["training"]["rows"].get("without_picture"),
}


def write_report(results: dict[str, Any], out: Path) -> None:
    """Write everything into `out`, which has the pictures in `geneval` already."""
    from unimodal.compare.plots import plots

    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    drawn = plots(results)
    (out / "plots").mkdir(exist_ok=True)
    for name, figure in drawn.items():
        (out / "plots" / f"{name}.svg").write_text(figure, encoding="utf-8")
    (out / "report.md").write_text(_fill("report.md.jinja", results, drawn, []), encoding="utf-8")
    grid = picture_grid(out / "geneval", results)
    (out / "report.html").write_text(_fill("report.html.jinja", results, drawn, grid), encoding="utf-8")


def _fill(template: str, results: dict[str, Any], drawn: dict[str, str], grid: list[dict]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    shelf = Environment(
        loader=PackageLoader("unimodal.compare", "templates"),
        autoescape=select_autoescape(["html.jinja"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shelf.filters["number"] = number
    entrants = [told for told in results["entrants"] if "failed" not in told]
    scores = [name for name in SCORES if any(name in told["scores"] for told in entrants)]
    return shelf.get_template(template).render(
        results=results,
        entrants=entrants,
        failed=_failed(results["entrants"]),
        scores=scores,
        costs=[(told["name"], {name: cost(told) for name, cost in COSTS.items()}) for told in entrants],
        cost_names=[name for name, cost in COSTS.items() if any(cost(told) is not None for told in entrants)],
        pairs=_by_pair(results["pairs"]),
        tasks=[task for task in TASKS if any(pair["task"] == task for pair in results["pairs"])],
        plots=drawn,
        grid=grid,
    )


def _failed(entrants: list[dict]) -> list[dict[str, str]]:
    """What failed: {"name", "family", "failed"}, whole entrants and single seeds."""
    found = []
    for told in entrants:
        known = {"name": told["name"], "family": told["family"]}
        if "failed" in told:
            found.append(known | {"failed": told["failed"]})
        for seed in told.get("failed_seeds", ()):
            found.append(known | {"name": f"{told['name']}, seed {seed['seed']}", "failed": seed["why"]})
    return found


def _by_pair(pairs: list[dict]) -> dict[tuple[str, str], dict[str, dict]]:
    """Pairs by (name, against) and task."""
    found: dict[tuple[str, str], dict[str, dict]] = {}
    for pair in pairs:
        found.setdefault((pair["name"], pair["against"]), {})[pair["task"]] = pair
    return found


def number(value: float | None, name: str = "") -> str:
    """A figure as people read it: decibels with one digit, others with three that count; a dash for none.

    From a hundred on it is whole, and from a billion on a power of ten.
    """
    if value is None:
        return "–"
    if "psnr" in name:
        return f"{value:.1f}"
    if name in SCORES or name == "share":
        return f"{value:.3f}"
    return f"{value:,.0f}" if 100 <= abs(value) < 1e9 else f"{value:.3g}"
