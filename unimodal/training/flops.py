"""What a training step of the unified model costs, in floating point operations.

The decoder is counted by the rule of PaLM (Chowdhery et al. 2022, appendix B): 6 a weight and position,
forward and backward, and 12 a pair that attends and width.  What the paths do is too different for one rule,
so torch counts it, once for every size of picture.
"""

from copy import deepcopy

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from unimodal.model.unified import UnifiedModel
from unimodal.sequence.pack import Pack
from unimodal.sequence.spans import Grid
from unimodal.sequence.writer import NO_LABEL

DRAWN = 16  # pictures over which a path's chance, such as how much it hides, is averaged


class Costs:
    """Costs of one model's packs; frozen weights cost 4, as they need no gradient of their own."""

    def __init__(self, model: UnifiedModel):
        self.model = model
        self._read: dict[Grid, float] = {}
        self._drawn: dict[Grid, float] = {}

    def pack(self, batch: Pack) -> float:
        """Forward and backward of a pack, packed: padding, masks and recomputation cost nothing."""
        model, config = self.model, self.model.config
        # Positions of pictures, which have an expert of their own; what a tower tells is read like text.
        seen = sum(span.length for span in batch.images if span.kind != "vision")
        layers = sum(
            _cost(p) * p.numel() * (seen if expert else batch.tokens - seen)
            for layer in model.decoder.layers
            for expert, part in enumerate((layer.experts[0], layer.experts[-1]))
            for p in part.parameters()
        )
        trained = float((batch.labels != NO_LABEL).sum())
        if model.block:  # of n tokens 1 to n are hidden, each number as often
            trained = sum((block.length + 1) / 2 for block in batch.blocks)
        pairs = sum(length**2 for length in batch.lengths)
        width = config.num_attention_heads * config.head_dim
        attention = 12 * config.num_hidden_layers * width * pairs / 2
        table = model.embed_tokens.weight if model.lm_head is None else model.lm_head.weight
        head = _cost(table) * trained * config.vocab_size * config.hidden_size
        reference = model.reference
        compared = sum(span.length for span in batch.images if span.before is not None) if reference else 0
        images = compared * sum(_cost(p) * p.numel() for p in reference.parameters()) if compared else 0.0
        images += sum(
            self.drawn(span.grid) if span.kind == "target" else self.read(span.grid)
            for span in batch.images
            if span.kind != "vision"
        )
        return layers + attention + head + images + self._vision(batch)

    def _vision(self, batch: Pack) -> float:
        """A tower is passed through once, for nothing in it is trained; then comes its projection."""
        told = sum(span.length for span in batch.images if span.kind == "vision")
        if not told:
            return 0.0
        tower = 2 * sum(p.numel() for p in self.model.tower.parameters())
        named = self.model.vision_in.named_parameters()
        used = (p for name, p in named if "original_module" not in name)  # an adapter has a copy of its own
        return told * (tower + sum(_cost(p) * p.numel() for p in used))

    def read(self, grid: Grid) -> float:
        """What the path spends on a picture that is read."""
        if grid not in self._read:
            path, device = deepcopy(self.model.path), self.model.device
            latents = torch.zeros(grid[0] * grid[1], path.channels, device=device)
            with torch.enable_grad(), FlopCounterMode(display=False) as counter:
                _backward(path.embed_clean(latents).sum())
            self._read[grid] = float(counter.get_total_flops())
        return self._read[grid]

    def drawn(self, grid: Grid) -> float:
        """What the path spends on one copy of a picture that is drawn: embedding, head and loss."""
        if grid not in self._drawn:
            model, path = self.model, deepcopy(self.model.path)
            size = (grid[0] * model.multiple, grid[1] * model.multiple, 3)
            with torch.no_grad():
                truths = model.encoded([np.zeros(size, np.uint8)])[1] * DRAWN
            generator = torch.Generator(model.device).manual_seed(0)
            seen = path.corrupt(truths, [grid] * DRAWN, generator)
            if model.reference is not None:
                seen.before = model.reference.before([None] * DRAWN, [grid] * DRAWN, path)
            with torch.enable_grad(), FlopCounterMode(display=False) as counter:
                embeds = path.embed(seen)
                hidden = torch.zeros_like(embeds).requires_grad_()
                _backward(embeds.sum() + path.loss(hidden, seen).sum())
            self._drawn[grid] = counter.get_total_flops() / DRAWN
        return self._drawn[grid]


def _backward(loss: Tensor) -> None:
    """The backward pass of a copy of the path, so that no gradient of the model's own is touched."""
    if loss.requires_grad:
        loss.backward()


def _cost(weight: Tensor) -> int:
    return 6 if weight.requires_grad else 4
