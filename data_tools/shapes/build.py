"""The shapes world written to disk: one JSONL file a split and a folder of PNG pictures beside it.

The rows are those of `live`, so the same seed gives the same rows; a file is what other trainers read.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from PIL import Image
from rich.progress import track

from data_tools.shapes.live import shapes_source
from data_tools.shapes.render import CANVAS
from unimodal.errors import UserError

SPLITS = ("train", "val", "unseen")
SHARE = 10  # val and unseen get one row for so many of train


def make_shapes(
    out: Path,
    count: int,
    seed: int = 0,
    splits: tuple[str, ...] = SPLITS,
    tasks: dict[str, float] | None = None,
    size: int = CANVAS,
) -> dict[str, int]:
    """Write `count` rows of train and a tenth as many of every other split; gives the number of each.

    out/train.jsonl ... and out/images/train/00000012-0.png ..., paths relative to `out`.
    Raises UserError if `out` is a file or a folder that holds something, or if count is below 1.
    """
    if count < 1:
        raise UserError(f"shapes: count {count}; expected at least 1 row")
    sources = {split: shapes_source(split, seed, tasks, size) for split in splits}
    counts = {split: count if split == "train" else -(-count // SHARE) for split in splits}
    out = empty_folder(out)
    for split, source in sources.items():
        write_rows(out, split, (source.row(i)[1] for i in range(counts[split])), counts[split])
    return counts


def empty_folder(out: Path) -> Path:
    """The folder, made if missing; UserError if there is anything in it already."""
    out = Path(out)
    if out.is_file():
        raise UserError(f"{out}: is a file; expected a folder to write rows into")
    if out.is_dir() and any(out.iterdir()):
        raise UserError(
            f"{out}: folder is not empty; expected a new or an empty one, so that nothing is overwritten"
        )
    out.mkdir(parents=True, exist_ok=True)
    return out


def write_rows(
    out: Path,
    name: str,
    rows: Iterable[dict[str, Any]],
    count: int,
    progress: Callable[..., Iterable[Any]] = track,
) -> None:
    """Write rows with live pictures as out/NAME.jsonl with out/images/NAME/*.png."""
    folder = out / "images" / name
    folder.mkdir(parents=True, exist_ok=True)
    with (out / f"{name}.jsonl").open("w", encoding="utf-8") as file:
        for i, row in enumerate(progress(rows, total=count, description=name)):
            paths = []
            for k, pixels in enumerate(row.get("images", ())):
                path = folder / f"{i:08d}-{k}.png"
                Image.fromarray(pixels).save(path)
                paths.append(path.relative_to(out).as_posix())
            written = {**row, "images": paths} if paths else row
            file.write(json.dumps(written, ensure_ascii=False) + "\n")
