"""Adapter folders, in peft's own format.

    adapter_config.json  adapter_model.safetensors     what peft reads and writes
    base.json                                          which model it belongs to (see `Note`)

Only safetensors are read.
"""

from copy import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from unimodal.adapters.attached import NAME, adapter_tensors
from unimodal.adapters.base import Note, read_note
from unimodal.errors import UserError
from unimodal.model.unified import UnifiedModel
from unimodal.model.weights import narrowed
from unimodal.pretrained.checkpoint import read_json

PREFIX = "base_model.model."  # before every name in peft's files


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter as read from its folder; `tensors` by the names of the model's modules."""

    folder: Path
    config: LoraConfig
    tensors: dict[str, Tensor]
    note: Note


def save_adapter(folder: Path, model: UnifiedModel, note: Note, dtype: torch.dtype = torch.float32) -> None:
    """Write the adapter that is in `model`, and nothing of the model itself.

    note   of its base, whose `nearby` is a whole path or None
    Raises UserError for a number that `dtype` cannot hold.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = copy(model.peft_config[NAME])
    config.inference_mode = True
    config.save_pretrained(str(folder))
    tensors = adapter_tensors(model)
    flat = {f"{PREFIX}{name}": narrowed(t, dtype, name).contiguous() for name, t in tensors.items()}
    save_file(flat, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "base.json").write_text(note.beside(folder).model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_adapter(folder: str | Path) -> Adapter:
    """Read an adapter folder.  Raises UserError for a folder that is none, is damaged, or is not LoRA."""
    folder = Path(folder)
    note = read_note(folder)
    weights = folder / "adapter_model.safetensors"
    said = read_json(folder / "adapter_config.json")
    if said.get("peft_type") != "LORA":
        raise UserError(f"{folder} is a {said.get('peft_type')} adapter of peft; only LORA is known here.")
    try:
        config = LoraConfig.from_pretrained(str(folder))
        tensors = {name.removeprefix(PREFIX): t for name, t in load_file(weights).items()}
    except (OSError, SafetensorError, TypeError, KeyError, ValueError, AttributeError) as error:
        raise UserError(f"the adapter {folder} is damaged or not whole: {error}") from error
    if odd := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise UserError(
            f"{weights}: {odd[0]} holds what is no finite number ({len(odd)} such names). Take the adapter "
            "of an earlier checkpoint."
        )
    config.inference_mode = True
    return Adapter(folder, config, tensors, note)
