"""The configuration of transformers that computes what the text part of one of our models computes."""

from typing import Any

from unimodal.errors import UserError
from unimodal.model.config import ModelConfig
from unimodal.pretrained.families import FAMILIES, SCALINGS

SAME_NAMES = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "head_dim", "rms_norm_eps", "tie_word_embeddings"),
)
# Switches of a family that its configuration class has and others lack.
OWN_NAMES = {
    "llama": ("mlp_bias",),
    "mistral": ("sliding_window",),
    "qwen2": (),
    "qwen3": (),
    "smollm3": ("mlp_bias", "no_rope_layers"),
}


def text_config(config: ModelConfig, **tokens: Any) -> Any:
    """Transformers' configuration for the text part of a model.

    tokens  special token ids and the like, put into it as they are
    Raises UserError for a mixture of switches that no family has.
    """
    import transformers
    from huggingface_hub.errors import StrictDataclassError

    family = family_of(config)
    said = {name: getattr(config, name) for name in (*SAME_NAMES, *OWN_NAMES[family])}
    if config.max_position_embeddings:
        said["max_position_embeddings"] = config.max_position_embeddings
    if family in ("llama", "qwen3", "smollm3"):
        said["attention_bias"] = config.attention_output_bias
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": config.rope_theta}
    if scaling := config.rope_scale:
        kind = scaling.rope_type
        keys = ("rope_type", "factor", "original_max_position_embeddings", *SCALINGS[kind])
        rope |= {key: getattr(scaling, key) for key in keys if getattr(scaling, key) is not None}
        if kind == "yarn":
            rope["attention_factor"] = scaling.attention_factor
    try:
        return getattr(transformers, FAMILIES[family])(**said, rope_parameters=rope, **tokens)
    except (ValueError, StrictDataclassError) as error:
        raise UserError(
            f"transformers' {FAMILIES[family]} does not take this model's shape: {error}"
        ) from error


def family_of(config: ModelConfig) -> str:
    """The family whose decoder has the switches of a model.  Raises UserError if none has."""
    biases = (config.attention_bias, config.attention_output_bias)
    special = {
        "qwen3": config.qk_norm,
        "qwen2": biases == (True, False),
        "smollm3": config.no_rope_layers is not None,
        "mistral": config.sliding_window is not None,
    }
    family, *others = [name for name, switch in special.items() if switch] or ["llama"]
    no_bias, all_biases = biases == (False, False), biases == (True, True)
    fits = {
        "llama": no_bias or all_biases,
        "mistral": no_bias and not config.mlp_bias,
        "qwen2": not config.mlp_bias,
        "qwen3": (no_bias or all_biases) and not config.mlp_bias,
        "smollm3": no_bias or all_biases,
    }
    if others or not fits[family]:
        switches = ("qk_norm", "attention_bias", "attention_output_bias", "mlp_bias")
        switches += ("no_rope_layers", "sliding_window")
        found = ", ".join(f"{name} = {getattr(config, name)}" for name in switches)
        raise UserError(
            f"the text part cannot be exported: no family of transformers ({', '.join(FAMILIES)}) has this "
            f"mixture: {found}."
        )
    return family
