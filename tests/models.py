"""Tiny models for tests: width 32, two layers, raw pixel patches as codec, so seconds each."""

import numpy as np
import torch
from PIL import Image

from tests.documents import picture, tokenizer
from unimodal.generation.verbs import Unimodal
from unimodal.images.codec import Codec, PixelPatches
from unimodal.model.config import DropTable, ModelConfig, Sampling
from unimodal.model.unified import UnifiedModel

# The sizes of a tiny model as a recipe gives them.
SIZES = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
}


def tiny_config(**changes) -> ModelConfig:
    """A configuration of a few thousand parameters."""
    fields = dict(
        vocab_size=len(tokenizer()),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        image_size=8,
        rope_theta=100.0,
        sampling=Sampling(steps=3, guidance=2.0, image_guidance=1.5),
        drop=DropTable(text=0.2, image=0.1, both=0.1),
    )
    return ModelConfig(**fields | changes)


def tiny_model(seed: int = 0, codec: Codec | None = None, **changes) -> UnifiedModel:
    """A random model whose every weight matters: the zero-initialised head is made random too."""
    torch.manual_seed(seed)
    model = UnifiedModel(tiny_config(**changes), PixelPatches(4) if codec is None else codec)
    for name, weight in model.named_parameters():
        if name.startswith("codec."):
            continue
        if weight.dim() == 1 or "head" in name:
            torch.nn.init.normal_(weight, mean=1.0 if "norm" in name else 0.0, std=0.2)
        else:
            torch.nn.init.normal_(weight, std=0.15)
    return model.eval()


def edits_of_two_sizes(model: Unimodal, prompts: list[str]) -> tuple[list, list, list]:
    """Pictures of different sizes, what becomes of them in one batch, and what of each alone."""
    rng = np.random.default_rng(0)
    images = [Image.fromarray(picture(rng, *size)) for size in ((16, 16), (8, 16), (16, 16))]
    together = model.edit(images, prompts, seed=1, size=16)
    alone = [model.edit(image, prompt, seed=1, size=16)[0] for image, prompt in zip(images, prompts)]
    return images, together, alone


def assert_alike(some: list, others: list) -> None:
    """Two lists of pictures are equal, in size and to a level of rounding."""
    for one, other in zip(some, others, strict=True):
        assert one.size == other.size
        assert np.abs(np.asarray(one).astype(int) - np.asarray(other)).max() <= 1


def tiny(seed: int = 0, **changes) -> Unimodal:
    """A loaded tiny model."""
    return Unimodal(tiny_model(seed, **changes), tokenizer(), "tiny")
