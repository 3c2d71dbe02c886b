"""Scores as a Markdown table, for cards and documents: a column for every report.

Columns are named by split, or by model where there are several.

python -m unimodal.evaluation.markdown docs/scores/shapes-base.val.json docs/scores/shapes-base.unseen.json
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from unimodal.evaluation.frechet import FEATURES

CODEC = ("psnr", "ssim", f"frechet_{FEATURES}", "read", "use", "perplexity")
ANSWER = ("gflop", "seconds_1", "seconds_16")
# Of a task with many kinds, the tags and means that are compared; the JSON has the rest.
HEADLINES = (
    *(f"t2i/{tag}" for tag in ("single", "two", "counting", "colors", "position", "attribute", "mean")),
    *(f"edit/{name}" for name in ("followed", "psnr_outside", "copy_baseline", "inside_to_copy")),
    *(f"edit/{name}" for name in ("error_inside", "error_inside_copy", "error_outside")),
    *(f"vqa/{name}" for name in ("name", "group", "tone", "gender", "direction", "mean")),
    *("text/mean", "chat/mean"),
    *(f"{suite}/{name}" for suite in ("codec", "codec_emoji") for name in CODEC),
    *(f"cost/{name}" for name in ("parameters", "forwards", *ANSWER)),
    *(f"cost/drawing_{name}" for name in ANSWER),
)


def table(reports: Sequence[dict]) -> str:
    """`reports` as `unimodal eval --json` wrote them, all of one suite; rows in the order of HEADLINES.

    Names that no report holds are left out.
    """
    names = [name for name in HEADLINES if any(name in report["scores"] for report in reports)]
    column = "model" if len({report["model"] for report in reports}) > 1 else "split"
    lines = [
        "| score | " + " | ".join(f"`{report[column]}`" for report in reports) + " |",
        "|---|" + "---|" * len(reports),
    ]
    for name in names:
        cells = [_cell(name, report["scores"].get(name)) for report in reports]
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(name: str, score: dict | None) -> str:
    if score is None:
        return ""
    if name in ("cost/parameters", "cost/forwards"):
        return f"{score['value']:,.0f}"
    digits = 1 if "psnr" in name or "error" in name else 3
    value, low, high = (f"{score[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} ({low} to {high}, n = {score['n']})"


if __name__ == "__main__":
    print(table([json.loads(Path(name).read_text(encoding="utf-8")) for name in sys.argv[1:]]))
