"""A model that draws one way made into one that draws another: what it reads and writes stays.

Whatever the path, a finished picture is read by an affine map of its latents (`embed_clean`), so that map can
be handed on exactly.  How pictures are drawn is learned anew.

Text written token by token may become text by masked prediction, or the other way round: what is read stays,
and writing is learned anew from weights that know the language (as Gong et al. 2024, DiffuLLaMA, do).
"""

import logging

import torch

from unimodal.images.codec import Codec
from unimodal.model.config import ModelConfig
from unimodal.model.unified import UnifiedModel

log = logging.getLogger(__name__)
# Of a configuration: how pictures are drawn and text is written.
PATH = ("path", "path_options", "patch_size", "reference", "text_objective", "masked_text")


@torch.no_grad()
def with_path(model: UnifiedModel, config: ModelConfig, codec: Codec | None = None) -> UnifiedModel:
    """The same model, drawing and writing as `config` says, which differs in the fields of PATH at most.

    codec  in place of the model's own, if that has not what the path needs.  Tokens of as many numbers are
           read as before; of another number they are read by a new layer, which has to be trained.

    Weights of the path that have the same name and shape are kept if it is the same path.  What a path took
    from its codec (what the codes mean) is that of the codec in use.
    Raises UserError if path and codec do not go together.
    """
    turned = UnifiedModel(config, codec or model.codec, model.tower).train(model.training)
    weights = turned.state_dict()
    same = config.path == model.config.path
    # No buffers: what they hold is the codec's.
    kept = {
        name: value
        for name, value in model.named_parameters(remove_duplicate=False)
        if not name.startswith("codec.")
        and (same or not name.startswith("path."))
        and name in weights
        and value.shape == weights[name].shape
    }
    turned.load_state_dict(weights | kept)
    own = dict(model.named_parameters())
    lost = [name for name in own if name.startswith("path.") and name in weights and name not in kept]
    if same and lost:
        log.warning("path %s: %s have another shape now, and begin anew", config.path, ", ".join(lost))
    read = _hand_on_reading(model, turned)
    new = sum(value.numel() for name, value in weights.items() if name not in kept and "codec." not in name)
    log.info(
        "path %s, before %s: %s weights are new, pictures are read %s",
        config.path,
        model.config.path,
        f"{new:,}",
        "as before" if read else "by a new layer, since their tokens have another size",
    )
    return turned


def _hand_on_reading(model: UnifiedModel, turned: UnifiedModel) -> bool:
    """Let finished pictures be embedded as before.  False if their tokens have another size."""
    old, new = model.path, turned.path
    width = old.latent_in.in_features
    if new.latent_in.in_features != width:
        return False
    nothing = old.latent_in.weight.new_zeros(1, width)
    one_each = torch.eye(width).to(nothing)
    if torch.equal(old.embed_clean(one_each), new.embed_clean(one_each)):
        return True
    constant = old.embed_clean(nothing)
    slopes = old.embed_clean(one_each) - constant
    new.latent_in.weight.copy_(slopes.T)
    new.latent_in.bias.add_((constant - new.embed_clean(nothing))[0])
    return True
