"""Adapters of a loaded model: at hand, switched, off, refused."""

import json

import pytest
import torch

import unimodal
from tests.adapters.make import adapter_folder, attach, base_folder, losses, pack
from tests.models import tiny, tiny_model
from unimodal.adapters.merge import merge_adapter
from unimodal.adapters.section import Settings
from unimodal.adapters.shelf import named
from unimodal.errors import UserError
from unimodal.model.config import DropTable, Sampling, Writing


@pytest.fixture
def base(tmp_path):
    return base_folder(tmp_path / "base")


def expected(model, seed, **options):
    other = tiny_model()
    attach(other, seed, **options)
    return losses(other, pack(model))


def test_several_are_at_hand_and_one_is_used(tmp_path, base):
    first = {"target": "both", "modules_to_save": ["path.head"]}
    second = {"target": "image", "use_dora": True, "modules_to_save": ["embed_tokens"]}
    one = adapter_folder(tmp_path / "tiles" / "adapter", base, seed=1, **first)
    two = adapter_folder(tmp_path / "emoji", base, seed=2, **second)
    loaded = unimodal.load(base, "cpu", adapter=[one, f"faces={two}"])
    assert loaded.adapters == ("tiles", "faces")
    assert loaded.name == f"{base} + tiles"
    documents = pack(loaded.model)
    for name, seed, options in (("faces", 2, second), ("tiles", 1, first), ("faces", 2, second)):
        loaded.set_adapter(name)
        assert loaded.adapter == name
        assert torch.equal(losses(loaded.model, documents), expected(loaded.model, seed, **options))
    loaded.set_adapter(None)
    assert loaded.adapter is None
    assert loaded.name == str(base)
    assert torch.equal(losses(loaded.model, documents), losses(tiny_model(), documents))
    with pytest.raises(
        UserError, match=r"no adapter 'face' \(did you mean 'faces'\?\); at hand: tiles, faces"
    ):
        loaded.set_adapter("face")


def test_an_adapter_knows_its_model(tmp_path, base):
    folder = adapter_folder(tmp_path / "run" / "adapter", base, seed=3)
    whole = unimodal.load(base, "cpu", adapter=folder)
    for loaded in (unimodal.load(adapter=folder, device="cpu"), unimodal.load(folder, "cpu")):
        assert (loaded.adapter, loaded.base) == ("run", str(base))
        assert loaded.complete("a red", max_tokens=5) == whole.complete("a red", max_tokens=5)
    assert unimodal.load(base, "cpu").adapters == ()
    with pytest.raises(UserError, match="name a model to load, or an adapter"):
        unimodal.load()


def test_its_settings_come_and_go_with_it(tmp_path, base):
    settings = Settings.of(tiny_model().config).model_copy(
        update={
            "sampling": Sampling(steps=2),
            "writing": Writing(plan=7),
            "drop": DropTable(text=0.5, image=0, both=0),
        }
    )
    folder = adapter_folder(tmp_path / "it", base, settings=settings)
    loaded = unimodal.load(base, "cpu", adapter=folder)
    own = tiny_model().config
    assert (loaded.config.sampling.steps, loaded.model.path.sampling.steps) == (2, 2)
    assert (loaded.config.drop.text, loaded.writing.plan) == (0.5, 7)
    loaded.set_adapter(None)
    assert loaded.config == own
    assert loaded.model.path.sampling == own.sampling


def test_every_verb_works_with_one(tmp_path, base):
    folder = adapter_folder(tmp_path / "it", base, target="image", use_dora=True)
    loaded, plain = unimodal.load(adapter=folder, device="cpu"), unimodal.load(base, "cpu")
    drawn, before = loaded.generate("a red circle")[0], plain.generate("a red circle")[0]
    assert drawn.tobytes() != before.tobytes()
    assert loaded.edit(before, "make it green")[0].size == before.size
    assert isinstance(loaded.answer(before, "how many", max_tokens=3), str)
    assert loaded.complete("two", max_tokens=6) == plain.complete("two", max_tokens=6)


def test_another_base_is_refused_by_its_weights(tmp_path, base):
    folder = adapter_folder(tmp_path / "it", base)
    other = base_folder(tmp_path / "other", seed=1)
    with pytest.raises(UserError, match=r"was trained on .*base.*, but .*other has other weights"):
        unimodal.load(other, "cpu", adapter=folder)
    with pytest.raises(UserError, match="was not loaded from a folder"):
        tiny().add_adapter(folder)
    loaded = unimodal.load(other, "cpu")
    with pytest.raises(UserError, match="has other weights"):
        loaded.add_adapter(folder)
    assert loaded.adapters == ()


def test_a_damaged_adapter_leaves_the_model_as_it_was(tmp_path, base):
    folder = adapter_folder(tmp_path / "it", base, target="text")
    wrong = adapter_folder(tmp_path / "wrong", base, target="image")
    (folder / "adapter_model.safetensors").write_bytes((wrong / "adapter_model.safetensors").read_bytes())
    loaded = unimodal.load(base, "cpu")
    loaded.add_adapter(folder)
    with pytest.raises(UserError, match="is damaged or not of this model"):
        loaded.set_adapter("it")
    assert loaded.adapter is None
    assert torch.equal(losses(loaded.model, pack(loaded.model)), losses(tiny_model(), pack(loaded.model)))


@pytest.mark.parametrize(
    "change",
    [
        {"r": 0},
        {"lora_alpha": "much"},
        {"target_modules": r"nothing\.here"},
        {"target_modules": "("},
        {"modules_to_save": ["path.head"]},
        {"trainable_token_indices": {"embed_tokens": [10**6]}},
    ],
)
def test_what_cannot_be_put_in_leaves_the_model_as_it_was(tmp_path, base, change):
    settings = Settings.of(tiny_model().config).model_copy(update={"sampling": Sampling(steps=2)})
    folder = adapter_folder(tmp_path / "it", base, settings=settings)
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    loaded = unimodal.load(base, "cpu")
    loaded.add_adapter(folder)
    for _ in range(2):
        with pytest.raises(UserError, match=r"it (cannot be put into this model|is damaged or not of this)"):
            loaded.set_adapter("it")
        assert loaded.adapter is None
        assert loaded.config == tiny_model().config
        assert loaded.model.state_dict().keys() == tiny_model().state_dict().keys()
        assert torch.equal(losses(loaded.model, pack(loaded.model)), losses(tiny_model(), pack(loaded.model)))
    with pytest.raises(UserError, match=r"it (cannot be put into this model|is damaged or not of this)"):
        merge_adapter(base, folder, tmp_path / "merged")


def test_names(tmp_path):
    run = tmp_path / "tiles" / "adapter"
    run.mkdir(parents=True)
    odd = tmp_path / "a=b"
    odd.mkdir()
    assert named(run) == {"tiles": run}
    assert named([f"mine={run}", tmp_path / "tiles"]) == {"mine": run, "tiles": tmp_path / "tiles"}
    assert named({"x": str(run)}) == {"x": run}
    assert named(str(odd)) == {"a=b": odd}
    assert named(None) == {}
    with pytest.raises(UserError, match="two adapters would be called 'tiles'"):
        named([run, tmp_path / "tiles"])
    with pytest.raises(UserError, match="cannot be called 'off'"):
        named(f"off={run}")
