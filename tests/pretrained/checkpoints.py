"""Tiny checkpoints in transformers' own format, one a family, with weights in which every part matters."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers

from tests.documents import WORDS

SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
BASE = {"rope_type": "default", "rope_theta": 100.0}
LLAMA3 = {
    **{"rope_type": "llama3", "rope_theta": 100.0, "factor": 8.0, "low_freq_factor": 1.0},
    **{"high_freq_factor": 4.0, "original_max_position_embeddings": 32},
}
YARN = {
    **{"rope_type": "yarn", "rope_theta": 100.0, "factor": 4.0, "original_max_position_embeddings": 32},
    **{"beta_fast": 4.0, "beta_slow": 1.0},
}
# name -> model class, tokenizer, configuration
FAMILIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", "llama3", {"rope_parameters": LLAMA3, "tie_word_embeddings": False}),
    "llama-biased": (
        "LlamaForCausalLM",
        "llama3",
        {"rope_parameters": BASE, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    ),
    "llama-linear": (
        "LlamaForCausalLM",
        "llama3",
        {"rope_parameters": {**BASE, "rope_type": "linear", "factor": 3.0}, "rms_norm_eps": 0.1},
    ),
    "smollm2": ("LlamaForCausalLM", "chatml", {"rope_parameters": BASE, "tie_word_embeddings": True}),
    "smollm3": ("SmolLM3ForCausalLM", "chatml", {"rope_parameters": BASE, "no_rope_layers": [1, 0, 1]}),
    "qwen2": ("Qwen2ForCausalLM", "chatml", {"rope_parameters": BASE, "tie_word_embeddings": True}),
    "qwen2-yarn": ("Qwen2ForCausalLM", "chatml", {"rope_parameters": YARN, "tie_word_embeddings": False}),
    "qwen3": ("Qwen3ForCausalLM", "chatml", {"rope_parameters": BASE, "head_dim": 12}),
    "mistral": ("MistralForCausalLM", "sentencepiece", {"rope_parameters": BASE, "sliding_window": None}),
    "mistral-window": (
        "MistralForCausalLM",
        "sentencepiece",
        {"rope_parameters": BASE, "sliding_window": 24},
    ),
}
TEXTS = [" ".join(WORDS)] * 4 + ["user assistant system\n"] * 4
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HEADERS = "{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>{% endfor %}"
INST = "{% for m in messages %}[INST] {{ m['content'] }} [/INST]{% endfor %}"


def save_tokenizer(kind: str, folder: Path) -> int:
    """Write a tokenizer as `kind` of models have it and return how many tokens it has."""
    backend, special, end, template = {"chatml": _chatml, "llama3": _llama3, "sentencepiece": _pieces}[kind]()
    wrapped = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=end, additional_special_tokens=special
    )
    wrapped.chat_template = template
    wrapped.save_pretrained(folder)
    return len(wrapped)


def _byte_level(special: Sequence[str]) -> tokenizers.Tokenizer:
    """As the real ones: special tokens come after all others."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    )
    backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    return backend


def _chatml():
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    backend = _byte_level(special)
    backend.normalizer = normalizers.NFC()
    backend.add_tokens([AddedToken("<think>", normalized=False)])
    return backend, special, "<|im_end|>", CHATML


def _llama3():
    special = (
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
    )
    backend = _byte_level(special)
    backend.enable_truncation(max_length=8)
    backend.post_processor = processors.TemplateProcessing(
        "<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", backend.token_to_id(special[0]))]
    )
    return backend, special, "<|eot_id|>", HEADERS


def _pieces():
    """SentencePiece BPE with byte fallback, as `tokenizers` holds Llama 2's and Mistral's."""
    special = ("<unk>", "<s>", "</s>")
    backend = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    texts = [text.replace("\n", "") for text in TEXTS]
    backend.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=340, special_tokens=[*special, *fallback], show_progress=False)
    )
    raw = json.loads(backend.to_str())  # the trainer takes byte tokens for special ones
    raw["added_tokens"] = [token for token in raw["added_tokens"] if token["content"] in special]
    backend = tokenizers.Tokenizer.from_str(json.dumps(raw))
    backend.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    return backend, special, "</s>", INST


def make(name: str, folder: Path, rows: int = 0, **saving: Any) -> torch.nn.Module:
    """Save a random checkpoint of a family and return transformers' model of it.

    rows    of the embedding; as many as the tokenizer has tokens, if those are more
    saving  passed on to save_pretrained, as max_shard_size
    """
    class_name, tokenizer, changes = FAMILIES[name]
    rows = max(rows, save_tokenizer(tokenizer, folder))
    tokens = {"pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
    config_class = getattr(transformers, class_name.replace("ForCausalLM", "Config"))
    model = getattr(transformers, class_name)(
        config_class(vocab_size=rows, **SHAPE | tokens | changes)
    ).eval()
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        for weight in model.parameters():
            weight.normal_(1.0 if weight.dim() == 1 and weight.mean() == 1 else 0.0, 0.3, generator=generator)
    model.save_pretrained(folder, **saving)
    return model
