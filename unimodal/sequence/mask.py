"""The one mask rule: who may look at whom.

Every position carries four marks.  All schemes of this project (causal text, images whose positions see
each other, noised training copies that nothing else sees, scales, packed documents, padding) are values
of these marks; the rule itself never changes.  Every attention backend is derived from it and tested
against it.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

PADDING = -1


@dataclass(frozen=True, slots=True)
class Marks:
    """Marks of T positions in B rows, each tensor (B, T).

    document  which document the position belongs to; PADDING for none
    step      when it is written; positions written together share one
    span      which run of one kind it belongs to
    hidden    whether only its own span may look at it
    """

    document: Tensor
    step: Tensor
    span: Tensor
    hidden: Tensor

    def map(self, function) -> "Marks":
        """Apply one tensor function to all four marks."""
        return Marks(*(function(getattr(self, field.name)) for field in fields(self)))

    def to(self, device) -> "Marks":
        """Move to a device."""
        return self.map(lambda mark: mark.to(device))

    @property
    def shape(self) -> torch.Size:
        """(B, T)."""
        return self.document.shape


def rule(q_document, q_step, q_span, k_document, k_step, k_span, k_hidden):
    """Same document, written by now, and not hidden from us.  Broadcasts over its arguments."""
    seen = (k_step <= q_step) & ((k_span == q_span) | ~k_hidden)
    return (q_document == k_document) & (q_document != PADDING) & seen


def may_look(q: Marks, k: Marks) -> Tensor:
    """Evaluate the rule for all pairs: bool (B, Tq, Tk)."""
    q_args = (mark.unsqueeze(-1) for mark in (q.document, q.step, q.span))
    k_args = (mark.unsqueeze(-2) for mark in (k.document, k.step, k.span, k.hidden))
    return rule(*q_args, *k_args)


def together(real: Tensor) -> Marks:
    """Marks of positions that all see each other where `real` (B, T) is true; the others are padding."""
    zero = torch.zeros_like(real, dtype=torch.long)
    return Marks(torch.where(real, zero, zero + PADDING), zero, zero, torch.zeros_like(real))
