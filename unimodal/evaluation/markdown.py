"""Scores as a Markdown table, for cards and documents: a column for every report."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from unimodal.errors import UserError
from unimodal.evaluation.frechet import FEATURES
from unimodal.evaluation.scores import Score

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


def read_reports(files: Sequence[Path]) -> dict[str, dict]:
    """Reports that `unimodal eval --json` wrote, named by their split, or by file where models differ.

    Reports of the suite cost go with those of the same models of another suite, if there are any: seconds are
    measured where nothing else runs, which scores need not be.
    Raises UserError for a file that is missing or holds something else, for suites that differ, and for two
    files of one name.
    """
    reports = {}
    for file in files:
        if file.stem in reports:
            raise UserError(f"two files are called {file.stem}, and columns are named by file; rename one")
        try:
            report = json.loads(file.read_text(encoding="utf-8"))
            reports[file.stem] = {key: report[key] for key in ("model", "suite", "split", "scores")}
        except FileNotFoundError as error:
            raise UserError(
                f"{file} does not exist; `unimodal eval MODEL --json {file}` writes it"
            ) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{file} holds no scores as `unimodal eval MODEL --json FILE` writes them ({error!r})"
            ) from error
    reports = _with_costs(reports)
    if len(suites := {report["suite"] for report in reports.values()}) > 1:
        raise UserError(f"scores of several suites ({', '.join(sorted(suites))}) make no one table")
    splits = [report["split"] for report in reports.values()]
    if len({report["model"] for report in reports.values()}) == 1 and len(set(splits)) == len(splits):
        return dict(zip(splits, reports.values()))
    return reports


def _with_costs(reports: dict[str, dict]) -> dict[str, dict]:
    """Costs joined to the scores of their model, of whatever split."""
    scores = {name: report for name, report in reports.items() if report["suite"] != "cost"}
    if not scores:
        return reports
    for name in reports.keys() - scores.keys():
        cost = reports[name]
        judged = [report for report in scores.values() if report["model"] == cost["model"]]
        if not judged:
            raise UserError(f"{name} says what {cost['model']} costs, and no other file has its scores")
        for report in judged:
            report["scores"] = cost["scores"] | report["scores"]
    return scores


def table(reports: Mapping[str, dict]) -> str:
    """Reports of one suite by the name of their column; rows in the order of HEADLINES.

    Names that no report holds are left out.
    """
    names = [name for name in HEADLINES if any(name in report["scores"] for report in reports.values())]
    lines = [
        "| score | " + " | ".join(f"`{column}`" for column in reports) + " |",
        "|---|" + "---|" * len(reports),
    ]
    for name in names:
        cells = [_cell(name, report["scores"].get(name)) for report in reports.values()]
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(name: str, score: dict | None) -> str:
    if score is None:
        return ""
    value, interval = Score(**score).told(name)
    return f"{value} ({interval}, n = {score['n']})" if interval else value
