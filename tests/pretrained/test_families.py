"""Configurations as they stand in well-known checkpoints, old spellings included."""

import json

import pytest

from unimodal.errors import UserError
from unimodal.model.config import ModelConfig
from unimodal.pretrained.families import decoder_fields, read_config

COMMON = {"hidden_act": "silu", "rms_norm_eps": 1e-5, "torch_dtype": "bfloat16", "use_cache": True}
LLAMA_3_2_1B = {
    **{"model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16},
    **{"num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128256},
    **{"max_position_embeddings": 131072, "rope_theta": 500000.0, "tie_word_embeddings": True},
    **{"attention_bias": False, "mlp_bias": False, "pretraining_tp": 1, "bos_token_id": 128000},
    "eos_token_id": [128001, 128008, 128009],
    "rope_scaling": {
        **{"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "rope_type": "llama3"},
        "original_max_position_embeddings": 8192,
    },
}
SMOLLM2_135M = {
    **{"model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30},
    **{"num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152, "rope_theta": 100000},
    **{"max_position_embeddings": 8192, "rope_scaling": None, "rope_interleaved": False},
    **{"is_llama_config": True, "tie_word_embeddings": True, "bos_token_id": 0, "eos_token_id": 0},
}
QWEN2_5_0_5B = {
    **{"model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24},
    **{"num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151936, "rope_theta": 1000000.0},
    **{"max_position_embeddings": 32768, "sliding_window": 32768, "use_sliding_window": False},
    **{"max_window_layers": 24, "use_mrope": False, "tie_word_embeddings": True, "rms_norm_eps": 1e-6},
}
QWEN3_0_6B = {
    **{"model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28},
    **{"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936},
    **{"max_position_embeddings": 40960, "rope_theta": 1000000, "rope_scaling": None},
    **{"sliding_window": None, "use_sliding_window": False, "max_window_layers": 28},
    **{"attention_bias": False, "tie_word_embeddings": True, "rms_norm_eps": 1e-6},
}
MISTRAL_7B = {
    **{"model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32},
    **{"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32000, "rope_theta": 10000.0},
    **{"max_position_embeddings": 32768, "sliding_window": 4096, "tie_word_embeddings": False},
}
SMOLLM3_3B = {
    **{"model_type": "smollm3", "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36},
    **{"num_attention_heads": 16, "num_key_value_heads": 4, "vocab_size": 128256, "rope_theta": 5000000.0},
    **{"max_position_embeddings": 65536, "no_rope_layers": [1, 1, 1, 0] * 9, "no_rope_layer_interval": 4},
    **{"attention_bias": False, "mlp_bias": False, "sliding_window": None, "use_sliding_window": False},
}


def fields(folder, config, max_length=None):
    (folder / "config.json").write_text(json.dumps(COMMON | config))
    found = decoder_fields(read_config(folder), max_length, folder)
    ModelConfig(**found)  # and they are a valid configuration
    return found


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (LLAMA_3_2_1B, {"qk_norm": False, "attention_bias": False, "rope_theta": 5e5, "rms_norm_eps": 1e-5}),
        (SMOLLM2_135M, {"head_dim": 64, "rope_scale": None, "tie_word_embeddings": True}),
        (
            QWEN2_5_0_5B,
            {"attention_bias": True, "attention_output_bias": False, "sliding_window": None, "head_dim": 64},
        ),
        (QWEN3_0_6B, {"qk_norm": True, "head_dim": 128, "attention_bias": False, "rope_theta": 1e6}),
        (SMOLLM3_3B, {"no_rope_layers": [1, 1, 1, 0] * 9, "tie_word_embeddings": True, "rope_theta": 5e6}),
    ],
)
def test_known_checkpoints(tmp_path, config, expected):
    found = fields(tmp_path, config)
    assert {name: found[name] for name in expected} == expected
    same = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    for name in (*same, "num_key_value_heads", "max_position_embeddings"):
        assert found[name] == config[name]


def test_llama3_scaling_is_read(tmp_path):
    scaling = fields(tmp_path, LLAMA_3_2_1B)["rope_scale"]
    assert scaling == LLAMA_3_2_1B["rope_scaling"]


def test_old_spelling_of_linear_scaling(tmp_path):
    old = {"rope_scaling": {"type": "linear", "factor": 2.0}}
    scaling = fields(tmp_path, SMOLLM2_135M | old)["rope_scale"]
    assert scaling["rope_type"] == "linear" and scaling["factor"] == 2.0


def test_windows(tmp_path):
    with pytest.raises(UserError, match=r"back 4096 positions.*may have 32768.*--max-length 4096"):
        fields(tmp_path, MISTRAL_7B)
    found = fields(tmp_path, MISTRAL_7B, max_length=2048)
    names = ("sliding_window", "max_length", "max_position_embeddings")
    assert [found[name] for name in names] == [4096, 2048, 32768]
    assert fields(tmp_path, MISTRAL_7B | {"sliding_window": None})["sliding_window"] is None
    sliding = {"use_sliding_window": True, "sliding_window": 1024, "max_window_layers": 20}
    with pytest.raises(UserError, match="back 1024 positions"):
        fields(tmp_path, QWEN2_5_0_5B | sliding)


def test_parts_of_a_head_that_do_not_turn_are_refused(tmp_path):
    with pytest.raises(UserError, match="partial_rotary_factor"):
        fields(tmp_path, SMOLLM2_135M | {"partial_rotary_factor": 0.5})
