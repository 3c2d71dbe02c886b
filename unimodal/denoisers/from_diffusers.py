"""What the denoisers that are diffusers' transformers share: making them, their weights, and what they lack.

A transformer is described by the arguments of diffusers' own config.json, but for its channels, which are the
codec's.  Some take no mask, so conditions are filled up to one length; none can leave a reference out of a
row, so rows with and without one are computed apart.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from unimodal.denoisers.denoiser import Conditions, Latents, as_channels
from unimodal.errors import UserError
from unimodal.images.patches import to_tokens


def build(name: str, config: dict[str, Any], **channels: int) -> nn.Module:
    """A transformer of this class with new weights; what begins with `_` in `config` says nothing of it.

    Raises UserError if diffusers does not take the arguments.
    """
    import diffusers

    arguments = {key: value for key, value in config.items() if not key.startswith("_")}
    try:
        return getattr(diffusers, name)(**arguments | channels)
    except (TypeError, ValueError) as error:
        raise UserError(f"model.denoiser.options.config does not describe a {name}: {error}") from error


def take(transformer: nn.Module, folder: Path, first: str) -> None:
    """Start from the weights of a diffusers folder.

    first  name of the weight that the latents meet, whose inputs may be more here: those begin at zero
    Raises UserError if it holds another class or shape.
    """
    name = type(transformer).__name__
    try:
        found = type(transformer).from_pretrained(folder, use_safetensors=True, local_files_only=True)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} cannot be read as a {name} of diffusers: {error}") from error
    weights, mine = found.state_dict(), transformer.state_dict()
    if first in weights:
        more = mine[first].shape[1] - weights[first].shape[1]
        weights[first] = pad(weights[first], (0, 0) * (weights[first].dim() - 2) + (0, max(more, 0)))
    wrong = [key for key in mine if key not in weights or weights[key].shape != mine[key].shape]
    wrong += sorted(weights.keys() - mine.keys())
    if wrong:
        raise UserError(
            f"{folder} does not fit model.denoiser.options.config and the codec: {wrong[0]} differs. Leave "
            "config out, so that the folder's own is taken."
        )
    transformer.load_state_dict(weights)


def no_tokens(latents: str, name: str) -> None:
    """Raise UserError if references are to come as tokens to a transformer that takes none."""
    if latents == "vae_seq":
        raise UserError(
            f"model.reference is vae_seq or dual (the default), but {name} takes no tokens of a picture that "
            "is edited. Set model.reference=vlm, by which the reader sees it, or model.reference=vae_channel."
        )


def kept_reference(
    conditions: Conditions, latents: Latents, patch: int
) -> tuple[Tensor | None, Tensor | None, tuple[int, int]]:
    """A picture to edit as channels, or as tokens (B, R, C patch^2) with their grid of cells; None where it
    does not come that way."""
    if latents == "vae_channel":
        return as_channels(conditions), None, (0, 0)
    if latents == "vae_seq" and conditions.reference is not None:
        return None, to_tokens(conditions.reference, patch), tuple(conditions.reference.shape[2:])
    return None, None, (0, 0)


def packed(conditions: Conditions) -> tuple[Tensor, Tensor]:
    """Conditions with their real positions first and zeros behind: (B, S, W) and (B, S), S the longest."""
    order = torch.argsort(~conditions.mask, dim=1, stable=True)
    cond = torch.take_along_dim(conditions.cond * conditions.mask[..., None], order[..., None], dim=1)
    longest = int(conditions.mask.sum(1).max())
    return cond[:, :longest], torch.take_along_dim(conditions.mask, order, dim=1)[:, :longest]


def filled(conditions: Conditions, length: int | None, name: str) -> Tensor:
    """Conditions for a transformer without a mask: zeros up to `length`, (B, length, W), as in pipelines.

    Raises UserError if they differ in length and none is given, or one is longer.
    """
    cond, mask = packed(conditions)
    if length is None:
        if not mask.all():
            raise UserError(
                f"these conditions differ in length, and {name} takes no mask: set "
                "model.denoiser.options.length, to which all are filled up, or use a connector with queries."
            )
        return cond
    if cond.shape[1] > length:
        raise UserError(
            f"a condition has {cond.shape[1]} positions, model.denoiser.options.length is only {length}."
        )
    return pad(cond, (0, 0, 0, length - cond.shape[1]))


def apart(there: Tensor, run: Callable[[Tensor, bool], Tensor]) -> Tensor:
    """`run(rows, True)` where `there` (B,) is true and `run(rows, False)` elsewhere, in the rows' order."""
    rows = [(torch.nonzero(there)[:, 0], True), (torch.nonzero(~there)[:, 0], False)]
    rows = [(index, kind) for index, kind in rows if len(index)]
    results = torch.cat([run(index, kind) for index, kind in rows])
    return results[torch.cat([index for index, _ in rows]).argsort()]
