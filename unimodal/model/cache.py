"""A preallocated key/value cache for a ragged batch of conversations.

Rows have their own lengths.  A forward writes its new positions right behind each row's length; whether
they stay is decided afterwards by `commit`.  A denoising step never commits, so the next one overwrites
it and the context is computed once.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from unimodal.sequence.mask import PADDING, Marks


@dataclass(slots=True)
class KVCache:
    """Keys and values of B rows with room for `room` positions each.

    k, v    one (B, room, M, H) tensor a layer
    marks   Marks (B, room); unwritten positions belong to no document
    length  (B,) committed positions of each row, int64 on the CPU
    """

    k: list[Tensor]
    v: list[Tensor]
    marks: Marks
    length: Tensor

    @classmethod
    def empty(cls, layers: int, rows: int, room: int, heads: int, head_dim: int, like: Tensor) -> "KVCache":
        """Allocate a cache with the device and dtype of `like`."""
        shape = (rows, room, heads, head_dim)
        k, v = ([like.new_zeros(shape) for _ in range(layers)] for _ in range(2))
        return cls(k, v, _no_marks(rows, room, like.device), torch.zeros(rows, dtype=torch.long))

    @property
    def rows(self) -> int:
        """Number of conversations."""
        return len(self.length)

    @property
    def room(self) -> int:
        """Positions allocated for each row."""
        return self.marks.shape[1]

    def reserve(self, count: int) -> None:
        """Make room for `count` more positions after the longest row, doubling when it must grow."""
        need = int(self.length.max()) + count
        if need <= self.room:
            return
        grow = max(need, 2 * self.room) - self.room

        def wider(x: Tensor, fill: float = 0) -> Tensor:
            extra = x.new_full((x.shape[0], grow, *x.shape[2:]), fill)
            return torch.cat([x, extra], dim=1)

        self.k, self.v = [wider(k) for k in self.k], [wider(v) for v in self.v]
        marks = self.marks
        self.marks = Marks(
            wider(marks.document, PADDING), wider(marks.step), wider(marks.span), wider(marks.hidden)
        )

    def place(self, marks: Marks) -> tuple[Tensor, Tensor, Marks]:
        """Enter the marks of (B, T) new positions behind each row.

        Returns the row index (B, 1) and slot (B, T) they take, and the marks of all keys a forward may
        need, cut to the longest row.
        """
        self.reserve(marks.shape[1])
        device = self.marks.document.device
        row = torch.arange(self.rows, device=device)[:, None]
        slot = self.length.to(device)[:, None] + torch.arange(marks.shape[1], device=device)
        for name in ("document", "step", "span", "hidden"):
            getattr(self.marks, name)[row, slot] = getattr(marks, name)
        end = int(self.length.max()) + marks.shape[1]
        # Whatever an uncommitted forward left behind the new positions belongs to nobody.
        behind = torch.arange(end, device=device)[None] >= slot[:, -1:] + 1
        self.marks.document[:, :end].masked_fill_(behind, PADDING)
        return row, slot, self.marks.map(lambda mark: mark[:, :end])

    def write(self, layer: int, row: Tensor, slot: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store k, v (B, T, M, H) of one layer; return all keys and values up to the longest row."""
        self.k[layer][row, slot] = k.to(self.k[layer].dtype)
        self.v[layer][row, slot] = v.to(self.v[layer].dtype)
        end = int(self.length.max()) + k.shape[1]
        return self.k[layer][:, :end], self.v[layer][:, :end]

    def commit(self, counts: Tensor) -> None:
        """Keep the first `counts` (B,) positions of the last forward."""
        self.length = self.length + counts.cpu()

    def select(self, rows: list[int]) -> "KVCache":
        """A copy that holds the given rows (repeats allowed), cut to their longest."""
        end = max(int(self.length[rows].max()), 1)
        index = torch.tensor(rows, device=self.marks.document.device)
        k, v = ([x[index, :end].clone() for x in side] for side in (self.k, self.v))
        return KVCache(k, v, self.marks.map(lambda mark: mark[index, :end].clone()), self.length[rows])


def stack(caches: list[KVCache]) -> KVCache:
    """Rows of several caches under one another, in a new cache."""

    def join(pieces: list[Tensor]) -> Tensor:
        width = max(piece.shape[1] for piece in pieces)
        rows = [torch.nn.functional.pad(p, (0, 0) * (p.dim() - 2) + (0, width - p.shape[1])) for p in pieces]
        return torch.cat(rows)

    layers = range(len(caches[0].k))
    marks = [cache.marks for cache in caches]
    documents = [_pad_documents(m.document, max(m.document.shape[1] for m in marks)) for m in marks]
    return KVCache(
        [join([cache.k[layer] for cache in caches]) for layer in layers],
        [join([cache.v[layer] for cache in caches]) for layer in layers],
        Marks(
            torch.cat(documents), *(join([getattr(m, n) for m in marks]) for n in ("step", "span", "hidden"))
        ),
        torch.cat([cache.length for cache in caches]),
    )


def _pad_documents(document: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(document, (0, width - document.shape[1]), value=PADDING)


def _no_marks(rows: int, room: int, device) -> Marks:
    zeros = torch.zeros(rows, room, dtype=torch.long, device=device)
    return Marks(
        zeros + PADDING,
        zeros.clone(),
        zeros.clone(),
        torch.zeros(rows, room, dtype=torch.bool, device=device),
    )
