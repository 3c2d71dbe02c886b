import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn.functional import layer_norm

from tests.training.processes import run_two
from tests.training.toy import ToyTrainee, toy_recipe
from unimodal.errors import UserError
from unimodal.training.loop import train
from unimodal.training.trainee import Losses


def weights(model: Path) -> dict[str, torch.Tensor]:
    return load_file(model / "model.safetensors")


def entries(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], atol: float) -> None:
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(
            a[name], b[name], atol=atol, rtol=0, msg=lambda text, n=name: f"{n}: {text}"
        )


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_accumulation_equals_one_large_batch(tmp_path: Path, optimizer: str) -> None:
    """Groups of 1, 2, 3 and 4 rows: a mean of means would differ."""
    settings = {"optimizer": optimizer, "max_grad_norm": 0.5, "weight_decay": 0.1, "ema_decay": None}
    once = train(toy_recipe(tmp_path / "a", {"join": 4}, **settings))
    cut = train(toy_recipe(tmp_path / "b", {"join": 1}, gradient_accumulation_steps=4, **settings))
    same(weights(once), weights(cut), 2e-5)
    for one, other in zip(entries(tmp_path / "a"), entries(tmp_path / "b")):
        for name in ("loss", "loss_fit", "loss_size", "grad_norm"):
            assert one[name] == pytest.approx(other[name], rel=1e-4)


def test_two_processes_equal_one(tmp_path: Path) -> None:
    settings = {"steps": 4, "max_grad_norm": 0.5, "weight_decay": 0.1, "ema_decay": 0.9}
    one = train(toy_recipe(tmp_path / "one", gradient_accumulation_steps=4, **settings))
    said = run_two(tmp_path / "two", {}, gradient_accumulation_steps=2, **settings)
    assert "Done after step 4" in said[0], said
    assert "Done" not in said[1]  # the second process keeps quiet
    same(weights(one), weights(tmp_path / "two" / "model"), 2e-5)
    for a, b in zip(entries(tmp_path / "one"), entries(tmp_path / "two"), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-4)
        assert a["padding"] == pytest.approx(b["padding"])
        assert [m is None for m in a["loss_fit_bins"]] == [m is None for m in b["loss_fit_bins"]]
        means = [[m or 0.0 for m in entry["loss_fit_bins"]] for entry in (a, b)]
        assert means[0] == pytest.approx(means[1], rel=1e-4)


def test_the_first_step_is_that_of_plain_pytorch(tmp_path: Path) -> None:
    """Loss, gradient norm and weights after one AdamW step, written out by hand."""
    train(
        toy_recipe(
            tmp_path / "run", steps=1, gradient_accumulation_steps=2, max_grad_norm=None, ema_decay=None
        )
    )
    torch.manual_seed(0)
    trainee = toy_recipe(tmp_path / "x").model.build(None)
    batches = trainee.batches(None, 0, 1)
    first, second = next(batches), next(batches)
    x, y = torch.cat([first.x, second.x]), torch.cat([first.y, second.y])
    module = trainee.module
    hidden = x + module.query + module.embedding.weight.mean(0)
    hidden = module.blocks[1](torch.tanh(module.blocks[0](hidden)))
    out = module.head(layer_norm(hidden, (4,), module.norm.weight, module.norm.bias))[:, 0]
    loss = (out - y).square().mean() + 0.1 * module.head.weight.square().sum()
    loss.backward()
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    entry = entries(tmp_path / "run")[0]
    assert entry["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert entry["grad_norm"] == pytest.approx(
        torch.cat([g.flatten() for g in gradients]).norm().item(), rel=1e-5
    )
    torch.optim.AdamW(module.parameters(), lr=0.01, betas=(0.9, 0.95), weight_decay=0).step()
    same(weights(tmp_path / "run" / "model"), dict(module.state_dict()), 1e-6)


def test_log_holds_what_the_steps_did(tmp_path: Path) -> None:
    train(toy_recipe(tmp_path, steps=5, logging_steps=2, warmup_steps=2))
    lines = entries(tmp_path)
    assert [line["step"] for line in lines] == [2, 4, 5]
    for line in lines:
        assert line["loss"] == pytest.approx(line["loss_fit"] + 0.1 * line["loss_size"])
        assert len(line["loss_fit_bins"]) == 10
        assert line.keys() >= {
            "tokens_per_second",
            "mfu",
            "seconds",
            "memory_gb",
            "learning_rate",
            "step_seconds",
        }
    # Groups of 1, 2, 3, 4, 1 rows of a budget of 8 each.
    assert [line["padding"] for line in lines] == pytest.approx([1 - 3 / 16, 1 - 7 / 16, 1 - 1 / 8])
    assert lines[0]["learning_rate"] == pytest.approx(0.01 * 2 / 3)


@pytest.mark.parametrize("workers", [1, 2])
def test_background_workers_give_what_the_shards_hold(tmp_path: Path, workers: int) -> None:
    """One worker changes nothing; two take turns, here on disjoint groups in the same overall order."""
    alone = train(toy_recipe(tmp_path / "a", workers=0))
    helped = train(toy_recipe(tmp_path / "b", workers=workers))
    same(weights(alone), weights(helped), 0.0)


def test_not_a_number_stops_with_the_samples_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    recipe = toy_recipe(tmp_path, {"poison": 7}, gradient_accumulation_steps=2, save_steps=3)
    with pytest.raises(UserError) as caught:
        train(recipe)
    message = str(caught.value)
    assert "step 4" in message
    assert "toy:7" in message
    assert "toy:6" not in message
    assert "step-000003" in message
    kept = tmp_path / "checkpoints" / "step-000003"
    assert all(value.isfinite().all() for value in weights(kept / "model").values())
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000003"]


def test_not_a_number_on_one_process_stops_both_with_its_samples(tmp_path: Path) -> None:
    """Group 5 is the second process's third batch."""
    said = run_two(tmp_path / "two", {"poison": 5})
    for text in said:
        assert "UserError: The loss of step 3 is not finite" in text
        assert "toy:5" in text
        assert "toy:4" not in text


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_row_reaches_the_user_as_its_sentence(tmp_path: Path, workers: int) -> None:
    with pytest.raises(UserError) as caught:
        train(toy_recipe(tmp_path, {"bad_row": 2}, workers))
    told, saved = str(caught.value).split("\n")
    assert told == "toy:2: this row is wrong; mend it."
    assert saved.startswith("Step 2 was saved before")
    assert (tmp_path / "checkpoints" / "step-000002").is_dir()


def test_an_infinite_gradient_of_a_finite_loss_stops_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def losses(self: ToyTrainee, batch: Any, generator: torch.Generator) -> Losses:
        zero = (self.module.head.weight.sum() * 0).clamp_min(0)
        return Losses({"fit": zero.sqrt(), "size": zero}, {"fit": 1.0, "size": 1.0})  # slope 0/0 at zero

    monkeypatch.setattr(ToyTrainee, "losses", losses)
    with pytest.raises(UserError, match="gradient of step 1 is not finite"):
        train(toy_recipe(tmp_path))


def test_samples_come_from_the_averaged_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bool, torch.Tensor]] = []
    plain = ToyTrainee.samples

    def watched(self: ToyTrainee, seed: int) -> Image.Image | None:
        seen.append((self.module.training, self.module.head.weight.detach().clone()))
        return plain(self, seed)

    monkeypatch.setattr(ToyTrainee, "samples", watched)
    model = train(toy_recipe(tmp_path, steps=5, sample_steps=2))
    names = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert names == ["step-000002.png", "step-000004.png", "step-000005.png"]
    assert not any(training for training, _ in seen)
    assert torch.equal(seen[-1][1], weights(model)["head.weight"])


def test_model_folder_has_the_recipe_and_tensorboard_is_written(tmp_path: Path) -> None:
    recipe = toy_recipe(tmp_path)
    recipe.output.tensorboard = True
    model = train(recipe)
    assert (model / "recipe.yaml").read_text() == recipe.to_yaml() == (tmp_path / "recipe.yaml").read_text()
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_a_second_run_in_the_same_place_is_refused(tmp_path: Path) -> None:
    train(toy_recipe(tmp_path, steps=1))
    with pytest.raises(UserError, match="already holds a run"):
        train(toy_recipe(tmp_path, steps=1))


def test_checkpointing_asked_of_a_module_that_cannot(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="ToyModule"):
        train(toy_recipe(tmp_path, gradient_checkpointing=True))
