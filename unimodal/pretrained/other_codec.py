"""A model with another codec of the same kind, as a base for adapters, which hold no codec of their own."""

from pathlib import Path

from safetensors import SafetensorError

from unimodal.errors import UserError
from unimodal.images.folder import load_codec
from unimodal.model.change_path import with_path
from unimodal.model.folder import find_model, load_model, model_type, save_model
from unimodal.model.weights import Weights
from unimodal.pretrained.checkpoint import check_free
from unimodal.pretrained.choices import own_dtype
from unimodal.training.checkpoint import whole_folder
from unimodal.training.codec_swap import fitting, likeness


def swap_codec(base: str | Path, codec: str | Path, out: Path) -> dict[str, str]:
    """Write `base` with another codec to `out` and return what it is, by name, for people to read.

    base   a shipped model's name, a folder or a hub id
    codec  the same; of the same kind as the base's own: channels, stride, codes

    Every other weight stays as it is, to the bit.  Whether the model can read and draw with it is a matter of
    training: a codec trained on from the base's own, with `loss.anchor`, does not have to be learned anew.
    Raises UserError if anything does not fit; nothing is left at `out` then.
    """
    check_free(out)
    folder = find_model(str(base))
    if (found := model_type(folder)) != "unimodal":
        raise UserError(
            f"{base} is of the kind {found}, whose codec is its denoiser's. Train that with the codec in "
            "model.codec of its recipe."
        )
    model, tokenizer = load_model(folder)
    new = fitting(load_codec(codec), model)
    alike = likeness(new, model.codec)
    try:
        with whole_folder(out) as partial:
            save_model(partial, with_path(model, model.config, new), tokenizer, own_dtype(Weights(folder)))
    except (OSError, SafetensorError) as error:
        raise UserError(f"{out} could not be written, and nothing was left there: {error}") from error
    return {"model": str(base), "codec": str(codec), "latents": f"agree with the model's own to {alike:.2f}"}
