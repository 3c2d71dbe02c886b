"""A codec put in the place of the one a model was trained with."""

import logging

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from unimodal.errors import UserError
from unimodal.images.codec import Codec
from unimodal.model.unified import UnifiedModel

log = logging.getLogger(__name__)
# Fine-tuned on other pictures, the codec of shapes-base keeps 0.97 of its latents; trained anew, 0.70.
RELATED = 0.85
RELATED_CODES = 0.5  # of codes in place; other entries at a codebook's numbers agree on next to none


def fitting(codec: Codec, model: UnifiedModel) -> Codec:
    """The codec, if the model's path can use it as its own.

    Raises UserError if its latents or codes differ in kind; says so in the log if they differ in meaning, so
    that the model has to learn to read anew.
    """
    told, wanted = (_kind(one) for one in (codec, model.codec))
    if told != wanted:
        raise UserError(
            f"model.codec has {told}, but the model was made for one with {wanted}. Use a codec fine-tuned "
            "from the model's own."
        )
    if codec.discrete and (alike := same_codes(codec, model.codec)) < RELATED_CODES:
        log.warning(
            "model.codec: only %.2f of its codes are those of the model's own; what codes look like is "
            "learned anew, which a codec fine-tuned from that one would spare",
            alike,
        )
    elif (alike := likeness(codec, model.codec)) < RELATED:
        log.warning(
            "model.codec: its latents agree with those of the model's own to %.2f only; a codec fine-tuned "
            "from that one would be read at once, and this one is learned anew",
            alike,
        )
    return codec


def _kind(codec: Codec) -> str:
    """What a path relies on: the size of a latent, and which codes there are."""
    said = f"{codec.channels} channels at stride {codec.stride}"
    if not codec.discrete:
        return said
    books = "one codebook" if codec.shared else "a codebook a map"
    shares = ", ".join(f"{share:g}" for share in codec.shares)
    return f"{said}, {codec.vocabulary} codes in {books}, maps of {shares} of its side"


@torch.no_grad()
def likeness(first: Codec, second: Codec) -> float:
    """Correlation in [-1, 1] of the latents that two codecs of one kind give to a few smooth pictures."""
    pixels, both = _smooth(first), []
    for codec in (first, second):
        raw = codec.to_raw(pixels.to(codec.mean)) / codec.std[:, None, None]
        both.append((raw - raw.mean((0, 2, 3), keepdim=True)).cpu().flatten().double())
    return float(torch.corrcoef(torch.stack(both))[0, 1])


@torch.no_grad()
def same_codes(first: Codec, second: Codec) -> float:
    """Share in [0, 1] of the codes of a few smooth pictures that two codecs with codes agree on."""
    codes = [codec.encode(_smooth(first).to(codec.mean)).cpu() for codec in (first, second)]
    return float((codes[0] == codes[1]).double().mean())


def _smooth(codec: Codec) -> Tensor:
    """A few pictures without edges, (8, 3, H, W) in [-1, 1]."""
    side, chance = 4 * codec.stride, torch.Generator().manual_seed(0)
    return interpolate(torch.rand(8, 3, 8, 8, generator=chance) * 2 - 1, (side, side), mode="bilinear")
