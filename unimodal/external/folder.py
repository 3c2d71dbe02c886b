"""Saved external models: a folder that holds what was trained, and names the reader.

    config.json  model.safetensors (connector and denoiser)  codec/

The reader was not changed, so it is not saved again: the folder says its name, where it was, and a hash of
all that it reads by, its weights as well as its tokenizer, and a reader that is another now is refused.
"""

import hashlib
import os
from contextlib import suppress
from pathlib import Path

import torch

from unimodal.adapters.base import fingerprint
from unimodal.errors import UserError
from unimodal.external.config import ExternalConfig, ReaderNote
from unimodal.external.model import ExternalModel
from unimodal.images.folder import load_codec
from unimodal.model.folder import find_model
from unimodal.model.weights import Weights, fill, narrowed, unwritten
from unimodal.pretrained.checkpoint import find_checkpoint
from unimodal.readers import open_reader
from unimodal.readers.tokens import tokens_fingerprint

FINDERS = {"unimodal": find_model, "transformers": find_checkpoint, "tokens": find_model}
# What a reader reads by beside its weights: shape, tokenizer, chat template, and what prepares pictures.
READ_BY = (
    "config.json",
    "*token*.json",
    "vocab*",
    "merges.txt",
    "*.model",
    "chat_template*",
    "*processor*.json",
)


def reader_fingerprint(folder: Path) -> str:
    """SHA-256 of all that hidden states depend on: the weights of a folder, and the files of READ_BY."""
    digest = hashlib.sha256(fingerprint(folder).encode())
    files = {file for name in READ_BY for at in (name, f"*/{name}") for file in folder.glob(at)}
    for file in sorted(file for file in files if file.is_file()):
        content = file.read_bytes()
        digest.update(f"\n{file.relative_to(folder).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()


FINGERPRINTS = {
    "unimodal": reader_fingerprint,
    "transformers": reader_fingerprint,
    "tokens": tokens_fingerprint,
}


def noted(kind: str, name: str) -> tuple[ReaderNote, Path]:
    """A reader's note, `nearby` being the whole path, and its folder.  Raises UserError if it is gone."""
    folder = Path(FINDERS[kind](name))
    nearby = str(folder.resolve()) if Path(name).is_dir() else None
    return ReaderNote(kind=kind, name=name, nearby=nearby, sha256=FINGERPRINTS[kind](folder)), folder


def find_reader(note: ReaderNote, model: Path) -> Path:
    """The folder of a saved model's reader; UserError if it is not to be found, or is another now."""
    places = [model / note.nearby] if note.nearby else []
    # What was a folder is not asked of the hub, where another model may have its name.
    with suppress(UserError):  # told below, with the model's name
        places.append(Path(note.name) if note.nearby else Path(FINDERS[note.kind](note.name)))
    needed = "tokenizer.json" if note.kind == "tokens" else "config.json"
    there = [place for place in places if (place / needed).is_file()]
    for place in there:
        if FINGERPRINTS[note.kind](place) == note.sha256:
            return place
    if there:
        raise UserError(
            f"{model} was trained with the reader {note.name} (hash {note.sha256[:12]}), but {there[0]} has "
            "other weights, or reads by another tokenizer, template or processor. Bring the old ones back, "
            "or train a connector for these."
        )
    raise UserError(
        f"{model} needs its reader {note.name}, which is not here: expected it at "
        f"{' or '.join(map(str, places)) or note.name}."
    )


def save_external(folder: Path, model: ExternalModel, dtype: torch.dtype = torch.float32) -> None:
    """Write a model folder; weights are stored as `dtype` and read back as float32.

    Raises UserError for a number that `dtype` cannot hold.
    """
    from huggingface_hub import save_torch_state_dict

    folder.mkdir(parents=True, exist_ok=True)
    note = model.config.reader
    nearby = note.nearby and os.path.relpath(note.nearby, folder.resolve())
    config = model.config.model_copy(update={"reader": note.model_copy(update={"nearby": nearby})})
    config.save(folder)
    model.codec.save(folder / "codec")
    weights = {
        name: narrowed(value, dtype, name)
        for name, value in model.state_dict().items()
        if name.startswith(("connector.", "denoiser."))
    }
    save_torch_state_dict(weights, folder)


def load_external(folder: Path, device: torch.device | str = "cpu") -> ExternalModel:
    """Read what `save_external` wrote, and its reader, ready for inference.

    Raises UserError if the folder is no external model, misses a part, or its reader is another now.
    """
    config = ExternalConfig.load(folder)
    reader_folder = find_reader(config.reader, folder)
    if config.reader.nearby:
        note = config.reader.model_copy(update={"nearby": str(reader_folder.resolve())})
        config = config.model_copy(update={"reader": note})
    reader, codec = open_reader(config.reader.kind)(reader_folder), load_codec(folder / "codec")
    with unwritten():
        model = ExternalModel(config, reader, codec)
    reader, codec = model.reader, model.codec
    model.reader = model.codec = None  # their weights are in their own folders
    fill(model, Weights(folder), "cpu", torch.float32)
    model.reader, model.codec = reader, codec
    return model.to(device).eval()
