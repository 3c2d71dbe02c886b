"""Flash attention by decomposition: the rule as causal and full segments.

Variable-length flash kernels know two masks, causal and none.  That is enough.  Consecutive positions
that are written one after another are a causal segment; positions that share a step are a full segment.
A segment's queries look at all keys of their document that are written by its end and not hidden from
it, gathered in order, so the causal case is aligned to the bottom right as flash-attn (>= 2.1) does.
Kernels: the flash-attn package, or `torch.nn.attention.varlen` (PyTorch >= 2.10), both CUDA only;
`varlen_reference` computes the same on any device for tests.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from unimodal.sequence.mask import PADDING, Marks


@dataclass(slots=True)
class Segments:
    """All segments of one kind, in the layout of variable-length kernels.

    q_index, k_index  (sum of lengths,) rows of the flattened (B T) queries and keys
    q_start, k_start  (S + 1,) int32 cumulative lengths
    causal            aligned to the bottom right
    """

    q_index: Tensor
    k_index: Tensor
    q_start: Tensor
    k_start: Tensor
    q_longest: int
    k_longest: int
    causal: bool


def prepare(q_marks: Marks, k_marks: Marks) -> list[Segments]:
    """Decompose the rule into at most two groups, causal and full."""
    groups: dict[bool, list[tuple[np.ndarray, np.ndarray]]] = {True: [], False: []}
    q_all, k_all = (_numpy(marks) for marks in (q_marks, k_marks))
    for row in range(q_marks.shape[0]):
        q, k = {n: a[row] for n, a in q_all.items()}, {n: a[row] for n, a in k_all.items()}
        for start, end, causal in _runs(q):
            last = end - 1
            keys = np.flatnonzero(
                (k["document"] == q["document"][last])
                & (k["step"] <= q["step"][last])
                & ((k["span"] == q["span"][last]) | ~k["hidden"])
            )
            keys = keys[np.argsort(k["step"][keys], kind="stable")]
            if causal and not _own(k["step"][keys[start - end :]], q["step"][start:end]):
                # Others of these steps stand elsewhere: each query has keys of its own.
                pieces = [(at, at + 1, keys[k["step"][keys] <= q["step"][at]]) for at in range(start, end)]
                causal = False
            else:
                pieces = [(start, end, keys)]
            for first, behind, seen in pieces:
                queries = np.arange(first, behind) + row * q_marks.shape[1]
                groups[causal].append((queries, seen + row * k_marks.shape[1]))
    device = q_marks.document.device
    return [_collect(pairs, causal, device) for causal, pairs in groups.items() if pairs]


def _own(last: np.ndarray, steps: np.ndarray) -> bool:
    """Whether the last keys, by step, are one for each query, so that a mask aligned to them is the rule."""
    return len(last) == len(steps) and bool((last == steps).all())


def _numpy(marks: Marks) -> dict[str, np.ndarray]:
    return {name: getattr(marks, name).cpu().numpy() for name in ("document", "step", "span", "hidden")}


def _runs(q: dict[str, np.ndarray]) -> list[tuple[int, int, bool]]:
    """Split one row of queries into (start, end, causal); padding is left out."""
    document, step, span, hidden = q["document"], q["step"], q["span"], q["hidden"]
    same_document = document[1:] == document[:-1]
    # What a hidden span sees differs from what its neighbours see, so a segment never crosses its edge.
    visible_alike = (span[1:] == span[:-1]) | ~(hidden[1:] | hidden[:-1])
    together = same_document & (step[1:] == step[:-1]) & visible_alike & (span[1:] == span[:-1])
    follows = same_document & (step[1:] == step[:-1] + 1) & visible_alike
    runs, start, count = [], 0, len(document)
    while start < count:
        end = start + 1
        while end < count and together[end - 1]:
            end += 1
        causal = end == start + 1
        if causal:
            while end < count and follows[end - 1] and not (end < count - 1 and together[end]):
                end += 1
        if document[start] != PADDING:
            runs.append((start, end, causal))
        start = end
    return runs


def _collect(pairs: list[tuple[np.ndarray, np.ndarray]], causal: bool, device) -> Segments:
    def index(which: int) -> tuple[Tensor, Tensor, int]:
        lengths = [len(pair[which]) for pair in pairs]
        joined = torch.from_numpy(np.concatenate([pair[which] for pair in pairs])).to(device)
        starts = torch.from_numpy(np.cumsum([0, *lengths]).astype(np.int32)).to(device)
        return joined, starts, max(lengths)

    (q_index, q_start, q_longest), (k_index, k_start, k_longest) = index(0), index(1)
    return Segments(q_index, k_index, q_start, k_start, q_longest, k_longest, causal)


def attend(q: Tensor, k: Tensor, v: Tensor, groups: list[Segments]) -> Tensor:
    """Attention on (B, N, T, H) over (B, M, T, H), M dividing N; a query that looks at nothing gets 0."""
    kernel = _kernel() if q.is_cuda else varlen_reference
    flat_q, flat_k, flat_v = (x.transpose(1, 2).flatten(0, 1) for x in (q, k, v))  # (B T, N, H)
    out = torch.zeros_like(flat_q)
    for group in groups:
        keys, values = (x.index_select(0, group.k_index) for x in (flat_k, flat_v))
        part = kernel(flat_q.index_select(0, group.q_index), keys, values, group)
        out = out.index_copy(0, group.q_index, part)
    return out.unflatten(0, (q.shape[0], q.shape[2])).transpose(1, 2)


def varlen_reference(q: Tensor, k: Tensor, v: Tensor, group: Segments) -> Tensor:
    """What the kernels compute, segment by segment: q (sum of q, N, H), k and v (sum of k, M, H)."""
    parts = []
    bounds = zip(group.q_start.tolist(), group.k_start.tolist())
    for (q0, k0), (q1, k1) in pairwise(bounds):
        mask = torch.ones(q1 - q0, k1 - k0, dtype=torch.bool, device=q.device)
        if group.causal:
            mask = mask.tril((k1 - k0) - (q1 - q0))
        one = (x.transpose(0, 1) for x in (q[q0:q1], k[k0:k1], v[k0:k1]))
        parts.append(scaled_dot_product_attention(*one, attn_mask=mask, enable_gqa=True).transpose(0, 1))
    return torch.cat(parts)


def _kernel() -> Callable[[Tensor, Tensor, Tensor, Segments], Tensor]:
    try:
        from flash_attn import flash_attn_varlen_func
    except ImportError:
        from torch.nn.attention.varlen import varlen_attn

        def kernel(q, k, v, group):
            # A window of (-1, 0) is causal, aligned to the bottom right.
            window = (-1, 0) if group.causal else (-1, -1)
            lengths = (group.q_start, group.k_start, group.q_longest, group.k_longest)
            grouped = q.shape[1] != k.shape[1]
            return varlen_attn(q, k, v, *lengths, window_size=window, enable_gqa=grouped)
    else:

        def kernel(q, k, v, group):
            lengths = (group.q_start, group.k_start, group.q_longest, group.k_longest)
            return flash_attn_varlen_func(q, k, v, *lengths, causal=group.causal)

    return kernel
