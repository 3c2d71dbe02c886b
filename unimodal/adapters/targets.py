"""Which layers an adapter changes, as peft's `LoraConfig`.

With `experts: mot` each modality has block weights of its own.  With shared experts the two are told apart
by position: a change for text is computed at text positions alone (see `unimodal.adapters.positions`).
"""

import re
from collections.abc import Sequence
from typing import Literal

from peft import LoraConfig
from torch import nn

from unimodal.adapters.section import LoraSection, Target
from unimodal.errors import UserError, nearest
from unimodal.model.config import ModelConfig
from unimodal.model.unified import UnifiedModel

Positions = Literal["text", "image"]

EXPERTS = {"text": "0", "image": "1", "both": "[01]"}
VISION = "vision_in"  # a vision tower's projection
IMAGE_ONLY = ("path", "places", "reference")  # modules that compute nothing but images


def positions(config: ModelConfig, target: Target) -> Positions | None:
    """The positions at which block weights are changed; None where the weights say it themselves."""
    return None if config.experts == "mot" or target == "both" else target


def target_modules(model: UnifiedModel, target: Target) -> str:
    """The linear layers of a target as a regular expression over whole module names, as peft takes it."""
    expert = EXPERTS[target] if model.config.experts == "mot" else "0"
    patterns = [rf"decoder\.layers\.\d+\.experts\.{expert}\.(self_attn|mlp)\.\w+_proj"]
    if target != "text":
        patterns += [
            re.escape(f"{root}.{name}")
            for root in IMAGE_ONLY
            if getattr(model, root) is not None
            for name, layer in model.get_submodule(root).named_modules()
            if isinstance(layer, nn.Linear)
        ]
    return "|".join(patterns)


def lora_config(
    model: UnifiedModel, section: LoraSection, base: str, new_ids: Sequence[int] = ()
) -> LoraConfig:
    """peft's configuration of a new adapter for `model`, whose name is `base`.

    new_ids  tokens whose rows of the embedding and the head are trained too, if the section says so
    A vision tower's projection is trained in full: nothing tells whether it ever was since `init` made it.
    Raises UserError if `modules_to_save` names something that cannot be.
    """
    whole = list(section.modules_to_save)
    if model.vision_in is not None and not any(name.split(".")[0] == VISION for name in whole):
        whole.append(VISION)
    for name in whole:
        _check_whole(model, name)
    return LoraConfig(
        r=section.rank,
        lora_alpha=section.alpha,
        lora_dropout=section.dropout,
        use_dora=section.use_dora,
        target_modules=target_modules(model, section.target),
        modules_to_save=whole or None,
        trainable_token_indices=_rows(model, section, new_ids) or None,
        base_model_name_or_path=base,
    )


def _rows(model: UnifiedModel, section: LoraSection, new_ids: Sequence[int]) -> dict[str, list[int]]:
    """Rows to train, by the table; a head that is tied to the embedding has the embedding's."""
    if not (section.new_tokens and new_ids):
        return {}
    tables = ["embed_tokens"] if model.lm_head is None else ["embed_tokens", "lm_head"]
    return {table: list(new_ids) for table in tables if table not in section.modules_to_save}


def _check_whole(model: UnifiedModel, name: str) -> None:
    """Refuse a module that cannot be trained in full beside an adapter."""
    names = [key for key, layer in model.named_modules() if any(True for _ in layer.parameters())]
    free = [key for key in names if key and not key.startswith(("codec", "tower", "decoder.layers"))]
    if name == "decoder" or (name in names and name not in free):
        raise UserError(
            f"model.lora.modules_to_save: {name!r} holds block weights, the codec or the tower, which an "
            "adapter leaves as they are. Name an embedding, a head or a layer of the image path, or leave "
            "model.lora out."
        )
    # peft goes by how a name ends, so one that ends like another module's would take that along.
    found = [key for key in names if key.endswith(name)]
    if found != [name]:
        told = (
            f"would take {', '.join(found)} along" if name in names else f"is no module{nearest(name, free)}"
        )
        raise UserError(
            f"model.lora.modules_to_save: {name!r} {told}; expected names such as embed_tokens, path or "
            "path.head (and lm_head, in a model whose head is not tied to its embeddings)."
        )
