"""Tiny vision towers in transformers' own format, with weights in which every part matters."""

import json
from pathlib import Path

import torch
import transformers

SHAPE = {
    **{"hidden_size": 16, "image_size": 16, "patch_size": 4, "num_hidden_layers": 2},
    "num_attention_heads": 2,
}
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
# name -> class, further settings
TOWERS = {
    "siglip": ("SiglipVisionModel", {"intermediate_size": 24}),
    "clip": ("CLIPVisionModel", {"intermediate_size": 24}),
    "dinov2": ("Dinov2Model", {"mlp_ratio": 2}),
    "registers": ("Dinov2WithRegistersModel", {"mlp_ratio": 2, "num_register_tokens": 3}),
}


def make_tower(name: str, folder: Path, whole: bool = False) -> torch.nn.Module:
    """Save a random tower and return transformers' model of it; `whole`: with its text half around it."""
    class_name, settings = TOWERS[name]
    config_class = getattr(transformers, class_name.replace("Model", "Config"))
    torch.manual_seed(0)
    if whole:
        of = class_name.removesuffix("VisionModel")
        text = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
        text |= {"vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 1}
        config_class = getattr(transformers, f"{of}Config")
        config = config_class(vision_config=SHAPE | settings, text_config=text)
        model = getattr(transformers, f"{of}Model")(config)
    else:
        model = getattr(transformers, class_name)(config_class(**SHAPE | settings))
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(1.0 if weight.dim() == 1 and weight.mean() == 1 else 0.0, 0.3)
    model.eval().save_pretrained(folder)
    processor = {"image_mean": MEAN, "image_std": STD, "crop_size": {"height": 16, "width": 16}}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return model.vision_model if whole else model
