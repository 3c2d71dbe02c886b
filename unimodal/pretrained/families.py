"""Families of language models: their configurations as ours.

All are one decoder with different switches: biases (Qwen2), QK-norm (Qwen3), layers without rotary positions
(SmolLM3), stretched frequencies (Llama 3.1).  What our decoder does not compute is refused, never ignored.
Defaults and old spellings are left to transformers' own configuration classes.
"""

import math
from pathlib import Path
from typing import Any

from unimodal.errors import UserError, nearest
from unimodal.pretrained.checkpoint import read_json

# model_type -> transformers' class of the configuration.  SmolLM and SmolLM2 say `llama`.
FAMILIES = {
    "llama": "LlamaConfig",
    "mistral": "MistralConfig",
    "qwen2": "Qwen2Config",
    "qwen3": "Qwen3Config",
    "smollm3": "SmolLM3Config",
}
# Ways to stretch rotary frequencies -> what they say besides factor and original length.
SCALINGS = {
    "linear": (),
    "llama3": ("low_freq_factor", "high_freq_factor"),
    "yarn": ("beta_fast", "beta_slow", "truncate"),
}


def known_families() -> str:
    """Names for a message."""
    return f"{', '.join(FAMILIES)} (SmolLM and SmolLM2 are of the family llama, Qwen2.5 of qwen2)"


def read_config(folder: Path) -> Any:
    """The configuration of a checkpoint, as transformers' class of its family.

    Raises UserError if there is none, its family is not known, or it asks for what no decoder here does.
    """
    raw = read_json(folder / "config.json", "expected a checkpoint in transformers' format")
    family = raw.get("model_type")
    if family == "unimodal":
        raise UserError(
            f"{folder} is a unified model already. Train it with model.init_from={folder}, or give the "
            "folder of a language model."
        )
    if family not in FAMILIES:
        raise UserError(
            f"{folder}: the model family is {family!r}{nearest(str(family), FAMILIES)}; known are "
            f"{known_families()}."
        )
    if method := raw.get("quantization_config"):
        name = method.get("quant_method", method) if isinstance(method, dict) else method
        raise UserError(
            f"{folder}: its weights are quantized ({name}); expected float32, float16 or bfloat16. Take the "
            "checkpoint that it was quantized from."
        )
    import transformers
    from huggingface_hub.errors import StrictDataclassError

    try:
        config = getattr(transformers, FAMILIES[family]).from_dict(raw)
    except (ValueError, TypeError, KeyError, AttributeError, StrictDataclassError) as error:
        raise UserError(
            f"{folder / 'config.json'} is no configuration of a {family} model: {error}"
        ) from error
    if config.hidden_act not in ("silu", "swish"):
        raise UserError(
            f"{folder}: hidden_act is {config.hidden_act!r}, but this decoder computes silu (SwiGLU) only."
        )
    return config


def decoder_fields(config: Any, max_length: int | None, where: Path) -> dict[str, Any]:
    """Fields of a ModelConfig for the configuration of a family.

    max_length  rotary positions of the longest document, if fewer than the checkpoint allows
    Raises UserError for rotary positions that are not known, and for a sliding window shorter than the
    longest document: attention here looks at everything, so the two agree only inside the window.
    """
    family = config.model_type
    biased = family == "qwen2" or bool(getattr(config, "attention_bias", False))
    length = max_length or config.max_position_embeddings
    if length > config.max_position_embeddings:
        raise UserError(
            f"{where}: --max-length {length}, but its weights were made for {config.max_position_embeddings} "
            "positions (max_position_embeddings). Give no more than that, or leave --max-length out."
        )
    layers = getattr(config, "no_rope_layers", None)
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_parameters["rope_theta"],
        "rope_scale": _rope_scale(config, where),
        "no_rope_layers": [int(bool(n)) for n in layers] if layers and not all(layers) else None,
        "qk_norm": family == "qwen3",
        "attention_bias": biased,
        "attention_output_bias": biased and family != "qwen2",
        "mlp_bias": bool(getattr(config, "mlp_bias", False)),
        "tie_word_embeddings": config.tie_word_embeddings,
        "max_position_embeddings": config.max_position_embeddings,
        "sliding_window": _window(config, length, where),
        "max_length": max_length,
    }


def _window(config: Any, length: int, where: Path) -> int | None:
    window = getattr(config, "sliding_window", None)
    layered = getattr(config, "layer_types", None)
    if window is None or (layered and "sliding_attention" not in layered):
        return None
    if length > window:
        raise UserError(
            f"{where}: its attention looks back {window} positions (sliding_window), but documents may have "
            f"{length}. This decoder always looks at the whole document, which is the same only up to the "
            f"window: give --max-length {window} (longer documents are then refused), or a checkpoint "
            "without a window."
        )
    return window


def _rope_scale(config: Any, where: Path) -> dict[str, Any] | None:
    rope = config.rope_parameters
    kind = rope.get("rope_type", "default")
    if (rope.get("partial_rotary_factor") or 1.0) != 1.0:
        raise UserError(
            f"{where}: rotary positions turn only {rope['partial_rotary_factor']} of each head "
            "(partial_rotary_factor); this decoder turns all of it."
        )
    if kind == "default":
        return None
    if kind not in SCALINGS:
        raise UserError(
            f"{where}: rotary positions are scaled by {kind!r}; known are {', '.join(SCALINGS)} and none."
        )
    keys = ("factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor")
    fields = {key: rope[key] for key in keys if rope.get(key) is not None}
    if kind == "yarn":
        fields |= {
            key: rope[key] for key in ("beta_fast", "beta_slow", "truncate") if rope.get(key) is not None
        }
        # Some configurations say the two lengths instead of their ratio.
        fields.setdefault("factor", config.max_position_embeddings / rope["original_max_position_embeddings"])
        fields["attention_factor"] = rope.get("attention_factor") or _attention_factor(fields["factor"], rope)
    return {"rope_type": kind} | fields


def _attention_factor(factor: float, rope: dict[str, Any]) -> float:
    """How much YaRN scales queries and keys: 0.1 ln(factor) + 1 (Peng et al. 2023, eq. 22), or DeepSeek's."""

    def scale(slope: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * slope * math.log(factor) + 1.0

    above, below = rope.get("mscale"), rope.get("mscale_all_dim")
    return scale(above) / scale(below) if above and below else scale(1.0)
