"""PyTorch's scaled_dot_product_attention, without a dense mask over a whole pack.

A pack of 4,096 positions holds some seventy documents.  A dense mask would spend 98 % of its work on
pairs that may not look at each other.  Here the documents of a pack are gathered into a few padded
batches of similar length, and each batch is one call.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from unimodal.sequence.mask import PADDING, Marks, may_look

ROUND = 16  # document lengths are padded up to a multiple of this


@dataclass(slots=True)
class Batches:
    """Documents of one pack as padded batches.

    gather   (sum of n x L,) position of every slot of every batch
    shapes   (n, L) of every batch
    masks    additive (n, 1, L, L) of every batch
    scatter  (T,) slot that holds each position; the slot after the last is all zeros (padding)
    """

    gather: Tensor
    shapes: list[tuple[int, int]]
    masks: list[Tensor]
    scatter: Tensor


def prepare(q_marks: Marks, k_marks: Marks) -> Tensor | Batches:
    """Batches for a pack of several documents; an additive mask (B, 1, Tq, Tk) otherwise."""
    if q_marks is k_marks and q_marks.shape[0] == 1:
        documents = q_marks.document[0].cpu().numpy()
        if len(np.unique(documents[documents != PADDING])) > 1:
            return _batches(q_marks, documents)
    return _additive(_never_empty(may_look(q_marks, k_marks)))[:, None]


def attend(q: Tensor, k: Tensor, v: Tensor, prepared: Tensor | Batches) -> Tensor:
    """Attention on (B, N, T, H) over (B, M, T, H), M dividing N."""
    if isinstance(prepared, Tensor):
        return _product(q, k, v, prepared)
    sizes = [n * length for n, length in prepared.shapes]
    # Split, not sliced: the gradient of a slice is a zero tensor as large as the whole.
    slots = [x[0].transpose(0, 1).index_select(0, prepared.gather).split(sizes) for x in (q, k, v)]
    outputs = []
    for shape, mask, *batch in zip(prepared.shapes, prepared.masks, *slots):
        batch = [x.unflatten(0, shape).transpose(1, 2) for x in batch]  # (n, N, L, H)
        outputs.append(_product(*batch, mask).transpose(1, 2).flatten(0, 1))
    zero = outputs[0].new_zeros(1, *outputs[0].shape[1:])
    return torch.cat([*outputs, zero]).index_select(0, prepared.scatter).transpose(0, 1)[None]


def _product(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    grouped = q.shape[1] != k.shape[1]
    if q.device.type != "cpu" or q.dtype == torch.float32:
        return scaled_dot_product_attention(q, k, v, attn_mask=mask.to(q.dtype), enable_gqa=grouped)
    # On CPU the backward kernel in bfloat16 takes four times as long as in float32.
    with torch.autocast("cpu", enabled=False):
        wide = (x.float() for x in (q, k, v))
        return scaled_dot_product_attention(*wide, attn_mask=mask, enable_gqa=grouped).to(q.dtype)


def _additive(mask: Tensor) -> Tensor:
    return torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, float("-inf"))


def _never_empty(mask: Tensor) -> Tensor:
    """A padding query may look at everything: its output is never read, but must not be NaN."""
    return mask | ~mask.any(-1, keepdim=True)


def _batches(marks: Marks, documents: np.ndarray) -> Batches:
    starts = np.flatnonzero(np.r_[True, documents[1:] != documents[:-1]])
    lengths = np.diff(np.r_[starts, len(documents)])
    real = documents[starts] != PADDING
    starts, lengths = starts[real], lengths[real]
    padded = -(-lengths // ROUND) * ROUND
    gather, shapes, masks = [], [], []
    scatter = np.full(len(documents), int((padded).sum()))
    slot = 0
    for length in np.unique(padded):
        chosen = padded == length
        offset = np.arange(length)
        index = np.where(
            offset < lengths[chosen][:, None], starts[chosen][:, None] + offset, starts[chosen][:, None]
        )
        valid = offset < lengths[chosen][:, None]  # (n, L)
        scatter[index[valid]] = slot + np.flatnonzero(valid.ravel())
        slot += index.size
        gather.append(index.ravel())
        shapes.append(index.shape)
        at = torch.from_numpy(index).to(marks.document.device)
        here = torch.from_numpy(valid).to(at.device)
        local = marks.map(lambda mark, at=at: mark[0][at])
        mask = may_look(local, local) & here[:, None, :]
        masks.append(_additive(_never_empty(mask))[:, None])
    device = marks.document.device
    return Batches(
        gather=torch.from_numpy(np.concatenate(gather)).to(device),
        shapes=shapes,
        masks=masks,
        scatter=torch.from_numpy(scatter).to(device),
    )
