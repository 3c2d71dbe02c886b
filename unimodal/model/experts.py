"""Experts of a model: how a second one begins, and which parts of a model are left as they are.

A mixture of transformers begins with an image expert that is a copy of the text expert (BAGEL, Deng et al.
2025), so that it is at first the model it was made of.  With the text expert and the embeddings frozen, a
language model keeps its words to the bit while images are learned beside it (LMFusion, Shi et al. 2024).
"""

import re
from collections.abc import Sequence
from typing import Literal

import torch

from unimodal.errors import UserError
from unimodal.model.unified import UnifiedModel

Part = Literal["text_expert", "image_expert", "embeddings", "path"]

# What belongs to each part, by the beginning of its name.
PARTS: dict[Part, str] = {
    "text_expert": r"decoder\.(layers\.\d+\.experts\.0|norm)\.",  # the last norm is everyone's
    "image_expert": r"decoder\.layers\.\d+\.experts\.1\.",
    "embeddings": r"(embed_tokens|lm_head)\.",
    "path": r"(path|places|reference)\.",
}


@torch.no_grad()
def copy_text_expert(model: UnifiedModel) -> None:
    """Give every block's image expert the weights of its text expert."""
    for block in model.decoder.layers:
        text, image = block.experts
        image.load_state_dict(text.state_dict())


@torch.no_grad()
def with_image_expert(model: UnifiedModel) -> UnifiedModel:
    """The same model with `experts: mot`: both experts of a block are what its one was."""
    config = model.config.model_copy(update={"experts": "mot"})
    split = UnifiedModel(config, model.codec, model.tower).train(model.training)
    weights = model.state_dict()
    image = {n.replace(".experts.0.", ".experts.1."): w for n, w in weights.items() if ".experts.0." in n}
    split.load_state_dict(weights | image)
    return split


def freeze(model: UnifiedModel, parts: Sequence[Part]) -> None:
    """Train nothing of these parts.  Raises UserError if the model has no such part to tell apart."""
    if model.config.experts != "mot" and {"text_expert", "image_expert"} & set(parts):
        raise UserError(
            f"model.freeze names {', '.join(parts)}, but model.experts is {model.config.experts}: one set of "
            "block weights serves text and images. Set model.experts=mot, which gives images their own."
        )
    for name, weight in model.named_parameters():
        if any(re.match(PARTS[part], name) for part in parts):
            weight.requires_grad_(False)
