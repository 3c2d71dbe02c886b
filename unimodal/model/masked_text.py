"""Text by masked prediction: which tokens of a block training hides, and what that weighs.

A share of each block, uniform between 0 and 1, is hidden and said from what is left of the block and all
before it (LLaDA, Nie et al. 2025; beside pictures MMaDA, Yang et al. 2025, and Muddit, Shi et al. 2025; block
by block as Arriola et al. 2025).  Each block weighs the same however much of it is hidden, by one
over the share, which makes the loss a bound on the text's likelihood.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from unimodal.sequence.spans import TextBlock

HIDDEN = -1  # in the place of a token that is not known


@dataclass(frozen=True, slots=True)
class Hidden:
    """The M hidden tokens of a pack: their positions `at` (M,), and the weight (M,) of each one's loss."""

    at: Tensor
    weight: Tensor


def hide(blocks: list[TextBlock], generator: torch.Generator) -> Hidden:
    """Hide a random set of each block: a random share of it, rounded up, so one token at least.

    The weights of a block's hidden tokens add up to its length.
    """
    device = generator.device
    lengths = torch.tensor([block.length for block in blocks], dtype=torch.long, device=device)[:, None]
    starts = torch.tensor([block.start for block in blocks], dtype=torch.long, device=device)[:, None]
    share = torch.rand(len(blocks), 1, generator=generator, device=device)
    counts = (share * lengths).ceil().long().clamp_min(1)
    longest = max((block.length for block in blocks), default=0)
    order = torch.rand(len(blocks), longest, generator=generator, device=device)
    places = torch.arange(longest, device=device)
    rank = order.masked_fill(places >= lengths, 2.0).argsort(1).argsort(1)
    chosen = rank < counts
    return Hidden((starts + places)[chosen], (lengths / counts).expand_as(chosen)[chosen])
