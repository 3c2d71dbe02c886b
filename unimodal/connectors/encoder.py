"""A small transformer encoder: positions that see each other and, in some layers, another sequence.

Pre-norm blocks of self-attention, optional cross-attention, and an MLP, through the one door to attention.
B rows, T positions, D width, N heads, H head width.
"""

import torch
from einops import rearrange
from torch import Tensor, nn

from unimodal.attention.door import Plan, attend, make_plan
from unimodal.errors import UserError
from unimodal.model.norm import RMSNorm
from unimodal.sequence.mask import together

EPS = 1e-6


class Attention(nn.Module):
    """Queries of one sequence, keys and values of another (`other` wide) or of the same."""

    def __init__(self, width: int, heads: int, other: int | None = None):
        super().__init__()
        if width % heads:
            raise UserError(f"a width of {width} cannot be shared by {heads} heads; expected a multiple.")
        self.heads = heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(other or width, width)
        self.v_proj = nn.Linear(other or width, width)
        self.o_proj = nn.Linear(width, width)
        self.q_norm, self.k_norm = RMSNorm(width // heads, EPS), RMSNorm(width // heads, EPS)

    def keys(self, other: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, S, N, H)."""
        return self.k_norm(self._split(self.k_proj(other))), self._split(self.v_proj(other))

    def forward(self, x: Tensor, keys: tuple[Tensor, Tensor], plan: Plan) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        q = self.q_norm(self._split(self.q_proj(x)))
        k, v = keys
        return self.o_proj(rearrange(attend(q, k.to(q.dtype), v.to(q.dtype), plan), "b t n h -> b t (n h)"))

    def _split(self, x: Tensor) -> Tensor:
        return rearrange(x, "b t (n h) -> b t n h", n=self.heads)


def plan_of(queries: Tensor, keys: Tensor | None = None) -> Plan:
    """From all real `queries` (B, T) every real position of `keys` (B, S), or of themselves, is seen."""
    half = torch.is_autocast_enabled(queries.device.type)
    marks = together(queries)
    return make_plan(marks, marks if keys is None else together(keys), half)


class Block(nn.Module):
    """Self-attention, cross-attention to a sequence `other` wide if that is given, MLP."""

    def __init__(self, width: int, heads: int, other: int | None = None):
        super().__init__()
        self.norm, self.attention = RMSNorm(width, EPS), Attention(width, heads)
        self.cross_norm = self.cross = None
        if other is not None:
            self.cross_norm, self.cross = RMSNorm(width, EPS), Attention(width, heads, other)
        self.mlp_norm = RMSNorm(width, EPS)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(
        self, x: Tensor, plan: Plan, other: Tensor | None = None, across: Plan | None = None
    ) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        y = self.norm(x)
        x = x + self.attention(y, self.attention.keys(y), plan)
        if self.cross is not None:
            x = x + self.cross(self.cross_norm(x), self.cross.keys(other), across)
        return x + self.mlp(self.mlp_norm(x))


class Encoder(nn.Module):
    """`depth` blocks; every `every`-th of them, from the first on, also looks at a sequence `other` wide."""

    def __init__(self, width: int, depth: int, heads: int, other: int | None = None, every: int = 1):
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(width, heads, other if number % every == 0 else None) for number in range(depth)
        )

    def forward(
        self, x: Tensor, mask: Tensor, other: Tensor | None = None, other_mask: Tensor | None = None
    ) -> Tensor:
        """(B, T, D) to (B, T, D); masks (B, T) and (B, S) say which positions are real."""
        plan = plan_of(mask)
        across = None if other is None else plan_of(mask, other_mask)
        for block in self.blocks:
            x = block(x, plan, other, across)
        return x
