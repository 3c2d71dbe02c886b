"""The quantizers by name.

vq           one codebook, the nearest entry (van den Oord et al. 2017); `cosine` compares directions
fsq          each channel rounded to a few levels, no codebook (Mentzer et al. 2023)
lfq          the signs of the channels (Yu et al. 2023), kept busy by two entropy terms
residual     `depth` codebooks, each for what those before it left over (Lee et al. 2022)
grouped      `groups` codebooks, each for its own channels (product quantization)
multi_scale  one codebook for a picture of pictures, coarse to fine (see multi_scale.py)
"""

from inspect import Parameter, signature
from typing import Any

from unimodal.errors import UserError, nearest
from unimodal.images.codebooks import VQ, Grouped, Residual
from unimodal.images.multi_scale import MultiScale
from unimodal.images.quantizer import Quantizer
from unimodal.images.scalars import FSQ, LFQ

QUANTIZERS: dict[str, type[Quantizer]] = {
    "vq": VQ,
    "fsq": FSQ,
    "lfq": LFQ,
    "residual": Residual,
    "grouped": Grouped,
    "multi_scale": MultiScale,
}


def complete(config: dict[str, Any]) -> dict[str, Any]:
    """`config` ({"kind": ..., **arguments of that class}) with every default written out.

    Raises UserError for a kind or an argument that is not known, and for one that is missing.
    """
    kind = config.get("kind")
    if kind not in QUANTIZERS:
        raise UserError(
            f"the quantizer's kind is {kind!r}{nearest(str(kind), QUANTIZERS)}; known are "
            f"{', '.join(QUANTIZERS)}."
        )
    known = dict(signature(QUANTIZERS[kind]).parameters)
    del known["channels"]
    for key in config.keys() - known.keys() - {"kind"}:
        raise UserError(f"{kind} has no argument {key!r}{nearest(key, known)}; it has {', '.join(known)}.")
    for key, parameter in known.items():
        if parameter.default is Parameter.empty and key not in config:
            raise UserError(f"{kind} needs {key}; it has {', '.join(known)}.")
    defaults = {key: p.default for key, p in known.items() if p.default is not Parameter.empty}
    return {"kind": kind} | defaults | config


def build_quantizer(config: dict[str, Any], channels: int) -> Quantizer:
    """The quantizer of a configuration, new, for latents of `channels` channels.

    Raises UserError if it cannot be (see `complete`) or if a value is out of range.
    """
    arguments = complete(config)
    return QUANTIZERS[arguments.pop("kind")](channels, **arguments)
