"""Half a gigabyte of weights becomes a unified model, and is loaded, in hardly more memory than it takes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from unimodal.images.codec import PixelPatches

LAYERS, WIDTH, INNER, ROWS = 9, 1024, 2816, 24_000
CONFIG = {
    "model_type": "qwen2",
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "vocab_size": ROWS,
    "max_position_embeddings": 4096,
    "rope_theta": 10_000.0,
    "tie_word_embeddings": True,
}
PEAK = """
def resident(field):
    text = open("/proc/self/status").read()
    return int(text.split(field + ":")[1].split()[0]) * 1024
"""


def checkpoint(folder: Path) -> int:
    """Write a checkpoint whose every tensor is its number in the file; bytes of its weights."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*alphabet, *(f"x{number}" for number in range(ROWS - len(alphabet)))]  # so the table must grow
    backend = Tokenizer(models.BPE({word: number for number, word in enumerate(words)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.save(str(folder / "tokenizer.json"))
    kv = 4 * WIDTH // 16
    block = {
        "self_attn.q_proj.weight": (WIDTH, WIDTH),
        "self_attn.q_proj.bias": (WIDTH,),
        "self_attn.k_proj.weight": (kv, WIDTH),
        "self_attn.k_proj.bias": (kv,),
        "self_attn.v_proj.weight": (kv, WIDTH),
        "self_attn.v_proj.bias": (kv,),
        "self_attn.o_proj.weight": (WIDTH, WIDTH),
        "mlp.gate_proj.weight": (INNER, WIDTH),
        "mlp.up_proj.weight": (INNER, WIDTH),
        "mlp.down_proj.weight": (WIDTH, INNER),
        "input_layernorm.weight": (WIDTH,),
        "post_attention_layernorm.weight": (WIDTH,),
    }
    shards = [{"model.embed_tokens.weight": (ROWS, WIDTH), "model.norm.weight": (WIDTH,)}]
    shards += [{f"model.layers.{n}.{name}": size for name, size in block.items()} for n in range(LAYERS)]
    index, total = {}, 0
    for number, shapes in enumerate(shards):
        file = f"model-{number}.safetensors"
        tensors = {name: torch.full(size, float(number)) for name, size in shapes.items()}
        save_file(tensors, folder / file)
        index |= dict.fromkeys(shapes, file)
        total += sum(tensor.nbytes for tensor in tensors.values())
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return total


def peak(code: str) -> tuple[int, int]:
    """Memory of a new process before its work and at its highest, in bytes."""
    done = subprocess.run([sys.executable, "-c", PEAK + code], capture_output=True, text=True, check=True)
    before, highest = done.stdout.split()[-2:]
    return int(before), int(highest)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from /proc")
def test_init_and_load_take_little_more_than_the_weights(tmp_path):
    weights = checkpoint(tmp_path / "llm")
    assert weights > 500e6
    PixelPatches(4).save(tmp_path / "codec")
    _, highest = peak(
        "from unimodal.pretrained.initialise import init_model\n"
        "from pathlib import Path\n"
        "before = resident('VmRSS')\n"
        f"root = Path({str(tmp_path)!r})\n"
        "init_model(root / 'llm', root / 'codec', root / 'ours')\n"
        "print(before, resident('VmHWM'))"
    )
    assert highest < 1.2 * weights  # the interpreter and PyTorch included
    stored = json.loads((tmp_path / "ours" / "model.safetensors.index.json").read_text())["weight_map"]
    for ours, number in (
        ("decoder.layers.4.experts.0.mlp.up_proj.weight", 5.0),
        ("decoder.norm.weight", 0.0),
    ):
        with safe_open(tmp_path / "ours" / stored[ours], "pt") as file:
            assert (file.get_tensor(ours) == number).all()
    one = 4 * ROWS * WIDTH  # bytes of the largest tensor as it is stored, from which a narrower one is made
    for dtype, share, beside in (("float32", 1.0, 0), ("bfloat16", 0.5, one)):
        before, highest = peak(
            "import torch, unimodal, unimodal.generation.load, unimodal.pretrained.choices\n"
            "before = resident('VmRSS')\n"
            f"unimodal.load({str(tmp_path / 'ours')!r}, 'cpu', dtype={dtype!r})\n"
            "print(before, resident('VmHWM'))"
        )
        assert share * weights < highest - before < 1.2 * share * weights + beside, dtype
