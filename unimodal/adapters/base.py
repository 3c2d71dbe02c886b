"""Which model an adapter belongs to: its name, where it was, and a hash of its weights and tokens.

The hash goes over what the safetensors files hold (names, types, shapes, numbers), not over the files, so
that the same weights in other shards are the same base, and over which text each id stands for.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import tokenizers
import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from unimodal.adapters.section import Settings, Target
from unimodal.errors import UserError
from unimodal.model.config import Strict
from unimodal.model.folder import find_model


class Note(Strict):
    """What stands beside an adapter in `base.json`.

    base      the model's name, as the recipe gave it;  sha256  `identity` of its folder
    nearby    that folder, as seen from the adapter's; None for a shipped model and one of the hub.
              Until the note is written (`beside`) it is the whole path
    target    what the adapter changes;  settings  those it was trained with
    """

    base: str
    nearby: str | None = None
    sha256: str
    target: Target
    settings: Settings

    def beside(self, adapter: Path) -> "Note":
        """The note as it is written into an adapter's folder: both may move, if they move together."""
        path = self.nearby and os.path.relpath(self.nearby, adapter.resolve())
        return self.model_copy(update={"nearby": path})


def hashed(tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    """SHA-256 of tensors on the CPU, with their names, types and shapes, in the order in which they come."""
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def fingerprint(folder: Path) -> str:
    """SHA-256 of all weights of a model folder, its codec's included, one tensor in memory at a time."""
    return hashed(_weights(folder))


def identity(folder: Path) -> str:
    """SHA-256 of all that an adapter of a model folder relies on: its weights, and the token of each id.

    How a tokenizer splits a text is not part of it: another way gives other ids, but none another meaning.
    Raises UserError if the folder's weights or its tokenizer.json cannot be read.
    """
    file = folder / "tokenizer.json"
    try:
        tokens = tokenizers.Tokenizer.from_file(str(file)).get_vocab(with_added_tokens=True)
    except Exception as error:  # tokenizers raises bare Exception
        raise UserError(f"{file} is no tokenizer that `tokenizers` reads: {error}") from error
    said = json.dumps(sorted(tokens.items(), key=lambda item: item[1]))
    return hashlib.sha256(f"{fingerprint(folder)}\n{said}".encode()).hexdigest()


def _weights(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of a model folder.  Raises UserError if one cannot be read, or none is the model's own."""
    parts = [folder, *sorted(sub for sub in folder.iterdir() if sub.is_dir() and not is_adapter(sub))]
    found = False
    for part in parts:
        with ExitStack() as stack:
            files = sorted(part.glob("*.safetensors"))
            try:
                readers = [stack.enter_context(safe_open(file, "pt")) for file in files]
                reader_of = {name: reader for reader in readers for name in reader.keys()}  # noqa: SIM118
                where = part.name if part != folder else ""
                for name in sorted(reader_of):
                    yield f"{where}/{name}", reader_of[name].get_tensor(name)
            except (OSError, SafetensorError) as error:
                raise UserError(f"the weights in {part} cannot be read: {error}") from error
            found |= part == folder and bool(files)
    if not found:
        raise UserError(f"{folder} has no safetensors file: expected the folder of a model.")


def is_adapter(folder: str | Path) -> bool:
    """Whether a folder holds an adapter rather than a model."""
    folder = Path(folder)
    return (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file()


def read_note(folder: Path) -> Note:
    """The note beside an adapter; UserError if there is none or it cannot be understood."""
    file = folder / "base.json"
    if not (folder / "adapter_config.json").is_file():
        lacks = "it has no adapter_config.json" if folder.is_dir() else "there is no such folder"
        raise UserError(
            f"{folder} is not an adapter: {lacks}. Give one that `unimodal train` wrote from a recipe with "
            "model.lora."
        )
    if not file.is_file():
        raise UserError(
            f"{folder} has no base.json, so nothing says which model's weights it changes. Give an adapter "
            "folder as `unimodal train` wrote it."
        )
    try:
        return Note.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise UserError(f"{file} cannot be understood: {error}") from error


def find_base(note: Note, adapter: Path) -> Path:
    """The folder of an adapter's base; UserError if it is not to be found, or is another model now."""
    there = [adapter / note.nearby] if note.nearby else []
    # What was a folder is not asked of the hub, where another model may have its name.
    named, lost = Path(note.base), "is not here any more"
    if not note.nearby:
        try:
            named = find_model(note.base)
        except UserError as error:
            lost = f"is not to be found: {str(error).removesuffix('.')}"
    folders = [folder for folder in (*there, named) if (folder / "config.json").is_file()]
    for folder in folders:
        if identity(folder) == note.sha256:
            return folder
    if folders:
        raise refusal(note, adapter, folders[0])
    raise UserError(
        f"the adapter {adapter} belongs to the model {note.base}, which {lost}. Name the model as well, "
        "wherever it is now."
    )


def refusal(note: Note, adapter: Path, folder: str | Path) -> UserError:
    """The sentence for an adapter on another base."""
    return UserError(
        f"the adapter {adapter} was trained on {note.base} (hash {note.sha256[:12]}), but {folder} has "
        "other weights or other tokens. Load it on the model it was trained on, or train one for this model."
    )
