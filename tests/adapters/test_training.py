"""A recipe with `model.lora` through the real loop: what moves, what is kept, and what goes on."""

import json

import pytest
import torch
import yaml
from safetensors.torch import load_file

import unimodal
from tests.adapters.make import base_folder, losses, pack
from tests.models import tiny_model
from unimodal.adapters.base import read_note
from unimodal.errors import UserError
from unimodal.training.config import load_recipe
from unimodal.training.dry_run import dry_run
from unimodal.training.ema import Ema
from unimodal.training.loop import train
from unimodal.training.optimizers import build_optimizers


@pytest.fixture
def recipe(tmp_path):
    """Writes a recipe with changes and loads it."""
    base = base_folder(tmp_path / "base")
    plain = {
        "model": {
            "init_from": str(base),
            "lora": {
                "target": "both",
                "rank": 4,
                "alpha": 8,
                "dropout": 0.1,
                "modules_to_save": ["path.head"],
            },
        },
        "data": {"sources": [{"source": "shapes"}], "tokens": 512, "workers": 0},
        "train": {
            "steps": 4,
            "logging_steps": 1,
            "save_steps": 2,
            "precision": "fp32",
            "learning_rate": 0.05,
            "weight_decay": 0.5,
            "lr_scheduler_type": "constant",
        },
        "output": {"dir": str(tmp_path / "run")},
    }

    def make(*overrides):
        file = tmp_path / "recipe.yaml"
        file.write_text(yaml.safe_dump(plain))
        return load_recipe(file, list(overrides))

    return make


def test_writes_an_adapter_that_is_used_without_naming_its_base(recipe, tmp_path, capsys):
    folder = train(recipe("train.sample_steps=4", "model.sampling.steps=2"))
    assert folder == tmp_path / "run" / "adapter"
    told = " ".join(capsys.readouterr().out.split())
    assert "unimodal chat --adapter" in told
    assert not (tmp_path / "run" / "model").exists()
    assert not list((tmp_path / "run").rglob("model*.safetensors"))
    assert list((tmp_path / "run" / "samples").glob("*.png"))
    note = read_note(folder)
    assert note.base == str(tmp_path / "base")
    assert note.settings.sampling.steps == 2
    base = unimodal.load(tmp_path / "base", "cpu").model
    loaded = unimodal.load(adapter=folder, device="cpu")
    documents = pack(base)
    assert not torch.isclose(losses(loaded.model, documents), losses(base, documents), rtol=1e-3).any()
    loaded.set_adapter(None)
    assert torch.equal(losses(loaded.model, documents), losses(base, documents))
    last = sorted((tmp_path / "run" / "checkpoints").iterdir())[-1]
    assert unimodal.load(last / "model", "cpu").adapter == "step-000004"
    for place in (folder, last / "model"):
        assert (place / read_note(place).nearby).samefile(tmp_path / "base")


@pytest.mark.parametrize("target", ["text", "image", "both"])
def test_frozen_weights_do_not_move_by_one_bit(recipe, target):
    run = recipe(f"model.lora.target={target}")
    trainee = run.model.build(run)
    model = trainee.module
    optimizers = build_optimizers(model, run.train, torch.float32)
    ema = Ema(model, 0.9)
    before = {name: p.clone() for name, p in model.named_parameters()}
    stream = trainee.batches(None, 0, 1)
    for _ in range(3):
        sums = trainee.losses(next(stream), torch.Generator().manual_seed(0)).sums
        (sums["text"] + sums["image"]).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        ema.update()
    own = {name for name in before if "lora" in name or "modules_to_save" in name}
    assert own
    assert ema.means.keys() == own
    for name, weight in model.named_parameters():
        assert torch.equal(weight, before[name]) == (name not in own), name


def test_resume_equals_straight_on(recipe, tmp_path):
    again = f"output.dir={tmp_path / 'again'}"
    train(recipe(f"output.dir={tmp_path / 'straight'}"))
    train(recipe("train.steps=2", again))
    train(recipe(again, "train.resume=auto"))
    runs = [tmp_path / name for name in ("straight", "again")]
    logs = [[json.loads(line)["loss"] for line in (r / "log.jsonl").read_text().splitlines()] for r in runs]
    assert logs[0] == logs[1]
    first, second = (load_file(r / "adapter" / "adapter_model.safetensors") for r in runs)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    kept = load_file(runs[0] / "checkpoints" / "step-000004" / "resume" / "weights.safetensors")
    frozen = {name for name in kept if "lora" not in name and "modules_to_save" not in name}
    assert frozen <= {"codec.mean", "codec.std"}  # buffers, which a run always keeps


@pytest.mark.parametrize("run", [train, dry_run])
def test_does_not_resume_on_other_weights(recipe, tmp_path, run):
    train(recipe("train.steps=2"))
    run(recipe("train.steps=2", "train.resume=auto"))
    base_folder(tmp_path / "base", seed=1)
    with pytest.raises(UserError, match="has other weights or tokens than when"):
        run(recipe("train.resume=auto"))


def test_does_not_start_where_an_adapter_is(recipe, tmp_path):
    (tmp_path / "run" / "adapter").mkdir(parents=True)
    with pytest.raises(UserError, match="already holds a run"):
        train(recipe())


def test_the_average_is_what_is_saved(recipe, tmp_path):
    folder = train(recipe("train.ema_decay=0.5"))
    saved = load_file(folder / "adapter_model.safetensors")
    last = sorted((tmp_path / "run" / "checkpoints").iterdir())[-1]
    means = load_file(last / "resume" / "ema.safetensors")
    live = load_file(last / "resume" / "weights.safetensors")
    name = "decoder.layers.0.experts.0.self_attn.q_proj.lora_B"
    assert torch.equal(saved[f"base_model.model.{name}.weight"], means[f"{name}.default.weight"])
    assert not torch.equal(means[f"{name}.default.weight"], live[f"{name}.default.weight"])
    assert torch.equal(
        saved["base_model.model.path.head.weight"], means["path.head.modules_to_save.default.weight"]
    )


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["model.init_from=null"], r"model\.lora needs model\.init_from"),
        (["model.train_codec=true"], r"model\.train_codec and model\.lora exclude each other"),
        (["model.codec=here"], r"model\.codec and model\.lora exclude each other"),
        (["model.tokenizer=here"], r"model\.tokenizer and model\.init_from exclude each other"),
        (["model.lora.modules_to_save=[hed]"], "is no module"),
    ],
)
def test_what_an_adapter_cannot_be_is_told(recipe, overrides, told):
    run = recipe(*overrides)
    with pytest.raises(UserError, match=told):
        run.model.build(run)


@pytest.mark.parametrize(
    "override", ["model.lora.target=words", "model.lora.rank=0", "model.lora.dropout=1", "model.lora.r=4"]
)
def test_wrong_values_name_their_key(recipe, override):
    with pytest.raises(UserError, match=override.partition("=")[0].replace(".", r"\.")):
        recipe(override)


def test_an_adapter_is_no_model_to_start_from(recipe, tmp_path):
    folder = train(recipe("train.steps=1"))
    run = recipe(f"model.init_from={folder}", f"output.dir={tmp_path / 'next'}")
    with pytest.raises(UserError, match=r"is an adapter, not a model\. Merge it"):
        run.model.build(run)


def test_changed_settings_reach_the_path(recipe):
    """Training draws its noise levels as the recipe says, not as the model was made with."""
    run = recipe("model.times.shift=4", "model.lora=null")
    model = run.model.build(run).module
    assert model.path.times.shift == model.config.times.shift == 4
    assert tiny_model().path.times.shift != 4


def test_flops_leave_out_the_gradients_of_frozen_weights(recipe):
    from torch.utils.flop_counter import FlopCounterMode

    from unimodal.attention.door import use_backend

    run = recipe("model.lora.dropout=0", "model.lora.modules_to_save=[]", "model.lora.target=text")
    trainee = run.model.build(run)
    batch = next(trainee.batches(None, 0, 1))
    use_backend("naive")
    with FlopCounterMode(display=False) as counter:
        sums = trainee.losses(batch, torch.Generator().manual_seed(0)).sums
        (sums["text"] + sums["image"]).backward()
    use_backend(None)
    counted = counter.get_flop_counts()["Global"]
    dense = sum(value for op, value in counted.items() if "bmm" in str(op))
    allowed = sum(length**2 for length in batch.lengths) / 2 / batch.budget**2
    assert trainee.flops(batch) == pytest.approx(sum(counted.values()) - dense + dense * allowed, rel=0.25)
