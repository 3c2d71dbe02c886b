"""Guidance: push a prediction away from what the model says without its conditions.

Branches are the same picture under less and less condition: everything, the text gone, text and read
images gone.  They are computed in one batched forward; this file only decides which are needed and how
they are combined (Ho and Salimans 2022; for two conditions Brooks et al. 2023, InstructPix2Pix, eq. 3).
Every operation is per picture, so a batch of n equals n single pictures.
"""

from dataclasses import dataclass

from torch import Tensor

from unimodal.data.document import Drop
from unimodal.errors import UserError


@dataclass(frozen=True, slots=True)
class Guidance:
    """How strongly to follow the text and the read images; 1 is no guidance.

    interval   guide only while low < t <= high (Kynkaanniemi et al. 2024)
    rescale    0 to 1: pull each picture's guided prediction back to the spread of the plain one
               (Lin et al. 2024, section 3.4), per picture
    """

    text: float = 1.0
    image: float = 1.0
    interval: tuple[float, float] = (0.0, 1.0)
    rescale: float = 0.0

    def branches(self, has_image: bool) -> list[Drop]:
        """Null branches needed besides the full one, in the order `combine` takes them."""
        if has_image and self.image != 1:
            return ["text", "both"] if self.text != self.image else ["both"]
        if self.text != 1:
            return ["text"]
        return []

    def applies(self, t: float) -> bool:
        """Whether t lies in the interval."""
        low, high = self.interval
        return low < t <= high


def combine(full: Tensor, nulls: dict[Drop, Tensor], guidance: Guidance) -> Tensor:
    """Guided prediction from predictions (B, P, C) of the full branch and of the null branches.

        both + image (text_null - both) + text (full - text_null)

    where a branch that is not needed is left out.  Works in x0, velocity or eps alike, being affine.
    """
    if not nulls:
        return full
    if "both" not in nulls:
        guided = nulls["text"] + guidance.text * (full - nulls["text"])
    elif "text" not in nulls:
        guided = nulls["both"] + guidance.text * (full - nulls["both"])
    else:
        both, text = nulls["both"], nulls["text"]
        guided = both + guidance.image * (text - both) + guidance.text * (full - text)
    if guidance.rescale and full[0].numel() > 1:
        axes = tuple(range(1, full.dim()))
        back = guided * full.std(axes, keepdim=True) / guided.std(axes, keepdim=True).clamp_min(1e-8)
        guided = guidance.rescale * back + (1 - guidance.rescale) * guided
    return guided


def check_nulls(branches: list[Drop], drop_rates: dict[str, float]) -> None:
    """Refuse a null branch that training never showed the model."""
    for branch in branches:
        if not drop_rates[branch]:
            raise UserError(
                f"this guidance needs the model's prediction with {branch} dropped, but it was trained with "
                f"model.drop.{branch} = 0. Set guidance to 1, or train with that drop rate above 0."
            )
