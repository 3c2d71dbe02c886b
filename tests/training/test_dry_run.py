"""What `--dry-run` tells, against counting by hand, PyTorch's own, and what a process really takes."""

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from typer.testing import CliRunner

from tests.adapters.make import base_folder
from tests.training.toy import ToyTrainee, toy_recipe
from unimodal.cli import app
from unimodal.images.codec import PixelPatches
from unimodal.training.allocations import counted
from unimodal.training.config import load_recipe
from unimodal.training.dry_run import dry_run

CPU = torch.device("cpu")
CLOSE = 0.15  # of the measured peak


def test_allocations_are_counted_while_they_live() -> None:
    before = torch.zeros(5000)
    with counted(CPU, [before]) as held:
        a = torch.ones(1000)
        assert held.live == 4000
        b = a + 1
        view = b.view(10, 100)[2:]
        before.view(50, 100).add_(1)
        del a
        assert (held.live, held.peak) == (4000, 8000)
        del b
        assert held.live == 4000  # the view keeps it
        del view
        assert held.live == 0
    assert held.peak == 8000


def test_what_is_kept_for_the_backward_pass_is_counted() -> None:
    """Two layers without bias on (8, 100): of what comes to be, the backward pass needs the tanh alone."""
    first, second = torch.randn(100, 50, requires_grad=True), torch.randn(50, 1, requires_grad=True)
    x = torch.randn(8, 100)
    with counted(CPU, [first, second, x]) as held:
        hidden = torch.tanh(x @ first)
        loss = (hidden @ second).sum()
        del hidden
        assert held.live == 4 * (8 * 50 + 1)  # tanh keeps its result, which is also what the product keeps
        loss.backward()
        del loss
    gc.collect()
    assert held.live == first.nbytes + second.nbytes  # the gradients


def test_parts_are_those_of_the_shapes(tmp_path: Path) -> None:
    recipe = toy_recipe(tmp_path / "run", gradient_accumulation_steps=2, optimizer="muon")
    found = dry_run(recipe)
    module = ToyTrainee(recipe.model).module
    count = sum(p.numel() for p in module.parameters())
    assert (found.trained, found.frozen) == (count, 0)
    assert found.memory["weights"] == found.memory["gradients"] == found.memory["averages"] == 4 * count
    by_muon = 4 * 6 + 6 * 4
    assert found.memory["optimizer state"] == 4 * (2 * (count - by_muon) + by_muon)
    # Eight batches of 1, 2, 3, 4, 1, 2, 3, 4 rows, two of them a step.
    assert found.tokens == 2 * 2.5
    assert found.flops == pytest.approx(2 * 6 * 2.5 * 52)
    assert found.data["fit counted a step"] == "5.0"
    assert found.data["padding"] == "68.8%"
    assert not (tmp_path / "run").exists()


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe of a tiny adapter."""
    base = base_folder(tmp_path / "base", image_size=64)
    row = {"messages": [{"role": "user", "content": "two"}, {"role": "assistant", "content": "yes"}]}
    for split, count in ("train", 10), ("val", 4):
        (tmp_path / f"{split}.jsonl").write_text((json.dumps(row) + "\n") * count)
    file = tmp_path / "recipe.yaml"
    raw = {
        "model": {"init_from": str(base), "lora": {"r": 4}},
        "data": {
            "sources": [{"path": str(tmp_path / "train.jsonl")}, {"source": "shapes", "weight": 3}],
            "eval_sources": [{"path": str(tmp_path / "val.jsonl")}],
            **{"tokens": 2048, "eval_rows": 4},
        },
        "train": {"steps": 100, "precision": "fp32", "eval_steps": 10},
        "output": {"dir": str(tmp_path / "run")},
    }
    file.write_text(yaml.safe_dump(raw))
    return file


def test_the_command_tells_and_writes_nothing(recipe: Path) -> None:
    result = CliRunner().invoke(app, ["train", str(recipe), "--dry-run"], catch_exceptions=False)
    assert result.exit_code == 0
    told = " ".join(result.stdout.split())
    for words in (
        "trained",
        "GFLOP",
        "memory, optimizer state",
        "positions/s",
        "25% of the mixture, 10 rows",
    ):
        assert words in told
    assert "shapes: 75% of the mixture, endless" in told
    assert "4 of" in told and "(4 rows), every 10 steps" in told
    assert not (recipe.parent / "run").exists()


def test_an_adapter_trains_less_and_keeps_less(recipe: Path) -> None:
    thin, full = dry_run(load_recipe(recipe)), dry_run(load_recipe(recipe, ["model.lora=null"]))
    assert thin.trained < full.trained == full.trained + full.frozen
    assert thin.trained + thin.frozen == full.trained + thin.trained
    for part in ("gradients", "optimizer state", "averages"):
        assert thin.memory[part] < full.memory[part]
    assert thin.flops < full.flops


def test_recomputing_activations_keeps_less_of_them(recipe: Path) -> None:
    kept = dry_run(load_recipe(recipe))
    recomputed = dry_run(load_recipe(recipe, ["train.gradient_checkpointing=true"]))
    assert recomputed.memory["activations"] < 0.5 * kept.memory["activations"]
    assert recomputed.peak < kept.peak


PROCESS = """
import gc, sys
from unimodal.training import loop, run
from unimodal.training.config import load_recipe
from unimodal.training.dry_run import dry_run

def resident(field):
    return int(open("/proc/self/status").read().split(field + ":")[1].split()[0]) * 1024

# Saving takes copies of its own; what is measured here is training.
run.Run.save = run.Run.save_final_model = lambda self: None
recipe = load_recipe(sys.argv[1], sys.argv[2:])
told = dry_run(recipe).peak
gc.collect()
before = resident("VmRSS")
loop.train(recipe)
print("\\n", told, before, resident("VmHWM"))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from /proc")
@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["train.gradient_accumulation_steps=2", "train.optimizer=muon", "train.gradient_checkpointing=true"],
        ["model.lora={r: 16}"],
    ],
)
def test_the_peak_is_what_a_process_takes(tmp_path: Path, overrides: list[str]) -> None:
    from tests.documents import tokenizer
    from unimodal.model.config import ModelConfig
    from unimodal.model.folder import save_model
    from unimodal.model.unified import UnifiedModel

    shape = {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 4, "image_size": 64}
    heads = {"num_attention_heads": 6, "num_key_value_heads": 3, "vocab_size": 320}
    model = UnifiedModel(ModelConfig(**shape, **heads), PixelPatches(16))
    save_model(tmp_path / "base", model, tokenizer())
    raw = {
        "model": {"init_from": str(tmp_path / "base")},
        "data": {"sources": [{"source": "shapes"}], "tokens": 2048, "workers": 0},
        "train": {"steps": 3, "precision": "fp32", "threads": 1},
        "output": {"dir": str(tmp_path / "run")},
    }
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(raw))
    # Large blocks go back to the system when they are freed, so that the process holds what is in use.
    environment = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROCESS, str(file), *overrides],
        **{"capture_output": True, "text": True, "env": os.environ | environment, "check": True},
    )
    told, before, highest = map(int, done.stdout.split()[-3:])
    assert highest - before > 150e6  # or the process itself would be what is measured
    assert told == pytest.approx(highest - before, rel=CLOSE)
