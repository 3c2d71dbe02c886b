"""What a checkpoint asks of the run that goes on from it: the same weights, as many processes and workers."""

from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unimodal.errors import UserError
from unimodal.training.checkpoint import read_state, tensor_shapes
from unimodal.training.config import Recipe
from unimodal.training.optimizers import build_optimizers, check_kinds, trained


def check_goes_on(recipe: Recipe, module: nn.Module, checkpoint: Path) -> None:
    """Raise UserError for whatever a run would not take of a checkpoint, of which no tensor is read."""
    state, shapes = read_state(checkpoint), tensor_shapes(checkpoint)
    check_workers(state["data"][0], recipe.data.workers)
    check_weights(live_weights(module), shapes["weights"])
    if recipe.train.ema_decay is not None:
        check_averages(shapes)
    optimizers = build_optimizers(module, recipe.train, torch.float32)
    check_kinds(module, optimizers, shapes.get("optimizer", ()))


def live_weights(module: nn.Module) -> dict[str, Tensor]:
    """What training changes: trained parameters and saved buffers."""
    saved = module.state_dict().keys()
    buffers = {name: value for name, value in module.named_buffers() if name in saved}
    return {**trained(module), **buffers}


def check_world(state: dict[str, Any], world: int) -> None:
    """Raise UserError unless so many processes wrote the checkpoint."""
    if len(state["data"]) != world:
        raise UserError(
            f"The checkpoint was written by {len(state['data'])} processes, which share the data; it "
            f"cannot go on with {world}. Start as many again."
        )


def check_workers(place: dict[str, Any], workers: int) -> None:
    """Raise UserError unless a place in the data is that of so many workers."""
    if len(place["shards"]) != max(1, workers):
        raise UserError(
            f"The checkpoint was written with data.workers={len(place['shards'])}, which decides the "
            f"order of the data; it cannot go on with data.workers={workers}. Set it back."
        )


def check_weights(own: Mapping[str, Tensor], there: Mapping[str, tuple[int, ...]]) -> None:
    """Raise UserError unless a checkpoint's weights have the names and shapes of a model's own."""
    if own.keys() != there.keys():
        odd = sorted(own.keys() ^ there.keys())
        raise UserError(
            f"The checkpoint's weights are not those of the recipe's model: {odd[0]} is only in one of "
            f"them ({len(odd)} such names). Resume with the recipe of the run, or use model.init_from."
        )
    for name, value in own.items():
        if tuple(value.shape) != tuple(there[name]):
            raise UserError(
                f"The checkpoint has {name} in shape {tuple(there[name])}, the recipe's model in "
                f"{tuple(value.shape)}. Resume with the recipe of the run."
            )


def check_averages(files: Container[str]) -> None:
    """Raise UserError unless a checkpoint has averaged weights among its files."""
    if "ema" not in files:
        raise UserError("The checkpoint has no averaged weights; resume with train.ema_decay=null.")
