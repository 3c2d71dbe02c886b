"""The picture grid of a report: a prompt a row, an entrant a column, those that most got wrong first."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_tools.shapes.captions import follows
from data_tools.shapes.oracle import read_scene
from data_tools.shapes.scene import Scene
from unimodal.compare.geneval import spec_of

PROMPTS = 30  # rows, dealt to the tags in turn


def picture_grid(folder: Path, results: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the grid: {"prompt", "tag", "pictures": [data URL or None, ...]}, most failures first.

    Every entrant's first picture of a prompt, judged as the scores were.
    """
    names = [told["name"] for told in results["entrants"] if "failed" not in told]
    rows = []
    for place in sorted(path.name for path in (folder / names[0]).glob("*")):
        said = json.loads((folder / names[0] / place / "metadata.jsonl").read_text(encoding="utf-8"))
        rows.append({"place": place, "prompt": said["prompt"], "tag": said["tag"], "said": said})
    chosen = _dealt(rows)
    for row in chosen:
        row["pictures"] = []
        for name in names:
            file = folder / name / row["place"] / "samples" / "0000.png"
            right = None
            if file.is_file():
                with Image.open(file) as picture:
                    scene = read_scene(np.asarray(picture.convert("RGB")))
                right = isinstance(scene, Scene) and follows(spec_of(row["said"]), scene)
            row["pictures"].append({"url": _url(file) if file.is_file() else None, "right": right})
        row["wrong"] = sum(picture["right"] is False for picture in row["pictures"])
    return sorted(chosen, key=lambda row: -row["wrong"])


def _dealt(rows: list[dict]) -> list[dict]:
    """The first prompts of every tag in turn, PROMPTS in all."""
    by_tag: dict[str, list[dict]] = {}
    for row in rows:
        by_tag.setdefault(row["tag"], []).append(row)
    turns = [row for k in range(PROMPTS) for tag in by_tag.values() for row in tag[k : k + 1]]
    return turns[:PROMPTS]


def _url(file: Path) -> str:
    """The picture inside a page."""
    with Image.open(file) as picture:
        kept = io.BytesIO()
        picture.convert("RGB").save(kept, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(kept.getvalue()).decode()
