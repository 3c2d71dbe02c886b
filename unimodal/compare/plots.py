"""Two plots of a comparison, as SVG: quality against what training cost, and against what a picture costs.

Where FLOPs of training are what all had alike, its minutes stand in their place: points above each other say
nothing.
"""

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {"integrated": "#3056d3", "external": "#d35f30"}
QUALITY = "t2i/mean"
GAP = 0.055  # between two names, in the unit of a score
ALIKE = 1.05  # FLOPs that differ by less than this factor are the same: whole steps do not meet a budget


def plots(results: dict[str, Any]) -> dict[str, str]:
    """Name to SVG; without entrants that have the figure there is no plot."""
    done = [told for told in results["entrants"] if "failed" not in told and QUALITY in told["scores"]]
    if not done:
        return {}
    flops = [told["training"]["flops"] for told in done]
    if len(done) > 1 and max(flops) < ALIKE * min(flops):
        label = f"training, minutes ({max(flops):.2g} FLOPs each)"
        training = _plot(done, lambda told: told["training"]["seconds"] / 60, label)
    else:
        training = _plot(done, lambda told: told["training"]["flops"], "training, FLOPs")
    return {
        "training": training,
        "picture": _plot(done, lambda told: told["seconds_per_picture"], "seconds a picture, one alone"),
    }


def _plot(done: list[dict], x_of: Callable[[dict], float], label: str) -> str:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    # Fixed ids and no date, so that the same results give the same file.
    with pyplot.rc_context({"svg.hashsalt": "unimodal", "font.size": 9}):
        figure = draw_plot(done, x_of, label)
        kept = io.StringIO()
        figure.savefig(kept, format="svg", metadata={"Date": None})
        pyplot.close(figure)
    text = kept.getvalue()
    return text[text.index("<svg") :]


def draw_plot(done: list[dict], x_of: Callable[[dict], float], label: str) -> "Figure":
    """Entrants as points with intervals; their names stand in a column beside them and do not overlap."""
    from matplotlib import pyplot, ticker

    figure, axes = pyplot.subplots(figsize=(7.2, 4), layout="constrained")
    ordered = sorted(done, key=lambda told: told["scores"][QUALITY]["value"])
    heights = spread([told["scores"][QUALITY]["value"] for told in ordered], GAP)
    for told, height in zip(ordered, heights):
        score, x, colour = told["scores"][QUALITY], x_of(told), COLOURS[told["family"]]
        bars = [[score["value"] - score["low"]], [score["high"] - score["value"]]]
        axes.errorbar(x, score["value"], bars, fmt="o", color=colour, capsize=3)
        axes.annotate(
            told["name"],
            (x, score["value"]),
            (1.04, height),
            textcoords=axes.get_yaxis_transform(),
            annotation_clip=False,
            color=colour,
            va="center",
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.4, "alpha": 0.6},
        )
    for family, colour in COLOURS.items():
        if any(told["family"] == family for told in done):
            axes.plot([], [], "o", color=colour, label=family)
    xs = [x_of(told) for told in done]
    if min(xs) > 0 and max(xs) > 3 * min(xs):
        axes.set_xscale("log")
        axes.margins(x=0.1)
        axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    else:  # what was held equal should look equal
        axes.set_xlim(0, 1.15 * max(xs) or 1)
    axes.set(xlabel=label, ylabel=f"{QUALITY}, 95 % interval", ylim=(-0.02, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left")
    return figure


def spread(values: Sequence[float], gap: float) -> list[float]:
    """Heights in [0, 1] near ascending `values`, at least `gap` apart (or as far as there is room)."""
    gap = min(gap, 1 / max(1, len(values) - 1))
    heights: list[float] = []
    for value in values:
        heights.append(max(value, heights[-1] + gap) if heights else value)
    lifted = sum(height - value for height, value in zip(heights, values)) / max(1, len(values))
    for number, height in enumerate(heights):  # as much below their values as above, but not below 0
        heights[number] = max(height - lifted, number * gap)
    for number in reversed(range(len(heights))):
        above = heights[number + 1] - gap if number + 1 < len(heights) else 1.0
        heights[number] = min(heights[number], above)
    return heights
