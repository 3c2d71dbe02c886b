"""Denoisers: what draws a picture from a condition outside the language model.  One line each."""

from pkgutil import resolve_name

DENOISERS = {
    "dit": "unimodal.denoisers.dit:DiT",
    "flux": "unimodal.denoisers.flux:Flux",
    "qwen_image": "unimodal.denoisers.qwen_image:QwenImage",
    "sana": "unimodal.denoisers.sana:Sana",
    "sd3": "unimodal.denoisers.sd3:SD3",
}


def load_denoiser(name: str) -> type:
    """The class of a denoiser, imported when it is needed."""
    return resolve_name(DENOISERS[name])
