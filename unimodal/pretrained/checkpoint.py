"""Where a language model's files are: a folder, or a download from the Hugging Face hub.

Only JSON, templates and safetensors are fetched or read; nothing is unpickled and no code in it runs.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unimodal.errors import UserError
from unimodal.hub import fetch

# Of a repository that holds the same weights several times over, only these.
PATTERNS = ["*config.json", "tokenizer*", "special_tokens_map.json", "chat_template*", "model*.safetensors*"]


def find_checkpoint(
    name: str | Path, what: str = "language model", patterns: Sequence[str] = tuple(PATTERNS)
) -> Path:
    """Folder of a checkpoint, fetched first if `name` is a hub id (owner/name).

    what      the part that it is to be, for messages
    patterns  files that are fetched
    Raises UserError if it is neither.
    """
    path, text = Path(name), str(name)
    if path.is_dir():
        return path
    if path.exists():
        raise UserError(f"{path} is a file; expected the folder of a checkpoint, with its config.json.")
    if (fetched := fetch(text, what, patterns)) is not None:
        return fetched
    raise UserError(
        f"there is no {what} {text!r}: expected the folder of a checkpoint in transformers' format, "
        "or a hub id such as owner/name."
    )


def read_json(file: Path, missing: str | None = None) -> dict[str, Any]:
    """A JSON object.  Raises UserError if it is none; a missing file is {} unless `missing` complains."""
    if not file.is_file():
        if missing is None:
            return {}
        raise UserError(f"{file.parent} has no {file.name}: {missing}")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read as JSON: {error}") from error
    if not isinstance(found, dict):
        raise UserError(f"{file}: expected a JSON object, found {type(found).__name__}.")
    return found


def check_free(out: Path) -> None:
    """Raise UserError if a folder cannot be written without replacing something."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already; name another folder, or remove it first.")
    parent = next(p for p in out.absolute().parents if p.exists())
    if not os.access(parent, os.W_OK):
        raise UserError(f"{out} cannot be made: {parent} is not writable.")
