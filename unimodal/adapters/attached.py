"""A model with an adapter in it.

peft puts the thin matrices into the model; taking them out again leaves the very modules that were there, so
a model whose adapter is off is the base, exactly.  One adapter is in at a time: two that train different
modules in full could not share a model.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.trainable_tokens import TrainableTokensLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import Tensor, nn

from unimodal.adapters.positions import Gate, limit
from unimodal.adapters.section import Target
from unimodal.adapters.targets import positions
from unimodal.errors import UserError
from unimodal.model.unified import UnifiedModel

NAME = "default"  # peft's word for the one adapter of a model
# What peft makes of a configuration that is none.
WRONG = (ValueError, TypeError, KeyError, AttributeError, IndexError, re.error)


class Attached:
    """Puts a new adapter into `model`, which is changed in place: all else in it is frozen.

    Random A, zero B: until it is trained or filled, the adapter changes nothing.
    where  what it comes from, for messages
    Raises UserError if `config` is of no adapter for this model, which is then as it was.
    """

    def __init__(self, model: UnifiedModel, config: LoraConfig, target: Target, where: str = "the adapter"):
        self.model, self.config = model, config
        self._gates: list[Gate] = []
        try:
            with _without_config(model):
                inject_adapter_in_model(config, model, NAME)
        except WRONG as error:
            self.detach()
            raise UserError(
                f"{where} cannot be put into this model: {error}. Use adapter_config.json as it was written "
                "with the adapter."
            ) from error
        model.train(model.training)  # the new layers too
        if only := positions(model.config, target):
            self._gates = limit(list(model.decoder.layers), NAME, only)

    def fill(self, tensors: dict[str, Tensor], where: str) -> None:
        """Give the adapter its weights; UserError, naming `where`, unless they are exactly those it has."""
        own = adapter_tensors(self.model)
        if odd := sorted(own.keys() ^ tensors.keys()):
            kind = "lacks" if odd[0] in own else "has, unknown to the model,"
            raise UserError(
                f"{where} is damaged or not of this model: it {kind} {odd[0]} ({len(odd)} such names)."
            )
        for name, tensor in tensors.items():
            if tensor.shape != own[name].shape:
                raise UserError(
                    f"{where} does not fit: {name} has shape {tuple(tensor.shape)}, the model needs "
                    f"{tuple(own[name].shape)}."
                )
        with _without_config(self.model):
            set_peft_model_state_dict(self.model, tensors, NAME)

    @torch.no_grad()
    def detach(self, merge: bool = False) -> None:
        """Take the adapter out; with `merge`, its change stays in the weights.

        Raises ValueError if merged weights would not be finite.
        """
        for name, module in list(self.model.named_modules()):
            if isinstance(module, TrainableTokensLayer):
                continue  # goes with the wrapper it is in
            if isinstance(module, BaseTunerLayer):
                if merge:
                    module.merge(safe_merge=True)
                inner: nn.Module = module.get_base_layer()
            elif isinstance(module, AuxiliaryTrainingWrapper):
                inner = (
                    module.unload_and_optionally_merge_module(True, safe_merge=True, adapter_names=[NAME])
                    if merge
                    else module.original_module
                )
            else:
                continue
            parent, _, child = name.rpartition(".")
            setattr(self.model.get_submodule(parent), child, inner)
        for gate in self._gates:
            gate.remove()
        self.model.__dict__.pop("peft_config", None)


@contextmanager
def _without_config(model: UnifiedModel) -> Iterator[None]:
    """peft takes a model whose config has a `model_type` for one of transformers, and would convert names."""
    config, model.config = model.config, {}
    try:
        yield
    finally:
        model.config = config


def adapter_tensors(model: UnifiedModel) -> dict[str, Tensor]:
    """The adapter's weights in a model, by peft's names."""
    return get_peft_model_state_dict(model, adapter_name=NAME, save_embedding_layers=False)
