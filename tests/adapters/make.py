"""Adapters for tests: random ones in tiny models, in folders, and what they should do, worked out by hand."""

from pathlib import Path

import numpy as np
import torch

from tests.documents import random_document, tokenizer
from tests.models import tiny_config, tiny_model
from unimodal.adapters.attached import Attached, adapter_tensors
from unimodal.adapters.base import Note, identity
from unimodal.adapters.folder import save_adapter
from unimodal.adapters.section import LoraSection, Settings
from unimodal.adapters.targets import lora_config
from unimodal.images.codec import PixelPatches
from unimodal.model.folder import save_model
from unimodal.model.unified import UnifiedModel
from unimodal.sequence.layout import layout
from unimodal.sequence.pack import Pack, pack_sequences


def attach(model: UnifiedModel, seed: int = 0, **section) -> Attached:
    """An adapter whose every number is random, so that all of it matters; of some tokens' rows if asked."""
    new_ids = section.pop("new_ids", ())
    section = LoraSection(**{"rank": 3, "alpha": 6} | section)
    attached = Attached(model, lora_config(model, section, "base", new_ids), section.target)
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in adapter_tensors(model).items():
        near = tensor if "lora" not in name or "magnitude" in name else torch.zeros(())
        with torch.no_grad():
            tensor.copy_(near + 0.2 * torch.randn(tensor.shape, generator=generator))
    return attached


def base_folder(folder: Path, seed: int = 0, **changes) -> Path:
    """A tiny model's folder."""
    save_model(folder, tiny_model(seed, **changes), tokenizer())
    return folder


def adapter_folder(folder: Path, base: Path, seed: int = 0, model_seed: int = 0, **options) -> Path:
    """A random adapter's folder for the tiny model in `base`, whose seed is `model_seed`."""
    shape = {key: options.pop(key) for key in ("experts", "tie_word_embeddings") if key in options}
    model = tiny_model(model_seed, **shape)
    settings = options.pop("settings", Settings.of(model.config))
    attach(model, seed, **options)
    note = Note(
        base=str(base),
        nearby=str(base.resolve()),
        sha256=identity(base),
        target=options.get("target", "both"),
        settings=settings,
    )
    save_adapter(folder, model, note)
    return folder


def pack(model: UnifiedModel, documents=None) -> Pack:
    """Random documents of all kinds, laid out for a model."""
    documents = documents or [random_document(np.random.default_rng(seed)) for seed in range(5)]
    return pack_sequences([layout(d, tokenizer(), model.path, model.multiple) for d in documents])


def losses(model: UnifiedModel, of: Pack) -> torch.Tensor:
    """Summed text loss, and the loss of every drawn image."""
    out = model(of, torch.Generator().manual_seed(0))
    return torch.cat([out.text[None], out.image_each])


def by_hand(weights: dict[str, torch.Tensor], tensors: dict[str, torch.Tensor], scale: float, target: str):
    """A model with an expert for each modality, into whose weights an adapter was worked by its definition.

    weights  the base's, with shared experts or not;  tensors  the adapter's, by peft's names
    """
    shared = not any(".experts.1." in name for name in weights)
    weights = {name: w.clone() for name, w in weights.items()}
    if shared:
        weights |= {n.replace("experts.0", "experts.1"): w for n, w in weights.items() if "experts.0" in n}
    for name, a in tensors.items():
        if name.endswith("lora_A.weight"):
            layer = name.removesuffix(".lora_A.weight")
            change = scale * tensors[f"{layer}.lora_B.weight"] @ a
            length = tensors.get(f"{layer}.lora_magnitude_vector")
            experts = {"text": "0", "image": "1", "both": "01"}[target] if shared else "?"
            for expert in experts if ".experts." in layer else "?":
                one = layer.replace("experts.0", f"experts.{expert}") if expert != "?" else layer
                new = weights[f"{one}.weight"] + change
                if length is not None:
                    new = new * (length / new.norm(dim=1))[:, None]
                weights[f"{one}.weight"] = new
        elif "lora" not in name:
            weights[name] = a.clone()
    model = UnifiedModel(tiny_config(experts="mot"), PixelPatches(4))
    model.load_state_dict(weights)
    return model.eval()
