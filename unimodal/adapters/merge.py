"""Merging: a model that is by itself what base and adapter are together."""

from pathlib import Path

import torch
from safetensors import SafetensorError

from unimodal.adapters.attached import Attached
from unimodal.adapters.base import find_base, identity, refusal
from unimodal.adapters.folder import read_adapter
from unimodal.adapters.section import apply_settings
from unimodal.adapters.targets import positions, target_modules
from unimodal.errors import UserError
from unimodal.model.folder import find_model, load_model, save_model
from unimodal.model.unified import UnifiedModel
from unimodal.training.checkpoint import whole_folder

SHARED, IMAGE = ".experts.0.", ".experts.1."


def merge_adapter(
    model_folder: str | Path | None,
    adapter_folder: str | Path,
    out: str | Path,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Write a whole model folder with the adapter in its weights; gives `out`.

    model_folder  folder or name of the base; None: what the adapter says
    dtype         of the written weights.  A small change may be lost in half precision
    An adapter of one modality, on a base whose blocks serve both, gives a model with an expert for each
    (`experts: mot`): no single set of weights is both changed and unchanged.
    Raises UserError if the adapter is of another base, `out` is there already, the disk is full, or a number
    is more than `dtype` can hold.
    """
    out = Path(out)
    adapter = read_adapter(adapter_folder)
    if model_folder is None:
        folder = find_base(adapter.note, adapter.folder)
    elif identity(folder := find_model(str(model_folder))) != adapter.note.sha256:
        raise refusal(adapter.note, adapter.folder, folder)
    if out.exists():
        raise UserError(f"{out} is there already; give a folder that is not.")
    model, tokenizer = load_model(folder)
    apply_settings(model, adapter.note.settings)
    config, tensors, target = adapter.config, adapter.tensors, adapter.note.target
    if only := positions(model.config, target):
        model = with_experts(model)
        config.target_modules = target_modules(model, target)
        if only == "image":
            tensors = {name.replace(SHARED, IMAGE): tensor for name, tensor in tensors.items()}
    attached = Attached(model, config, target, str(adapter.folder))
    attached.fill(tensors, str(adapter.folder))
    try:
        attached.detach(merge=True)
    except ValueError as error:
        raise UserError(f"{adapter.folder} cannot be merged: weights would be no finite numbers.") from error
    try:
        with whole_folder(out) as partial:
            save_model(partial, model, tokenizer, dtype)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{out} could not be written ({error}); nothing of it is left.") from error
    return out


def with_experts(model: UnifiedModel) -> UnifiedModel:
    """The same model with its block weights once for text and once for images."""
    twice = UnifiedModel(model.config.model_copy(update={"experts": "mot"}), model.codec, model.tower)
    weights = model.state_dict()
    weights |= {name.replace(SHARED, IMAGE): w for name, w in weights.items() if SHARED in name}
    twice.load_state_dict(weights)
    return twice.train(model.training)
