"""Tokens that `init` added: an adapter learns their rows of the embedding and the head, and no others."""

import pytest
import torch
import yaml
from safetensors.torch import load_file

import unimodal
from tests.adapters.make import adapter_folder, adapter_tensors, attach, base_folder, losses, pack
from tests.models import tiny_model
from tests.pretrained.checkpoints import make
from unimodal.adapters.merge import merge_adapter
from unimodal.images.codec import PixelPatches
from unimodal.pretrained.initialise import init_model
from unimodal.training.config import load_recipe
from unimodal.training.loop import train

IDS = [7, 3, 30]
TIED = pytest.mark.parametrize("tied", [True, False])


def with_rows(model, tensors):
    """The model with the adapter's rows written into its tables by hand."""
    for name in ("embed_tokens", "lm_head"):
        rows = tensors.get(f"{name}.token_adapter.trainable_tokens_delta")
        if rows is not None:
            with torch.no_grad():
                getattr(model, name).weight[IDS] = rows
    return model


@TIED
def test_rows_are_what_is_computed_with_and_go_again(tied):
    model = tiny_model(tie_word_embeddings=tied)
    documents = pack(model)
    before, names = losses(model, documents), set(model.state_dict())
    attached = attach(model, new_ids=IDS)
    tensors = adapter_tensors(model)
    rows = [name for name in tensors if "lora" not in name]
    assert len(rows) == (1 if tied else 2)
    assert all(tensors[name].shape == (len(IDS), 32) for name in rows)
    plain = tiny_model(tie_word_embeddings=tied)
    attach(plain, new_ids=()).fill({name: t for name, t in tensors.items() if "lora" in name}, "here")
    after = losses(model, documents)
    torch.testing.assert_close(after, losses(with_rows(plain, tensors), documents), rtol=1e-5, atol=1e-5)
    out = model.train()(documents, torch.Generator().manual_seed(0))
    (out.text + out.image).backward()
    trained = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert all("lora" in name or "trainable_tokens_delta" in name for name in trained)
    assert sum("trainable_tokens_delta" in name for name in trained) == len(rows)
    attached.detach()
    assert set(model.state_dict()) == names
    assert torch.equal(losses(model.eval(), documents), before)
    assert not torch.isclose(before, after, rtol=1e-3).any()


@TIED
@pytest.mark.parametrize("target", ["text", "both"])
def test_saved_loaded_switched_and_merged(tmp_path, tied, target):
    shape = {"tie_word_embeddings": tied}
    base = base_folder(tmp_path / "base", **shape)
    one = adapter_folder(tmp_path / "one", base, seed=1, new_ids=IDS, target=target, **shape)
    two = adapter_folder(tmp_path / "two", base, seed=2, modules_to_save=["embed_tokens"], **shape)
    loaded = unimodal.load(base, "cpu", adapter=[one, two])
    documents = pack(loaded.model)
    expected = tiny_model(**shape)
    attach(expected, seed=1, new_ids=IDS, target=target)
    first = losses(loaded.model, documents)
    assert torch.equal(first, losses(expected, documents))
    words = loaded.complete("a red", max_tokens=5)
    loaded.set_adapter("two")
    loaded.set_adapter(None)
    assert torch.equal(losses(loaded.model, documents), losses(tiny_model(**shape), documents))
    loaded.set_adapter("one")
    assert torch.equal(losses(loaded.model, documents), first)
    merged = unimodal.load(merge_adapter(None, one, tmp_path / "merged"), "cpu")
    torch.testing.assert_close(losses(merged.model, documents), first, rtol=2e-4, atol=2e-4)
    assert merged.complete("a red", max_tokens=5) == words


def test_a_table_that_is_trained_whole_needs_no_rows():
    model = tiny_model(tie_word_embeddings=False)
    attach(model, new_ids=IDS, modules_to_save=["embed_tokens"])
    names = {name.partition(".")[0] for name in adapter_tensors(model) if "lora" not in name}
    assert names == {"embed_tokens", "lm_head"}
    assert adapter_tensors(model)["lm_head.token_adapter.trainable_tokens_delta"].shape == (3, 32)
    attach(other := tiny_model(), new_ids=IDS, new_tokens=False)
    assert all("lora" in name for name in adapter_tensors(other))


@pytest.mark.parametrize("name", ["qwen2", "llama"])  # tied and not; the second learns ChatML too
def test_training_learns_the_rows_that_init_added(tmp_path, name):
    make(name, tmp_path / "llm")
    PixelPatches(32).save(tmp_path / "codec")
    init_model(tmp_path / "llm", tmp_path / "codec", tmp_path / "ours", settings=["image_size=64"])
    recipe = {
        "model": {"init_from": str(tmp_path / "ours"), "lora": {"rank": 2, "target": "text"}},
        "data": {"sources": [{"source": "shapes", "tasks": {"vqa": 1}}], "tokens": 1024, "workers": 0},
        "train": {
            **{"steps": 2, "save_steps": 1, "precision": "fp32", "learning_rate": 0.01},
            "lr_scheduler_type": "constant",
        },
        "output": {"dir": str(tmp_path / "run")},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    folder = train(load_recipe(tmp_path / "recipe.yaml"))
    base = unimodal.load(tmp_path / "ours", "cpu")
    tokenizer = base.tokenizer
    ids = [tokenizer.image_start, tokenizer.image_end]
    ids = [tokenizer.im_start, tokenizer.im_end, *ids] if name == "llama" else ids
    saved = load_file(folder / "adapter_model.safetensors")
    for table in ("embed_tokens", "lm_head"):
        key = f"base_model.model.{table}.token_adapter.trainable_tokens_delta"
        assert (key in saved) == (table == "embed_tokens" or name == "llama")
        if key in saved:
            assert len(saved[key]) == len(ids)
            moved = (saved[key] - getattr(base.model, table).weight[ids]).abs().amax(1)
            assert (moved > 1e-3).all()
    with_adapter = unimodal.load(adapter=folder, device="cpu")
    assert torch.equal(
        with_adapter.model.embed_tokens.weight[ids],
        saved["base_model.model.embed_tokens.token_adapter.trainable_tokens_delta"],
    )
