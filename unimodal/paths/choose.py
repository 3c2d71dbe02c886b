"""Choosing codes, and tokens of text, from logits: temperature, top-k, top-p, guidance.

Chance is an exponential race (the Gumbel trick): the code with the largest logit - log(e), e exponential, is
drawn with its probability.  Every row takes its e from its own generator, so that a batch of n equals n
singles.

B rows, n positions, V codes.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import torch
from pydantic import Field
from torch import Tensor

from unimodal.data.document import Drop
from unimodal.diffusion.guidance import Guidance, combine
from unimodal.model.config import Strict

log = logging.getLogger("unimodal")


class Choice(Strict):
    """How a code is chosen.

    temperature  divides the logits; 0 takes the likeliest
    top_k        keep that many of the likeliest; null: all
    top_p        of what top_k keeps, keep the likeliest that together reach this probability
                 (Holtzman et al. 2020)
    """

    temperature: float = Field(1.0, ge=0)
    top_k: int | None = Field(None, ge=1)
    top_p: float = Field(1.0, gt=0, le=1)


def choose(logits: Tensor, generators: list[torch.Generator], choice: Choice) -> Tensor:
    """A code (B, n) for each position, from logits (B, n, V) of legal codes alone.

    generators  one a row, on the CPU; a choice that leaves nothing to chance draws nothing from them
    """
    if choice.temperature == 0:
        return logits.argmax(-1)
    kept = likeliest(logits / choice.temperature, choice.top_k, choice.top_p)
    return (kept + row_gumbel(generators, kept.shape[1:]).to(kept)).argmax(-1)


def row_gumbel(generators: list[torch.Generator], shape: tuple[int, ...]) -> Tensor:
    """Gumbel noise (B, *shape), every row from its own CPU generator."""
    race = [torch.empty(shape).exponential_(generator=generator) for generator in generators]
    return -torch.stack(race).log()


def likeliest(logits: Tensor, top_k: int | None = None, top_p: float = 1.0) -> Tensor:
    """Logits (..., V) with -inf in the place of codes that are not among the likeliest (see Choice)."""
    if (top_k is None or top_k >= logits.shape[-1]) and top_p == 1:
        return logits
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    if top_k is not None:
        ordered[..., top_k:] = float("-inf")
    if top_p < 1:
        probability = ordered.softmax(-1)
        reached = probability.cumsum(-1) - probability >= top_p
        ordered = ordered.masked_fill(reached, float("-inf"))
    return torch.empty_like(logits).scatter(-1, order, ordered)


def guided(
    say: Callable[[Tensor], Tensor], full: Tensor, nulls: dict[Drop, Tensor], guidance: Guidance
) -> Tensor:
    """Guided logits of hidden states (B, n, D), those of the full branch and of each null branch.

    say  hidden states to logits.  Softmax takes no notice of what is added to all logits of a position, so
         combining logits is combining log-probabilities.  Rescaling does take notice, and is left out.
    """
    others = {kind: say(hidden).float() for kind, hidden in nulls.items()}
    return combine(say(full).float(), others, replace(guidance, rescale=0.0))


def ramped(guidance: Guidance, share: float) -> Guidance:
    """Guidance on its way from none at share 0 to all of it at share 1, in a straight line."""
    text, image = (1 + share * (weight - 1) for weight in (guidance.text, guidance.image))
    return replace(guidance, text=text, image=image)


@cache
def say_steps_are_fixed(path: str, what: str, steps: int) -> None:
    """Log, once, that a number of steps was asked for where the picture itself decides it."""
    log.warning("steps = %d changes nothing: %s takes %s", steps, path, what)
