"""Saved models: a Hugging Face style folder, complete in itself.

    config.json  model.safetensors (sharded when large)  tokenizer.json  tokenizer_config.json  codec/
    vision/      the vision tower, if there is one

Only safetensors are read; nothing is unpickled and no code is run from a folder.
"""

import json
from pathlib import Path

import torch

from unimodal.errors import UserError, nearest
from unimodal.hub import fetch
from unimodal.images.folder import SHIPPED, load_codec
from unimodal.images.vision import FOLDER, VisionTower, load_tower
from unimodal.model.config import ModelConfig
from unimodal.model.unified import UnifiedModel
from unimodal.model.weights import Weights, fill, narrowed, unwritten
from unimodal.sequence.tokenizer import Tokenizer

EXACT = ("path.", "places.", "reference.", "vision_in.")  # between codec or tower and the decoder


def save_model(
    folder: Path, model: UnifiedModel, tokenizer: Tokenizer, dtype: torch.dtype = torch.float32
) -> None:
    """Write a complete model folder; weights are stored as `dtype` and read back as float32.

    Raises UserError for a number that `dtype` cannot hold.
    """
    from huggingface_hub import save_torch_state_dict

    folder.mkdir(parents=True, exist_ok=True)
    model.config.save(folder)
    tokenizer.save(folder)
    model.codec.save(folder / "codec")
    if model.tower is not None:
        model.tower.save(folder / FOLDER)
    weights = {
        name: narrowed(value, dtype, name)
        for name, value in model.state_dict().items()
        if not name.startswith(("codec.", "tower."))
    }
    save_torch_state_dict(weights, folder)


def load_model(
    folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[UnifiedModel, Tokenizer]:
    """Read what `save_model` wrote, tensor by tensor to its device and precision, ready for inference.

    Host memory never holds more than the model and one tensor.  `dtype` is that of the decoder, the embedding
    and the head: codec, tower, and what computes between them and the decoder, stay in float32.
    Raises UserError if the folder is not a model, misses a part, or its weights do not fit its config.
    """
    config = ModelConfig.load(folder)
    tokenizer = Tokenizer.load(folder)
    if len(tokenizer) > config.vocab_size:
        raise UserError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens, but config.json says vocab_size = "
            f"{config.vocab_size}; the two are not of one model. Use the tokenizer saved with the model."
        )
    codec = load_codec(folder / "codec")
    tower = _tower(folder, config) if config.vision else None
    with unwritten():
        model = UnifiedModel(config, codec)
    model.codec = None  # its weights are in its own folder
    fill(model, Weights(folder), device, dtype, EXACT)
    model.codec, model.tower = codec.requires_grad_(False), tower
    return model.to(device).eval(), tokenizer


def _tower(folder: Path, config: ModelConfig) -> VisionTower:
    """The model's vision tower.  Raises UserError if it is not the one that the model was made with."""
    tower = load_tower(folder / FOLDER)
    if (tower.width, tower.grid) != (config.vision.hidden_size, config.vision.grid):
        raise UserError(
            f"{folder / FOLDER} tells {tower.width} numbers on a grid of {tower.grid}, but config.json says "
            f"{config.vision.hidden_size} on {config.vision.grid}. Use the tower saved with the model."
        )
    return tower


def model_type(folder: Path) -> str:
    """What `config.json` says the folder is, `unimodal` if it says nothing.  Raises UserError if broken."""
    file = folder / "config.json"
    if not file.is_file():
        return "unimodal"  # `load_model` says what is missing
    try:
        return str(json.loads(file.read_text(encoding="utf-8")).get("model_type", "unimodal"))
    except (ValueError, AttributeError) as error:
        raise UserError(f"{file} does not describe a unimodal model: {error}") from error


def find_model(name: str) -> Path:
    """Folder of a model: a folder, the name of a shipped model, or a Hugging Face hub id.

    Raises UserError naming what is known if it is none of these.
    """
    shipped = sorted(codec.parent.name for codec in SHIPPED.glob("*/codec"))  # not the codecs alone
    if Path(name).is_dir():
        return Path(name)
    if name in shipped:
        return SHIPPED / name
    patterns = ("*.json", "*.safetensors", "*.jinja", "*.md")
    if (fetched := fetch(name, "model", patterns, folders=True)) is not None:  # codec/ and vision/ too
        return fetched
    raise UserError(
        f"no model {name!r}{nearest(name, shipped)}: expected a folder that `unimodal train` wrote, a "
        f"shipped model ({', '.join(shipped) or 'none'}), or a hub id such as owner/name."
    )
