"""Adapter folders: peft's own format, and a base that is known by its weights."""

import json
import shutil

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from tests.adapters.make import adapter_folder, adapter_tensors, attach, base_folder, losses, pack
from tests.models import tiny_model
from unimodal.adapters.base import find_base, fingerprint, identity, read_note
from unimodal.adapters.folder import read_adapter
from unimodal.errors import UserError


@pytest.fixture
def base(tmp_path):
    return base_folder(tmp_path / "base")


@pytest.mark.parametrize("dora", [False, True])
def test_what_is_written_is_read(tmp_path, base, dora):
    options = {"use_dora": dora, "modules_to_save": ["embed_tokens", "path.head"]}
    adapter = read_adapter(adapter_folder(tmp_path / "it", base, seed=4, **options))
    model = tiny_model()
    attach(model, seed=4, **options)
    written = adapter_tensors(model)
    assert adapter.tensors.keys() == written.keys()
    assert all(torch.equal(adapter.tensors[name], written[name]) for name in written)
    assert (adapter.config.r, adapter.config.lora_alpha, adapter.config.use_dora) == (3, 6, dora)
    assert adapter.note.base == str(base)
    assert (tmp_path / "it" / adapter.note.nearby).resolve() == base.resolve()


def test_holds_the_adapter_alone(tmp_path, base):
    folder = adapter_folder(tmp_path / "it", base, target="text")
    assert {file.name for file in folder.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "base.json",
    }
    names = load_file(folder / "adapter_model.safetensors")
    assert all(".lora_A." in name or ".lora_B." in name for name in names)
    # two matrices for each of 7 layers in both of 2 blocks
    assert len(names) == 2 * 7 * 2


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("experts", ["shared", "mot"])
def test_peft_itself_reads_it(tmp_path, experts, dora):
    base = base_folder(tmp_path / "base", experts=experts)
    options = {"use_dora": dora, "modules_to_save": ["path.head"]}
    folder = adapter_folder(tmp_path / "it", base, experts=experts, **options)
    theirs = PeftModel.from_pretrained(tiny_model(experts=experts), str(folder)).base_model.model
    ours = tiny_model(experts=experts)
    attach(ours, **options)
    documents = pack(ours)
    torch.testing.assert_close(losses(theirs.eval(), documents), losses(ours, documents), rtol=0, atol=0)


def test_the_hash_is_of_the_weights_not_of_the_files(tmp_path, base):
    first = fingerprint(base)
    weights = {name: weight.clone() for name, weight in load_file(base / "model.safetensors").items()}
    half = len(weights) // 2
    sharded = shutil.copytree(base, tmp_path / "sharded")
    (sharded / "model.safetensors").unlink()
    for number, names in enumerate((list(weights)[half:], list(weights)[:half])):
        save_file({n: weights[n] for n in names}, sharded / f"model-{number}.safetensors", {"by": "hand"})
    assert fingerprint(sharded) == first
    one = next(iter(weights))
    for change in ({one: weights[one] + 1e-6}, {one: weights[one][None]}, {"more": torch.zeros(1)}):
        save_file(weights | change, base / "model.safetensors")
        assert fingerprint(base) != first
    save_file(weights, base / "model.safetensors")
    assert fingerprint(base) == first
    save_file({"mean": torch.zeros(2)}, base / "codec" / "more.safetensors")
    assert fingerprint(base) != first


def test_the_identity_is_of_weights_and_of_what_each_id_says(tmp_path, base):
    """A tokenizer that numbers its tokens anew makes other words of the same weights."""
    first, weights, file = identity(base), fingerprint(base), base / "tokenizer.json"
    raw = json.loads(file.read_text())
    file.write_text(json.dumps(raw, indent=7))
    assert identity(base) == first
    vocabulary = raw["model"]["vocab"]
    one, other = list(vocabulary)[:2]
    vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]
    folder = adapter_folder(tmp_path / "adapter", base)
    file.write_text(json.dumps(raw))
    assert identity(base) != first and fingerprint(base) == weights
    with pytest.raises(UserError, match=r"but .* has other weights or other tokens"):
        find_base(read_note(folder), folder)
    file.write_text("no tokenizer")
    with pytest.raises(UserError, match=r"tokenizer\.json is no tokenizer that `tokenizers` reads"):
        identity(base)


def test_the_base_is_found_where_it_was_and_where_both_went(tmp_path, base, monkeypatch):
    folder = adapter_folder(tmp_path / "run" / "adapter", base)
    assert find_base(read_note(folder), folder).samefile(base)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    shutil.move(base, moved / "base")
    shutil.move(tmp_path / "run", moved / "run")
    folder = moved / "run" / "adapter"
    assert find_base(read_note(folder), folder).samefile(moved / "base")
    shutil.rmtree(moved / "base")
    with pytest.raises(UserError, match=r"belongs to the model .*base, which is not here any more"):
        find_base(read_note(folder), folder)
    base_folder(moved / "base", seed=1)
    with pytest.raises(UserError, match=r"was trained on .* but .* has other weights"):
        find_base(read_note(folder), folder)


def test_why_a_base_is_not_found_is_told(tmp_path, base, monkeypatch):
    folder = adapter_folder(tmp_path / "adapter", base)
    note = json.loads((folder / "base.json").read_text())

    def unreachable(*args, **options):
        raise OSError("the network is unreachable")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    for name, why in {"owner/name": "hub: the network is unreachable", "shapes-bse": "did you mean"}.items():
        (folder / "base.json").write_text(json.dumps(note | {"base": name, "nearby": None}))
        with pytest.raises(UserError) as caught:
            find_base(read_note(folder), folder)
        told = str(caught.value)
        assert told.startswith(f"the adapter {folder} belongs to the model {name}, which is not to be found:")
        assert why in told and told.endswith("Name the model as well, wherever it is now.")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"[1]", r"adapter_config\.json: expected a JSON object, found list"),
        (b'{"peft_type": "LORA\xff"}', r"adapter_config\.json cannot be read as JSON"),
        (b'{"peft_type": "LORA", "target_modules": ["a"], "layers_pattern": "b"}', "damaged or not whole"),
    ],
)
def test_a_configuration_that_is_none_is_told(tmp_path, base, content, told):
    folder = adapter_folder(tmp_path / "it", base)
    (folder / "adapter_config.json").write_bytes(content)
    with pytest.raises(UserError, match=told):
        read_adapter(folder)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_told(tmp_path, base, number):
    folder = adapter_folder(tmp_path / "it", base, modules_to_save=["path.head"])
    file = folder / "adapter_model.safetensors"
    for name in ("path.head.weight", "decoder.layers.0.experts.0.mlp.up_proj.lora_B.weight"):
        tensors = load_file(file)
        key = f"base_model.model.{name}"
        kept = tensors[key].clone()
        tensors[key][0, 0] = number
        save_file(tensors, file)
        with pytest.raises(UserError, match=rf"{name} holds what is no finite number"):
            read_adapter(folder)
        save_file(tensors | {key: kept}, file)
    read_adapter(folder)


def test_damage_is_told(tmp_path, base):
    with pytest.raises(UserError, match=r"is not an adapter: it has no adapter_config\.json"):
        read_adapter(base)
    folder = adapter_folder(tmp_path / "it", base)
    weights = (folder / "adapter_model.safetensors").read_bytes()
    (folder / "adapter_model.safetensors").write_bytes(weights[:-50])
    with pytest.raises(UserError, match="is damaged or not whole"):
        read_adapter(folder)
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(UserError, match="is damaged or not whole"):
        read_adapter(folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"peft_type": "IA3"}))
    with pytest.raises(UserError, match="is a IA3 adapter of peft; only LORA"):
        read_adapter(folder)
    (folder / "base.json").write_text("{}")
    with pytest.raises(UserError, match=r"base\.json cannot be understood"):
        read_adapter(folder)
    (folder / "base.json").unlink()
    with pytest.raises(UserError, match=r"has no base\.json"):
        read_adapter(folder)
