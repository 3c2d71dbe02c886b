"""FlexAttention: the rule as a `mask_mod`, skipping blocks in which no pair may look.

Compiled on CUDA.  Packs have a fixed budget, so a training run compiles once; what has any length is left
to another backend.  PyTorch has no backward for FlexAttention on CPU; there it runs uncompiled, forward only,
for tests.
"""

from functools import cache

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from unimodal.sequence.mask import Marks, rule


@cache
def _compiled():
    return torch.compile(flex_attention, dynamic=False), torch.compile(create_block_mask, dynamic=False)


def prepare(q_marks: Marks, k_marks: Marks) -> BlockMask:
    """Block mask of (B, 1, Tq, Tk)."""

    def mask_mod(b, _h, q, k):
        return rule(
            q_marks.document[b, q],
            q_marks.step[b, q],
            q_marks.span[b, q],
            k_marks.document[b, k],
            k_marks.step[b, k],
            k_marks.span[b, k],
            k_marks.hidden[b, k],
        )

    device = q_marks.document.device
    create = _compiled()[1] if device.type == "cuda" else create_block_mask
    rows, length = q_marks.shape
    return create(mask_mod, rows, None, length, k_marks.shape[1], device=device)


def attend(q: Tensor, k: Tensor, v: Tensor, block_mask: BlockMask) -> Tensor:
    """Attention on (B, N, T, H) over (B, M, T, H), M dividing N; a query that looks at nothing gets 0."""
    function = _compiled()[0] if q.device.type == "cuda" else flex_attention
    return function(q, k, v, block_mask=block_mask, enable_gqa=q.shape[1] != k.shape[1])
