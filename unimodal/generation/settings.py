"""How a reply is made: what the model may do in it, and how it chooses words and draws.

What the caller leaves open, the model's own configuration says (`model.sampling`, `model.writing`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Integral

from pydantic import ValidationError

from unimodal.diffusion.guidance import Guidance, check_nulls
from unimodal.errors import UserError
from unimodal.model.config import DropTable, Sampling, Writing
from unimodal.paths.choose import Choice
from unimodal.sequence.spans import Grid


@dataclass(frozen=True, slots=True)
class Settings:
    """How to reply.

    draws, writes  what the model may do; a reply that may only draw ends with its first picture
    plan           text tokens that a reply which may only draw may say before its picture; 0: it starts with
                   `<|image_start|>`
    max_tokens     text tokens any other reply may have; max_images pictures
    grid           size of a drawn picture in positions; None takes the last picture's size, or the
                   model's own
    """

    max_tokens: int = 256
    max_images: int = 4
    temperature: float = 0.0
    top_p: float = 1.0
    steps: int | None = None
    guidance: Guidance = field(default_factory=Guidance)
    grid: Grid | None = None
    draws: bool = True
    writes: bool = True
    plan: int = 0

    @property
    def choice(self) -> Choice:
        """How a token is chosen.  Raises UserError for a temperature below 0 or top_p outside (0, 1]."""
        try:
            return Choice(temperature=self.temperature, top_p=self.top_p)
        except ValidationError as error:
            raise UserError(
                f"temperature must be 0 or more, and top_p above 0 and at most 1; found {self.temperature} "
                f"and {self.top_p}"
            ) from error


def guidance_of(sampling: Sampling, text: float | None = None, image: float | None = None) -> Guidance:
    """These weights, or in the place of None the model's own."""
    return Guidance(
        sampling.guidance if text is None else text,
        sampling.image_guidance if image is None else image,
        sampling.guidance_interval,
        sampling.guidance_rescale,
    )


def check_guidance(sampling: Sampling, rates: DropTable) -> None:
    """Raise UserError if the model's own guidance needs a null that these rates never show in training."""
    for shown in (False, True):
        check_nulls(guidance_of(sampling).branches(shown), rates.model_dump())


def drawing(own: Writing, guidance: Guidance, steps: int | None, grid: Grid | None = None) -> Settings:
    """Replies that draw, after a plan if the model was trained to make one."""
    return Settings(
        writes=False,
        plan=own.plan,
        temperature=own.temperature,
        top_p=own.top_p,
        steps=steps,
        guidance=guidance,
        grid=grid,
    )


def talking(
    own: Writing, guidance: Guidance, steps: int | None, max_tokens: int, temperature: float | None
) -> Settings:
    """Replies in which the model decides what to do; a temperature of None is its own."""
    return Settings(
        max_tokens=max_tokens,
        temperature=own.temperature if temperature is None else temperature,
        top_p=own.top_p,
        steps=steps,
        guidance=guidance,
    )


def telling(own: Writing, max_tokens: int, temperature: float) -> Settings:
    """Replies of text alone."""
    return Settings(max_tokens=max_tokens, temperature=temperature, top_p=own.top_p, draws=False)


def seeds_of(seed: int | Sequence[int], asked: int, n: int = 1) -> list[int]:
    """Seeds of `n` replies to each of what was asked: those that follow one seed for all, or one for each.

    Raises UserError if there are several seeds, but not one for each.
    """
    first = [int(seed)] * asked if isinstance(seed, Integral) else [int(one) for one in seed]
    if len(first) != asked:
        raise UserError(f"{asked} prompts but {len(first)} seeds; give one seed, or one for each")
    return [own + i for own in first for i in range(n)]
