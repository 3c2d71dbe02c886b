"""Two plots of a comparison, as SVG: quality against what training cost, and against what a picture costs."""

import io
from typing import Any

COLOURS = {"integrated": "#3056d3", "external": "#d35f30"}
QUALITY = "t2i/mean"


def plots(results: dict[str, Any]) -> dict[str, str]:
    """Name to SVG; without entrants that have the figure there is no plot."""
    done = [told for told in results["entrants"] if "failed" not in told and QUALITY in told["scores"]]
    if not done:
        return {}
    return {
        "training": _plot(done, lambda told: told["training"]["flops"], "training, FLOPs"),
        "picture": _plot(done, lambda told: told["seconds_per_picture"], "seconds a picture, one alone"),
    }


def _plot(done: list[dict], x_of, label: str) -> str:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    # Fixed ids and no date, so that the same results give the same file.
    with pyplot.rc_context({"svg.hashsalt": "unimodal", "font.size": 9}):
        figure, axes = pyplot.subplots(figsize=(6.4, 4), layout="constrained")
        for told in done:
            score, x = told["scores"][QUALITY], x_of(told)
            bars = [[score["value"] - score["low"]], [score["high"] - score["value"]]]
            axes.errorbar(x, score["value"], bars, fmt="o", color=COLOURS[told["family"]], capsize=3)
            axes.annotate(told["name"], (x, score["value"]), (6, 4), textcoords="offset points")
        for family, colour in COLOURS.items():
            if any(told["family"] == family for told in done):
                axes.plot([], [], "o", color=colour, label=family)
        xs = [x_of(told) for told in done]
        if min(xs) > 0 and max(xs) > 3 * min(xs):
            axes.set_xscale("log")
        axes.set(xlabel=label, ylabel=f"{QUALITY}, 95 % interval", ylim=(-0.02, 1.02))
        axes.margins(x=0.2)
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right")
        kept = io.StringIO()
        figure.savefig(kept, format="svg", metadata={"Date": None})
        pyplot.close(figure)
    text = kept.getvalue()
    return text[text.index("<svg") :]
