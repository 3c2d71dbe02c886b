"""Choosing the next token from logits."""

import torch
from torch import Tensor

from unimodal.errors import UserError


def choose(
    logits: Tensor,
    generators: list[torch.Generator],
    temperature: float = 0.0,
    top_p: float = 1.0,
) -> Tensor:
    """One token a row (B,) from logits (B, V).

    temperature  0 takes the likeliest
    top_p        keep the likeliest tokens that together reach this probability (Holtzman et al. 2020)
    generators   one a row, on the CPU, so that a row's text does not depend on its neighbours
    Raises UserError for a temperature below 0 or top_p outside (0, 1].
    """
    if temperature < 0 or not 0 < top_p <= 1:
        raise UserError(f"temperature must be >= 0 and 0 < top_p <= 1, got {temperature} and {top_p}")
    if temperature == 0:
        return logits.argmax(-1)
    probability = (logits.float() / temperature).softmax(-1).cpu()
    if top_p < 1:
        ordered, order = probability.sort(-1, descending=True)
        beyond = ordered.cumsum(-1) - ordered >= top_p
        probability = torch.zeros_like(probability).scatter(-1, order, ordered.masked_fill(beyond, 0.0))
    picks = [torch.multinomial(row, 1, generator=g) for row, g in zip(probability, generators)]
    return torch.cat(picks).to(logits.device)
