"""What `--dry-run` tells, against counting by hand, PyTorch's own, and what a process really takes."""

import gc
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from accelerate import Accelerator
from typer.testing import CliRunner

from tests.adapters.make import base_folder
from tests.training.toy import ToyTrainee, toy_recipe
from unimodal.cli import app
from unimodal.images.codec import PixelPatches
from unimodal.training.allocations import counted
from unimodal.training.config import load_recipe
from unimodal.training.dry_run import dry_run
from unimodal.training.loop import train
from unimodal.training.run import Run
from unimodal.training.signals import StopRequest

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
        "model": {"init_from": str(base), "lora": {"rank": 4}},
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


def test_operations_are_counted_as_steps(recipe: Path, tmp_path: Path) -> None:
    """A step of the toy takes 780 operations: 2.5 rows, 52 numbers, 6 each.  Others count as in a run."""
    found = dry_run(toy_recipe(tmp_path / "toy", steps=None, flops=1e5))
    assert found.steps == 128
    settings = ["train.steps=null", "train.flops=1e11"]
    command = ["train", str(recipe), "--dry-run", *settings]
    told = CliRunner().invoke(app, command, catch_exceptions=False).stdout
    with StopRequest() as stop:
        run = Run(load_recipe(recipe, settings), Accelerator(), stop)
        run.close()
    assert run.recipe.train.steps > 1
    assert run.budget in " ".join(told.split())
    assert f"for {run.recipe.train.steps:,} steps;" in told
    shown = run.recipe.train.steps * float(told.split("rows a step")[1].split()[0]) / 4 / 10
    assert abs(float(told.split("each shown")[1].split()[0].replace(",", "")) - shown) < 0.1 + 0.01 * shown


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
import sys
from unimodal.cli import app

app(sys.argv[1:], standalone_mode=False)
print(int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) * 1024)
"""


def command(*arguments: str, folder: Path) -> str:
    """What `unimodal` prints in a process of its own, and then the most that the process held."""
    one = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", PROCESS, *arguments],
        **{"capture_output": True, "text": True, "env": os.environ | one, "cwd": folder, "check": True},
    )
    return done.stdout


def assert_the_peak_is_told(folder: Path, *arguments: str) -> dict[str, float]:
    """A dry run tells the peak of the run as the system sees it; gives the parts, in bytes."""
    told = command("train", *arguments, "--dry-run", folder=folder)
    parts = {
        name: 1e6 * float(n.replace(",", "")) for name, n in re.findall(r"memory, ([\w ]+?) +(\S+) MB", told)
    }
    measured = int(command("train", *arguments, folder=folder).split()[-1])
    assert parts["at most"] == pytest.approx(measured, rel=CLOSE)
    return parts


ON_LINUX = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from /proc")
THREE_STEPS = ["train.steps=3", "train.save_steps=2", "train.threads=1"]


@pytest.mark.slow
@ON_LINUX
def test_the_peak_of_a_shipped_recipe_is_told(tmp_path: Path) -> None:
    rows = ["data.sources=[{source: shapes}]"]  # those of the recipe are made by a command
    assert_the_peak_is_told(tmp_path, "demo", *rows, *THREE_STEPS)
    assert (tmp_path / "runs/demo/checkpoints/step-000002").is_dir()  # it did save


def base(folder: Path, width: int = 512, layers: int = 8) -> str:
    """A model so large that it, and not the process, is most of what is measured."""
    from tests.documents import tokenizer
    from unimodal.model.config import ModelConfig
    from unimodal.model.folder import save_model
    from unimodal.model.unified import UnifiedModel

    shape = {"hidden_size": width, "intermediate_size": 1360, "num_hidden_layers": layers, "image_size": 64}
    heads = {"num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 320}
    save_model(folder, UnifiedModel(ModelConfig(**shape, **heads), PixelPatches(16)), tokenizer())
    return str(folder)


def large(folder: Path) -> Path:
    """A recipe of that model."""
    raw = {
        "model": {"init_from": base(folder / "base")},
        "data": {"sources": [{"source": "shapes"}], "tokens": 512, "workers": 0},
        "train": {"steps": 3, "precision": "fp32"},
        "output": {"dir": str(folder / "run"), "dtype": "float16"},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(raw))
    return folder / "recipe.yaml"


SETTINGS = [
    [],
    ["train.gradient_accumulation_steps=2", "train.optimizer=muon", "train.gradient_checkpointing=true"],
    ["model.lora={rank: 16}", "data.tokens=1024"],
]


@pytest.mark.slow
@ON_LINUX
@pytest.mark.parametrize("overrides", SETTINGS[1:])
def test_the_peak_is_what_a_process_takes(tmp_path: Path, overrides: list[str]) -> None:
    parts = assert_the_peak_is_told(tmp_path, str(large(tmp_path)), *overrides, *THREE_STEPS)
    assert parts["at most"] > 1.5 * parts["process"]  # so that what is told is mostly the parts
    saved = parts["gradients"] if "model.lora" in str(overrides) else parts["weights"]
    assert parts["saving"] == pytest.approx(saved / 2, abs=0.1e6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("overrides", SETTINGS)
def test_the_peak_is_what_an_accelerator_allocates(tmp_path: Path, overrides: list[str]) -> None:
    recipe = load_recipe(large(tmp_path), [*overrides, "train.save_steps=2"])
    told = dry_run(recipe)
    gc.collect()
    before = torch.cuda.memory_allocated()  # workspaces of libraries
    torch.cuda.reset_peak_memory_stats()
    train(recipe)
    assert told.total == pytest.approx(torch.cuda.max_memory_allocated() - before, rel=CLOSE)
