"""The oracle: attention written as its definition, in float32, over a dense mask.

Slow and plain on purpose.  Every other backend is tested against it.
"""

import torch
from torch import Tensor

from unimodal.sequence.mask import Marks, may_look


def prepare(q_marks: Marks, k_marks: Marks) -> Tensor:
    """Dense mask, bool (B, 1, Tq, Tk)."""
    return may_look(q_marks, k_marks)[:, None]


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """softmax(q k / sqrt(H)) v on (B, N, T, H); a query that may look at nothing gets zeros."""
    scores = torch.einsum("bnqh,bnkh->bnqk", q.float(), k.float()) * q.shape[-1] ** -0.5
    weights = scores.masked_fill(~mask, float("-inf")).softmax(-1).masked_fill(~mask, 0.0)
    return torch.einsum("bnqk,bnkh->bnqh", weights, v.float()).to(v.dtype)
