"""An adapter that works at the positions of one modality alone.

Where text and images share block weights, a change meant for one of them must not be computed for the
other.  Every block is told which positions are images; a hook keeps that for the adapted layers inside it,
and they take the changed result at their own positions and the unchanged one, bit for bit, at the others.
"""

import inspect

import torch
from peft.tuners.lora.layer import LoraLayer, LoraVariant
from torch import Tensor

from unimodal.adapters.targets import Positions
from unimodal.model.decoder import Block


class Gate:
    """Keeps which positions of the running block are images."""

    def __init__(self, block: Block):
        self.is_image: Tensor | None = None  # (B, T) bool
        self._signature = inspect.signature(block.forward)
        self._hook = block.register_forward_pre_hook(self._keep, with_kwargs=True)

    def _keep(self, block: Block, args: tuple, kwargs: dict) -> None:
        self.is_image = self._signature.bind(*args, **kwargs).arguments["is_image"]

    def remove(self) -> None:
        """Take the hook off its block."""
        self._hook.remove()


class OneModality(LoraVariant):
    """peft's change of a layer (LoRA, or the variant it wraps, as DoRA), where the gate lets it through."""

    def __init__(self, inner: LoraVariant | None, gate: Gate, only: Positions):
        self.inner, self.gate, self.only = inner, gate, only

    def forward(self, module: LoraLayer, active_adapter: str, x: Tensor, result: Tensor, **kwargs) -> Tensor:
        """`result` (B, T, W) of the layer as it is, changed at the positions of one modality."""
        if self.inner is None:
            dropped = module.lora_dropout[active_adapter](x)
            change = module.lora_B[active_adapter](module.lora_A[active_adapter](dropped))
            changed = result + change * module.scaling[active_adapter]
        else:
            changed = self.inner.forward(module, active_adapter=active_adapter, x=x, result=result, **kwargs)
        is_image = self.gate.is_image
        return torch.where((is_image if self.only == "image" else ~is_image)[..., None], changed, result)

    def merge_safe(self, module: LoraLayer, active_adapter: str, orig_weight: Tensor) -> Tensor:
        """No single matrix does what this layer does."""
        raise AssertionError("a change of one modality is merged into a model with an expert for each")

    merge_unsafe = merge_safe


def limit(blocks: list[Block], adapter: str, only: Positions) -> list[Gate]:
    """Let an adapter in these blocks work at one modality's positions; returns the blocks' gates."""
    gates = []
    for block in blocks:
        gate = Gate(block)
        for layer in block.modules():
            if isinstance(layer, LoraLayer) and adapter in layer.lora_A:
                inner = layer.lora_variant.get(adapter)
                layer.lora_variant[adapter] = OneModality(inner, gate, only)
        gates.append(gate)
    return gates
