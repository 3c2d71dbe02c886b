"""What the user may choose of a model made of pretrained parts, and what is chosen where nothing is said."""

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError
from yaml import YAMLError

from unimodal.errors import UserError, nearest
from unimodal.images.codec import Codec
from unimodal.images.vision import VisionTower
from unimodal.model.config import ModelConfig
from unimodal.model.weights import Weights
from unimodal.paths import PATHS, load_path
from unimodal.pretrained.names import IGNORED
from unimodal.training.complaints import sentences

DTYPES = {
    **dict.fromkeys(("float32", "fp32"), torch.float32),
    **dict.fromkeys(("bfloat16", "bf16"), torch.bfloat16),
    **dict.fromkeys(("float16", "fp16"), torch.float16),
}
KINDS = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}  # in safetensors' words
POSITION = 16  # pixels along the side of an image position, if the codec's cells allow and no codes are said
IMAGE_SIZE = 256  # pixels
ROWS = 64  # an enlarged table has a multiple of so many rows, as matrix units like them


def rows_for(old: int, tokens: int) -> int:
    """Rows of the embedding for so many tokens: those it has, if they are enough."""
    return old if tokens <= old else -(-tokens // ROWS) * ROWS


def dtype_of(word: str | None) -> torch.dtype | None:
    """The type that a word means.  Raises UserError for an unknown one."""
    if word is None or word in DTYPES:
        return DTYPES[word] if word else None
    raise UserError(f"dtype {word!r} is not known{nearest(word, DTYPES)}; expected {', '.join(DTYPES)}.")


def own_dtype(weights: Weights) -> torch.dtype:
    """The type in which a checkpoint is stored; of a mixture, one that holds all.

    Raises UserError for tensors that are no plain numbers.
    """
    kinds = {name: weights.kind(name) for name in sorted(weights.names) if not IGNORED.search(name)}
    for name, kind in kinds.items():
        if kind not in KINDS:
            raise UserError(
                f"{weights.folder}: {name} is stored as {kind}; expected {', '.join(KINDS)}. A "
                "quantized checkpoint has to be brought to one of these first."
            )
    return reduce(torch.promote_types, (KINDS[kind] for kind in kinds.values() or ["F32"]))


def device_of(name: str) -> torch.device:
    """A device that can compute.  Raises UserError if it is not here."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError) as error:  # PyTorch without CUDA asserts
        reason = str(error).splitlines()[0]
        raise UserError(f"device {name!r} is not here: {reason}. Expected cpu, cuda or cuda:1.") from error
    return device


def config_of(
    fields: dict[str, Any], path: str, settings: Sequence[str], codec: Codec, tower: VisionTower | None = None
) -> ModelConfig:
    """The configuration: what the language model fixes, and what the user says of the rest.

    fields    of ModelConfig, from the language model
    settings  `key=value` of others
    Raises UserError for a setting that is unknown, wrong or the language model's to say.
    """
    for setting in settings:
        if "=" not in setting:
            raise UserError(f"setting {setting!r} has no `=`; expected key=value, as image_size=512.")
    try:
        said = OmegaConf.to_container(OmegaConf.from_dotlist(list(settings)))
    except (OmegaConfBaseException, YAMLError) as error:
        raise UserError(f"the settings {' '.join(settings)} cannot be read: {error}") from error
    if "vision" in said:
        raise UserError("vision is not a setting: name the tower with --vision, which says all about it.")
    for key in said.keys() & fields.keys():
        raise UserError(
            f"{key} = {said[key]!r}: this is the language model's to say, which has {fields[key]!r}."
        )
    named = said.get("path", path)
    of_codes = named in PATHS and load_path(named).CODES  # a position is one cell
    patch = 1 if of_codes else max(1, POSITION // codec.stride)
    fields = fields | ({"vision": {"hidden_size": tower.width, "grid": tower.grid}} if tower else {})
    defaults = {"path": path, "patch_size": patch, "image_size": IMAGE_SIZE}
    try:
        config = ModelConfig.model_validate(defaults | said | fields)
    except ValidationError as error:
        raise UserError(sentences(error, ModelConfig, "the model", list(settings))) from None
    step = codec.stride * config.patch_size
    if config.image_size % step:
        raise UserError(
            f"image_size = {config.image_size} is no multiple of {step}, the pixels of an image position "
            f"along a side (codec stride {codec.stride} x patch_size {config.patch_size}). Change either."
        )
    return config
