"""Merged equals adapter and base, for every target, with shared weights and with an expert for each."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import unimodal
from tests.adapters.make import adapter_folder, attach, base_folder, losses, pack
from tests.documents import tokenizer
from tests.models import tiny_model
from unimodal.adapters.folder import read_adapter, save_adapter
from unimodal.adapters.merge import merge_adapter, with_experts
from unimodal.adapters.section import Settings
from unimodal.cli import app
from unimodal.errors import UserError
from unimodal.model.config import Sampling
from unimodal.model.folder import save_model
from unimodal.sequence.mask import Marks


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("target", ["text", "image", "both"])
@pytest.mark.parametrize("experts", ["shared", "mot"])
def test_merged_equals_adapter_and_base(tmp_path, experts, target, dora):
    base = base_folder(tmp_path / "base", experts=experts)
    options = {"target": target, "use_dora": dora, "modules_to_save": ["embed_tokens", "path.head"]}
    folder = adapter_folder(tmp_path / "adapter", base, experts=experts, **options)
    assert merge_adapter(base, folder, tmp_path / "merged") == tmp_path / "merged"
    merged, both = unimodal.load(tmp_path / "merged", "cpu"), unimodal.load(base, "cpu", adapter=folder)
    assert merged.config.experts == ("mot" if target != "both" else experts)
    documents = pack(merged.model)
    torch.testing.assert_close(
        losses(merged.model, documents), losses(both.model, documents), rtol=2e-4, atol=2e-4
    )
    assert merged.adapters == ()
    assert merged.tokenizer.encode("a red circle") == both.tokenizer.encode("a red circle")


def test_with_experts_is_the_same_model(tmp_path):
    model = unimodal.load(base_folder(tmp_path / "base"), "cpu").model
    documents = pack(model)
    twice = with_experts(model)
    assert not twice.training
    torch.testing.assert_close(losses(twice, documents), losses(model, documents), rtol=1e-5, atol=1e-5)


def test_finds_the_base_and_takes_the_settings_along(tmp_path):
    base = base_folder(tmp_path / "base")
    settings = Settings.of(unimodal.load(base, "cpu").config)
    settings = settings.model_copy(update={"sampling": Sampling(steps=7)})
    folder = adapter_folder(tmp_path / "adapter", base, settings=settings)
    merged = unimodal.load(merge_adapter(None, folder, tmp_path / "merged"), "cpu")
    assert merged.config.sampling.steps == 7
    half = merge_adapter(None, folder, tmp_path / "half", torch.float16)
    sizes = [(f / "model.safetensors").stat().st_size for f in (half, tmp_path / "merged")]
    assert sizes[0] < 0.6 * sizes[1]


def test_refusals(tmp_path, monkeypatch):
    base, other = base_folder(tmp_path / "base"), base_folder(tmp_path / "other", seed=1)
    folder = adapter_folder(tmp_path / "adapter", base)
    with pytest.raises(UserError, match=r"but .*other has other weights"):
        merge_adapter(other, folder, tmp_path / "merged")
    with pytest.raises(UserError, match="is there already"):
        merge_adapter(base, folder, other)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("unimodal.adapters.merge.save_model", full)
    with pytest.raises(UserError, match="No space left"):
        merge_adapter(base, folder, tmp_path / "merged")
    assert {path.name for path in tmp_path.iterdir()} == {"base", "other", "adapter"}


def test_what_float16_cannot_hold_is_told(tmp_path):
    model = tiny_model()
    with torch.no_grad():
        model.path.head.weight[0, 0] = 7e4
    save_model(tmp_path / "base", model, tokenizer())
    folder = adapter_folder(tmp_path / "it", tmp_path / "base")
    with pytest.raises(UserError, match=r"path\.head\.weight reaches 7e\+04, which float16 cannot hold"):
        merge_adapter(None, folder, tmp_path / "merged", torch.float16)
    attach(model, modules_to_save=["path.head"])
    with torch.no_grad():
        model.path.head.modules_to_save["default"].weight[0, 0] = -7e4
    with pytest.raises(UserError, match=r"path\.head\.weight reaches 7e\+04, which float16 cannot hold"):
        save_adapter(tmp_path / "half", model, read_adapter(folder).note, torch.float16)
    assert {path.name for path in tmp_path.iterdir()} == {"base", "it", "half"}
    assert not (tmp_path / "half" / "adapter_model.safetensors").exists()


def test_weights_that_become_infinite_are_told(tmp_path):
    base = base_folder(tmp_path / "base")
    folder = adapter_folder(tmp_path / "it", base)
    file = folder / "adapter_model.safetensors"
    save_file({name: torch.full_like(tensor, 1e30) for name, tensor in load_file(file).items()}, file)
    with pytest.raises(UserError, match="it cannot be merged: weights would be no finite"):
        merge_adapter(base, folder, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_merged_in_bf16_says_what_adapter_and_base_say_in_bf16(tmp_path):
    """Up to rounding: the merged weight is rounded once, base and change apart."""
    base = base_folder(tmp_path / "base")
    folder = adapter_folder(tmp_path / "it", base)
    merge_adapter(base, folder, tmp_path / "merged", torch.bfloat16)
    merged = unimodal.load(tmp_path / "merged", "cpu", dtype="bf16")
    both = unimodal.load(base, "cpu", folder, "bf16")
    exact = unimodal.load(base, "cpu", folder)
    said = [logits(loaded.model, 40) for loaded in (merged, both, exact, unimodal.load(base, "cpu"))]
    assert said[0].dtype == said[1].dtype == torch.bfloat16
    changed = (said[2] - said[3]).std()
    for one, other in ((said[0], said[1]), (said[0], said[2]), (said[1], said[2])):
        assert (one.float() - other.float()).std() < 0.05 * changed


@torch.no_grad()
def logits(model, length):
    """Of some text, by whatever type the decoder has."""
    steps = torch.arange(length)[None]
    marks = Marks(steps * 0, steps, steps * 0, torch.zeros_like(steps, dtype=torch.bool))
    position = steps[..., None].expand(-1, -1, 3)
    return model.logits(model.read(model.new_cache(1, length), steps + 20, position, marks))


def export(*args):
    result = CliRunner().invoke(app, ["export", *map(str, args)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_command_merges_and_names_the_folder(tmp_path):
    base = base_folder(tmp_path / "base")
    folder = adapter_folder(tmp_path / "adapter", base)
    assert export(folder, tmp_path / "merged", "--merge").strip() == f"folder: {tmp_path / 'merged'}"
    by_function = merge_adapter(base, folder, tmp_path / "other")
    one, other = (load_file(f / "model.safetensors") for f in (tmp_path / "merged", by_function))
    assert all(torch.equal(one[name], other[name]) for name in one)
    export(folder, tmp_path / "half", "--merge", "--base", base, "--dtype", "bf16")
    half = load_file(tmp_path / "half" / "model.safetensors")
    assert all(torch.equal(half[name], one[name].bfloat16()) for name in one)


def test_the_command_refuses_another_base_and_half_a_wish(tmp_path):
    base, other = base_folder(tmp_path / "base"), base_folder(tmp_path / "other", seed=1)
    folder = adapter_folder(tmp_path / "adapter", base)
    out = tmp_path / "merged"
    with pytest.raises(UserError, match=r"was trained on .*base .*but .*other has other weights"):
        export(folder, out, "--merge", "--base", other)
    with pytest.raises(UserError, match=r"--to llm .* or --merge"):
        export(folder, out)
    with pytest.raises(UserError, match="--dtype goes with --merge"):
        export(base, out, "--to", "llm", "--dtype", "bf16")
    with pytest.raises(UserError, match="is not an adapter"):
        export(base, out, "--merge")
    with pytest.raises(UserError, match=r"is an adapter, .* add --merge"):
        export(folder, out, "--to", "llm")
    base_folder(base, seed=2)  # its weights are others now
    with pytest.raises(UserError, match="has other weights"):
        export(folder, out, "--merge")
    assert not out.exists()


def test_merged_and_exported_in_one_go_has_the_merged_text_weights(tmp_path):
    base = base_folder(tmp_path / "base")
    folder = adapter_folder(tmp_path / "adapter", base, target="both")
    told = export(folder, tmp_path / "llm", "--merge", "--to", "llm")
    assert "Qwen3ForCausalLM" in told
    merged = load_file(merge_adapter(base, folder, tmp_path / "merged") / "model.safetensors")
    text = load_file(tmp_path / "llm" / "model.safetensors")
    name = "layers.0.mlp.up_proj.weight"
    ours = merged[f"decoder.{name.replace('layers.0.', 'layers.0.experts.0.')}"]
    assert torch.equal(text[f"model.{name}"], ours)
