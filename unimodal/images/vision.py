"""Vision towers: a second reading of input pictures, by what another model learned to see in them.

The codec's latents tell what a picture looks like; the features of SigLIP (Zhai et al. 2023), CLIP (Radford
et al. 2021) or DINOv2 (Oquab et al. 2023) tell more of what it shows.  The tower stays as it is; an MLP
brings its features to the width of the model (as LLaVA-1.5's, Liu et al. 2024).

Legend: P patches of the tower's grid, F its width, D the model's.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import gelu, interpolate

from unimodal.errors import UserError, nearest

# model_type -> transformers' class; of a model with a text half, only the half that sees is taken.
TOWERS = {
    "siglip": "SiglipVisionModel",
    "siglip_vision_model": "SiglipVisionModel",
    "clip": "CLIPVisionModel",
    "clip_vision_model": "CLIPVisionModel",
    "dinov2": "Dinov2Model",
    "dinov2_with_registers": "Dinov2WithRegistersModel",
}
FOLDER = "vision"  # inside a model's folder
PROCESSOR = "preprocessor_config.json"
WHOLE = "processor_config.json"  # in its place, of a processor saved with its tokenizer
FILES = ["config.json", PROCESSOR, WHOLE, "model*.safetensors*"]  # all that is read of a checkpoint


class Projector(nn.Module):
    """Features (..., F) to the model's width (..., D)."""

    def __init__(self, features: int, width: int):
        super().__init__()
        self.linear_in = nn.Linear(features, width)
        self.linear_out = nn.Linear(width, width)

    def forward(self, features: Tensor) -> Tensor:
        """Two layers with GELU between them."""
        return self.linear_out(gelu(self.linear_in(features)))


class VisionTower(nn.Module):
    """A network of transformers that sees, frozen.

    side       pixels along the square that it sees: pictures are scaled to it, whatever their shape
    mean, std  of the three colours, by which pixels in [0, 1] are normalised
    """

    def __init__(self, network: nn.Module, side: int, mean: list[float], std: list[float]):
        super().__init__()
        self.network = network.requires_grad_(False).eval()
        self.side, self.scale = side, {"image_mean": mean, "image_std": std}
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        rows = self.side // self.network.config.patch_size
        return rows, rows

    @property
    def width(self) -> int:
        """F."""
        return self.network.config.hidden_size

    def train(self, mode: bool = True) -> "VisionTower":
        """It is never trained, so it never drops anything either."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, pixels: list[np.ndarray]) -> list[Tensor]:
        """Features (P, F), row by row, of each uint8 (H, W, 3) picture."""
        seen = self.network(torch.stack([self._fitted(picture) for picture in pixels])).last_hidden_state
        patches = self.grid[0] * self.grid[1]
        return list(seen[:, -patches:].float())  # what comes before them stands for no patch

    def _fitted(self, picture: np.ndarray) -> Tensor:
        """(3, side, side), normalised."""
        image = rearrange(torch.tensor(picture, device=self.mean.device), "h w c -> 1 c h w").float() / 255
        if image.shape[-2:] != (self.side, self.side):
            size = (self.side, self.side)
            image = interpolate(image, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        return (image[0] - self.mean) / self.std

    def save(self, folder: Path) -> None:
        """Write a folder that `load_tower` reads."""
        self.network.save_pretrained(folder)
        size = {"height": self.side, "width": self.side}
        (folder / PROCESSOR).write_text(json.dumps(self.scale | {"size": size}, indent=2) + "\n")


def load_tower(folder: Path) -> VisionTower:
    """Read a checkpoint of transformers: SigLIP, CLIP or DINOv2, whole or the half that sees.

    In float32.  Raises UserError for another family, or for what is missing or does not fit.
    """
    config = _read(folder / "config.json", "expected a checkpoint of transformers")
    family = config.get("model_type")
    if family not in TOWERS:
        raise UserError(
            f"{folder}: {family!r} is no vision tower that is known{nearest(str(family), TOWERS)}; expected "
            f"one of {', '.join(TOWERS)}."
        )
    file, processor = _processor(folder)
    mean, std = (processor.get(name) for name in ("image_mean", "image_std"))
    if not (_colours(mean) and _colours(std)):
        raise UserError(f"{file}: image_mean is {mean!r} and image_std {std!r}; expected three numbers each.")
    network = _network(folder, TOWERS[family])
    side = _side(processor, network.config)
    patch = network.config.patch_size
    if side % patch or (not family.startswith("dinov2") and side != network.config.image_size):
        raise UserError(
            f"{file}: pictures of {side} pixels do not fit a tower for "
            f"{network.config.image_size} pixels in patches of {patch}. Use the file saved with it."
        )
    return VisionTower(network, side, mean, std)


def _processor(folder: Path) -> tuple[Path, dict[str, Any]]:
    """How the tower's pictures are scaled and normalised, and the file that says so."""
    whole = folder / WHOLE
    if whole.is_file() and not (folder / PROCESSOR).is_file():
        found = _read(whole, "").get("image_processor")
        if isinstance(found, dict):
            return whole, found
    why = f"it, or image_processor in {WHOLE}, says how the tower's pictures are scaled and normalised"
    return folder / PROCESSOR, _read(folder / PROCESSOR, why)


def _network(folder: Path, name: str) -> nn.Module:
    """The network with all of its weights.  Raises UserError if some are not there."""
    import transformers
    from safetensors import SafetensorError

    from unimodal.model.weights import some

    try:
        network, found = getattr(transformers, name).from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(f"the vision tower in {folder} cannot be read: {error}") from error
    if missing := sorted(found["missing_keys"]):
        raise UserError(
            f"the vision tower in {folder} is not whole: {some(missing)} not there. Copy it again."
        )
    return network


def _side(processor: dict[str, Any], config: Any) -> int:
    """Pixels along a side of what the network is shown: after its own cutting, where there is any."""
    for name in ("crop_size", "size"):
        size = processor.get(name)
        size = size.get("height") if isinstance(size, dict) else size
        if isinstance(size, int):
            return size
    return config.image_size


def _colours(values: Any) -> bool:
    numbers = isinstance(values, list) and all(isinstance(value, int | float) for value in values)
    return numbers and len(values) == 3


def _read(file: Path, why: str) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{file.parent} has no {file.name}: {why}.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read as JSON: {error}") from error
    if not isinstance(found, dict):
        raise UserError(f"{file}: expected a JSON object, found {type(found).__name__}.")
    return found
