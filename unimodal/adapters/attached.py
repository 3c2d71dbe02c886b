"""A model with an adapter in it.

peft puts the thin matrices into the model; taking them out again leaves the very modules that were there, so
a model whose adapter is off is the base, exactly.  One adapter is in at a time: two that train different
modules in full could not share a model.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import Tensor, nn

from unimodal.adapters.positions import limit
from unimodal.adapters.section import Target
from unimodal.adapters.targets import positions
from unimodal.errors import UserError
from unimodal.model.unified import UnifiedModel

NAME = "default"  # peft's word for the one adapter of a model


class Attached:
    """Puts a new adapter into `model`, which is changed in place: all else in it is frozen.

    Random A, zero B: until it is trained or filled, the adapter changes nothing.
    """

    def __init__(self, model: UnifiedModel, config: LoraConfig, target: Target):
        self.model, self.config = model, config
        with _without_config(model):
            inject_adapter_in_model(config, model, NAME)
        model.train(model.training)  # the new layers too
        only = positions(model.config, target)
        self._gates = limit(list(model.decoder.layers), NAME, only) if only else []

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
        """Take the adapter out; with `merge`, its change stays in the weights."""
        for name, module in list(self.model.named_modules()):
            if isinstance(module, BaseTunerLayer):
                if merge:
                    module.merge(safe_merge=True)
                inner: nn.Module = module.get_base_layer()
            elif isinstance(module, AuxiliaryTrainingWrapper):
                inner = module.modules_to_save[NAME] if merge else module.original_module
            else:
                continue
            parent, _, child = name.rpartition(".")
            setattr(self.model.get_submodule(parent), child, inner)
        for gate in self._gates:
            gate.remove()
        del self.model.peft_config


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
