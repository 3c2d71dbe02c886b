"""What is frozen is not part of a checkpoint's state, so a run that goes on has to find it as it was."""

from pathlib import Path

import torch
from torch import nn

from unimodal.errors import UserError
from unimodal.images.folder import load_codec
from unimodal.model.weights import Weights, narrowed


def check_frozen(model: nn.Module, checkpoint: Path) -> None:
    """Raise UserError if a frozen weight is not that of the model saved beside the checkpoint's state."""
    folder = checkpoint / "model"
    codec = load_codec(folder / "codec").state_dict()
    saved = Weights(folder)
    for name, value in model.named_parameters():
        part, _, rest = name.partition(".")
        known = rest in codec if part == "codec" else name in saved.names
        if value.requires_grad or not known:
            continue
        there = codec[rest] if part == "codec" else saved.read(name)
        if not torch.equal(there, narrowed(value, there.dtype, name)):
            raise UserError(
                f"{name} is frozen, and it has changed since {checkpoint} was written: what model.init_from, "
                "model.denoiser_from or model.codec names was trained anew. Bring the old one back, "
                "or start anew with another output.dir."
            )
