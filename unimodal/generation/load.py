"""Loading a model by name: its folder says of which kind it is, the caller which adapters it gets."""

from pathlib import Path
from pkgutil import resolve_name

import torch

from unimodal.adapters.base import find_base, is_adapter, read_note
from unimodal.adapters.shelf import Adapters, named
from unimodal.errors import UserError
from unimodal.generation.verbs import Unimodal
from unimodal.model.folder import find_model, load_model, model_type

# model_type of config.json -> what opens such a folder, given a name and a device; imported when needed.
OTHERS = {"external": "unimodal.external.verbs:open_external"}


def load(
    name: str | Path | None = None,
    device: str | None = None,
    adapter: Adapters = None,
    dtype: str | torch.dtype | None = None,
) -> Unimodal:
    """Load a model: a shipped name, a folder that `unimodal train` wrote, or a hub id.

    name     None takes the model that the adapter belongs to; an adapter's folder means both
    device   None takes CUDA where there is one, else the CPU
    adapter  one or more adapter folders, each FOLDER or NAME=FOLDER, or folders by name; the first is used
    dtype    of the decoder's weights: float32, bfloat16, float16; None takes float32
    Raises UserError if there is no such model or device, its files are damaged, or an adapter is of another
    model.
    """
    adapters = named(adapter)
    if name is not None and is_adapter(name):
        adapters, name = named(name) | adapters, None
    if name is not None:
        folder = find_model(str(name))
    elif adapters:
        first = next(iter(adapters.values()))
        note = read_note(first)
        folder, name = find_base(note, first), note.base
    else:
        raise UserError("name a model to load, or an adapter, which knows its model")
    if device or dtype:
        from unimodal.pretrained.choices import device_of, dtype_of  # a chat as it is need not wait for them

        device = device and str(device_of(device))
        dtype = dtype_of(dtype) if isinstance(dtype, str) else dtype
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if (kind := model_type(folder)) in OTHERS:
        if adapters:
            raise UserError(f"{folder} is an {kind} model, which takes no adapters; load it without.")
        if dtype not in (None, torch.float32):
            raise UserError(f"{folder} is an {kind} model, which computes in float32; load it without dtype.")
        return resolve_name(OTHERS[kind])(folder, str(name), device)
    model, tokenizer = load_model(folder, device, dtype or torch.float32)
    loaded = Unimodal(model, tokenizer, str(name), folder)
    for called, path in adapters.items():
        loaded.add_adapter({called: path})
    loaded.set_adapter(next(iter(adapters), None))
    return loaded
