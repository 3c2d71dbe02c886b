"""JSON files of a comparison: whole, or not there, since what is there is never done again."""

import json
import os
from pathlib import Path
from typing import Any


def read(path: Path) -> dict[str, Any]:
    """What `keep` wrote."""
    return json.loads(path.read_text(encoding="utf-8"))


def keep(path: Path, value: dict[str, Any]) -> None:
    """Put a whole file in place, or none."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)
