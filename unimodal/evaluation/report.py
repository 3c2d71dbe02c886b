"""What an evaluation gives: scores by name, the first failures, JSON for programs and a table for people."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.table import Table

from unimodal.evaluation.scores import Score
from unimodal.evaluation.sheet import sheet

Tile = tuple[Image.Image, str]  # a picture and its words

SHOWN = 24  # cases on a sheet, dealt to the kinds in turn


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One judged example: its score's name, whether it was right, what to show a person, what was said."""

    name: str
    right: bool
    tiles: tuple[Tile, ...] = ()
    said: str = ""  # the words that were judged, of a task that is answered in words
    numbers: tuple[float, ...] = ()  # what was measured, of a task that is judged by measuring


@dataclass
class Report:
    """Scores of one model on one split of one suite."""

    model: str
    suite: str
    split: str
    seed: int
    scores: dict[str, Score] = field(default_factory=dict)
    cases: list[Case] = field(default_factory=list)

    def as_dict(self) -> dict:
        """What the JSON file holds."""
        scores = {name: score.as_dict() for name, score in self.scores.items()}
        return {
            "model": self.model,
            "suite": self.suite,
            "split": self.split,
            "seed": self.seed,
            "scores": scores,
        }

    def save(self, path: Path) -> None:
        """Write the JSON file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.as_dict(), indent=2) + "\n", encoding="utf-8")

    def sheet(self, every_case: bool = False) -> Image.Image | None:
        """A sheet of the first failures, every kind in turn; None if nothing failed or none has a picture.

        every_case  show what was right as well: the first of every kind as they come
        """
        tiles = dealt_tiles([case for case in self.cases if every_case or not case.right])
        return sheet(tiles, columns=6) if tiles else None


def dealt_tiles(cases: Sequence[Case]) -> list[Tile]:
    """Pictures of the first cases, one of each kind, then a second of each, up to SHOWN."""
    waiting: dict[str, list[Case]] = {}
    for case in cases:
        if case.tiles:
            waiting.setdefault(case.name, []).append(case)
    tiles: list[Tile] = []
    shown = 0
    while waiting and shown < SHOWN:
        for name in list(waiting):
            tiles += waiting[name].pop(0).tiles
            shown += 1
            if not waiting[name]:
                del waiting[name]
            if shown == SHOWN:
                break
    return tiles


def print_report(report: Report, console: Console | None = None) -> None:
    """Print the scores as a table; a task's own figures follow the task."""
    title = f"{report.model} on {report.suite}/{report.split}, seed {report.seed}"
    table = Table("score", title=title, title_justify="left")
    for name in ("value", "95 % interval", "n"):
        table.add_column(name, justify="right")
    task = None
    for name, score in report.scores.items():
        if task not in (None, name.split("/")[0]):
            table.add_section()
        task = name.split("/")[0]
        style = "bold" if name.endswith(("/mean", "/followed")) else None
        table.add_row(name, *score.told(name), str(score.n), style=style)
    (console or Console()).print(table)
