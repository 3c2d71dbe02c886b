"""The picture grid of a report: a prompt a row, an entrant a column, those that most got wrong first."""

import base64
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_tools.shapes.captions import follows
from data_tools.shapes.oracle import read_scene
from data_tools.shapes.scene import Scene
from unimodal.compare.geneval import spec_of

PROMPTS = 30  # rows


def picture_grid(folder: Path, results: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the grid: {"prompt", "tag", "wrong", "pictures": [{"url", "right"}, ...]}, most failures first.

    Every entrant's first picture of a prompt, judged as the scores were; None where there is none.
    """
    done = {told["name"]: told["seeds"][0]["seed"] for told in results["entrants"] if "failed" not in told}
    rows = []
    for place in sorted(next(folder / name for name in done).glob("*")):
        said = json.loads((place / "metadata.jsonl").read_text(encoding="utf-8"))
        files = [folder / name / place.name / "samples" / f"{seed:04d}.png" for name, seed in done.items()]
        rights = [_right(file, said) if file.is_file() else None for file in files]
        told = {"prompt": said["prompt"], "tag": said["tag"], "wrong": rights.count(False)}
        rows.append(told | {"files": files, "rights": rights})
    chosen = worst(rows)
    for row in chosen:
        pictures = zip(row.pop("files"), row.pop("rights"))
        row["pictures"] = [
            {"url": None if right is None else _url(file), "right": right} for file, right in pictures
        ]
    return chosen


def worst(rows: list[dict]) -> list[dict]:
    """The PROMPTS rows that are wrong most often; those that are as often are dealt to the tags in turn."""
    turns: Counter = Counter()
    keys = []
    for row in rows:
        keys.append((-row["wrong"], turns[row["wrong"], row["tag"]]))
        turns[row["wrong"], row["tag"]] += 1
    return [rows[k] for k in sorted(range(len(rows)), key=keys.__getitem__)][:PROMPTS]


def _right(file: Path, said: dict) -> bool:
    with Image.open(file) as picture:
        scene = read_scene(np.asarray(picture.convert("RGB")))
    return isinstance(scene, Scene) and follows(spec_of(said), scene)


def _url(file: Path) -> str:
    """The picture inside a page."""
    with Image.open(file) as picture:
        kept = io.BytesIO()
        picture.convert("RGB").save(kept, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(kept.getvalue()).decode()
