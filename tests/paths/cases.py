"""What the gauntlet takes every path through: a path, the codec under it, and settings.  One line a case."""

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch

from tests.images.networks import DC, KL, VQ, pictures
from tests.models import tiny_model
from unimodal.images.codec import Codec, DiffusersCodec, PixelPatches
from unimodal.images.discrete import DiscreteCodec
from unimodal.model.experts import Part, copy_text_expert, freeze
from unimodal.model.unified import UnifiedModel
from unimodal.paths import PATHS

# Codecs of stride 4, as the tiny model's.
QUANTIZERS = {
    "vq": {"kind": "vq", "codes": 12},
    "vq, cosine": {"kind": "vq", "codes": 12, "cosine": True},
    "fsq": {"kind": "fsq", "levels": [3, 3, 3]},
    "lfq": {"kind": "lfq", "bits": 4},
    "residual": {"kind": "residual", "codes": 8, "depth": 2},
    "grouped": {"kind": "grouped", "codes": 8, "groups": 2},
    "multi_scale": {"kind": "multi_scale", "codes": 8, "scales": [1, 2]},
    "multi_scale twice": {"kind": "multi_scale", "codes": 8, "scales": [1, 2, 2]},
}
HALF = DC | {name: value[:2] for name, value in DC.items() if isinstance(value, tuple)}  # stride 2
FOLDED = {"in_channels": 12, "out_channels": 12}  # 2 x 2 pixels at once
NETWORKS = {
    "a variational network": lambda: DiffusersCodec({"_class_name": "AutoencoderKL"} | KL | FOLDED, fold=2),
    "a network": lambda: DiffusersCodec({"_class_name": "AutoencoderDC"} | DC),
    "pixels of two": lambda: PixelPatches(2),
    "VQModel": lambda: DiscreteCodec({"_class_name": "VQModel"} | VQ | FOLDED, None, fold=2),
    "residual, joined cells": lambda: DiscreteCodec(
        {"_class_name": "AutoencoderDC"} | HALF, QUANTIZERS["residual"], patch=2
    ),
    "multi_scale, joined cells": lambda: DiscreteCodec(
        {"_class_name": "AutoencoderDC"} | HALF, QUANTIZERS["multi_scale"], patch=2
    ),
}
MASKED_TEXT = {"text_objective": "masked", "masked_text": {"block": 4, "forwards": 2}}
MLP_HEAD = {"head_width": 48, "head_depth": 2, "noises": 2}


@cache
@torch.inference_mode(False)
def codec_of(name: str) -> Codec:
    """Raw pixel patches, or a random network around a quantizer that has seen a few pictures.

    Kept for all tests, so its tensors are such as may be trained, whoever asks for it first.
    """
    if name == "pixels":
        return PixelPatches(4)
    torch.manual_seed(0)
    if name in NETWORKS:
        codec = NETWORKS[name]()
    else:
        codec = DiscreteCodec({"_class_name": "AutoencoderDC"} | DC, QUANTIZERS[name])
    with torch.no_grad():
        if codec.discrete and codec.settings:
            for seed in range(3):
                codec.quantizer(codec.unquantized(pictures(8, seed=seed)))
        codec.measure([pictures(8, seed=9)])
    return codec.eval().requires_grad_(False)


@dataclass(frozen=True)
class Case:
    """A path on a codec.

    config  changes to the tiny configuration
    steps   AdamW steps in which it learns a few documents by heart, at `rate`
    to      share of the first loss that is left then (of text a twentieth, if `to` is less); what chance
            leaves open is no mistake of the path's
    copied  whether the image expert begins as a copy of the text expert
    frozen  parts that are not trained; with the text expert among them words are not learned
    """

    path: str
    codec: str
    config: dict[str, Any] = field(default_factory=dict, hash=False)
    steps: int = 100
    rate: float = 3e-3
    to: float = 0.05
    copied: bool = False
    frozen: tuple[Part, ...] = ()

    def model(self, seed: int = 0, **changes: Any) -> UnifiedModel:
        """A tiny random model of this case."""
        model = tiny_model(seed, codec_of(self.codec), path=self.path, **self.config | changes)
        if self.copied:
            copy_text_expert(model)
        freeze(model, self.frozen)
        return model


CASES = {
    "flow on pixels": Case("flow", "pixels", steps=200),
    "flow on codes": Case("flow", "vq", steps=200),
    "flow on a variational network": Case("flow", "a variational network", steps=200),
    "flow on joined cells": Case("flow", "pixels of two", {"patch_size": 2}, steps=200),
    "flow, experts": Case("flow", "pixels", {"experts": "mot"}, steps=200),
    "flow, image expert copied": Case("flow", "pixels", {"experts": "mot"}, copied=True, steps=200),
    "flow, text frozen": Case(
        "flow", "pixels", {"experts": "mot"}, copied=True, frozen=("text_expert", "embeddings"), steps=200
    ),
    "flow to the picture": Case("flow", "pixels", {"path_options": {"prediction": "x0"}}, steps=200),
    "flow, shown the picture before": Case("flow", "pixels", {"reference": "cells"}, steps=200),
    "flow, deeper head": Case("flow", "vq", {"path_options": {"head_depth": 2}}, steps=200),
    "next_token on codes": Case("next_token", "vq"),
    "next_token on the directions of codes": Case("next_token", "vq, cosine"),
    "next_token on bits": Case("next_token", "lfq"),
    "next_token on groups": Case("next_token", "grouped"),
    "next_token on levels": Case("next_token", "fsq"),
    "next_token on residuals, strayed": Case(
        "next_token",
        "residual",
        {"path_options": {"flips": 0.2, "depth_weighting": "spread"}, "times": {"copies": 2}},
        to=0.4,
    ),
    "next_token on scales, experts": Case("next_token", "multi_scale", {"experts": "mot"}),
    "next_token, shown the picture before": Case("next_token", "residual", {"reference": "cells"}),
    "next_scale": Case("next_scale", "multi_scale"),
    "next_scale, shown the picture before": Case("next_scale", "multi_scale", {"reference": "cells"}),
    "next_scale, the finest twice": Case("next_scale", "multi_scale twice"),
    "next_scale on joined cells": Case("next_scale", "multi_scale, joined cells"),
    "next_scale, masked text": Case("next_scale", "multi_scale", MASKED_TEXT),
    "next_scale, strayed codes": Case("next_scale", "multi_scale", {"path_options": {"flips": 0.2}}, to=0.4),
    "next_scale, experts": Case("next_scale", "multi_scale", {"experts": "mot"}),
    "masked on codes": Case(
        "masked", "vq", {"path_options": {"schedule": "arccos", "order": "random", "temperature": 3.0}}
    ),
    "masked on levels, by confidence": Case(
        "masked",
        "fsq",
        {"path_options": {"order": "confidence", "weighting": "inverse_ratio", "temperature": 3.0}},
    ),
    "masked on a network's own codes": Case("masked", "VQModel"),
    "masked on bits": Case("masked", "lfq"),
    "masked on groups": Case("masked", "grouped"),
    "masked on residuals of joined cells": Case("masked", "residual, joined cells"),
    "masked on residuals, experts": Case(
        "masked", "residual", {"experts": "mot", "path_options": {"guidance_ramp": True}}
    ),
    "masked on scales": Case("masked", "multi_scale"),
    "masked on scales, shown the picture before": Case("masked", "multi_scale", {"reference": "cells"}),
    "masked, several masks": Case("masked", "vq", {"times": {"copies": 2}}),
    "masked, text as well": Case("masked", "vq", MASKED_TEXT),
    "flow, masked text, experts": Case("flow", "pixels", MASKED_TEXT | {"experts": "mot"}, steps=200),
    "next_token, masked text": Case("next_token", "vq", MASKED_TEXT),
    "per_token on pixels": Case("per_token", "pixels", {"path_options": MLP_HEAD}, steps=200),
    "per_token on a network": Case("per_token", "a network", {"path_options": MLP_HEAD}, steps=200),
    "per_token on joined cells": Case(
        "per_token", "pixels of two", {"patch_size": 2, "path_options": MLP_HEAD}, steps=200
    ),
    "per_token on codes, experts": Case(
        "per_token",
        "vq",
        {"experts": "mot", "path_options": MLP_HEAD | {"mask_min": 0.0, "mask_std": 1.0}},
        steps=200,
    ),
    "per_token, shown the picture before": Case(
        "per_token", "pixels", {"path_options": MLP_HEAD, "reference": "cells"}, steps=200
    ),
    "per_token, several masks": Case(
        "per_token", "pixels", {"path_options": MLP_HEAD, "times": {"copies": 2}}, steps=200
    ),
    "per_token, raster": Case(
        "per_token", "pixels", {"path_options": MLP_HEAD | {"order": "raster"}}, steps=200
    ),
}

CODECS = ("pixels", *NETWORKS, *QUANTIZERS)
LATENTS = ("pixels", "pixels of two", "a network", "a variational network")  # those without codes


def suits(path: str, codec: str) -> bool:
    """By what the codec gives: latents, codes, or codes coarse to fine."""
    if path in ("flow", "per_token"):
        return True
    return codec not in LATENTS and (path != "next_scale" or codec.startswith("multi_scale"))


def _others() -> dict[str, Case]:
    """Every path on every codec that suits it and that no case above has."""
    there = {(case.path, case.codec) for case in CASES.values()}
    # What the cases above learn to the end has begun to be learned here.
    plain = {
        "flow": {"steps": 70, "to": 0.35},
        "per_token": {"config": {"path_options": MLP_HEAD}, "steps": 120, "to": 0.6},
    }
    pairs = [(path, codec) for path in PATHS for codec in CODECS if suits(path, codec)]
    return {
        f"{path} on {codec}": Case(path, codec, **plain.get(path, {}))
        for path, codec in pairs
        if (path, codec) not in there
    }


CASES |= _others()
