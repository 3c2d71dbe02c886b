"""An adapter in a model: what it computes, where it works, and what it leaves alone."""

import numpy as np
import pytest
import torch

from tests.adapters.make import adapter_tensors, attach, by_hand, losses, pack
from tests.documents import picture
from tests.models import tiny_model
from unimodal.adapters.attached import Attached
from unimodal.adapters.section import LoraSection
from unimodal.adapters.targets import lora_config
from unimodal.data.document import Document, Image, Text, Turn
from unimodal.errors import UserError

TARGETS = ["text", "image", "both"]


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("experts", ["shared", "mot"])
def test_computes_what_its_definition_says(experts, target, dora):
    model = tiny_model(experts=experts)
    weights = {name: w.clone() for name, w in model.state_dict().items()}
    documents = pack(model)
    before = losses(model, documents)
    attach(model, target=target, use_dora=dora, modules_to_save=["embed_tokens", "path.head"])
    expected = by_hand(weights, adapter_tensors(model), 6 / 3, target)
    after = losses(model, documents)
    torch.testing.assert_close(after, losses(expected, documents), rtol=2e-4, atol=2e-4)
    assert not torch.isclose(after, before, rtol=1e-3).any()


@pytest.mark.parametrize("target", TARGETS)
def test_new_adapter_changes_nothing_and_a_detached_one_leaves_the_base(target):
    model = tiny_model()
    documents = pack(model)
    before, names = losses(model, documents), set(model.state_dict())
    section = LoraSection(target=target, modules_to_save=["embed_tokens", "path"])
    attached = Attached(model, lora_config(model, section, "base"), target)
    assert torch.equal(losses(model, documents), before)
    attached.detach()
    attach(model, target=target, use_dora=True, modules_to_save=["path.head"]).detach()
    assert torch.equal(losses(model, documents), before)
    assert set(model.state_dict()) == names
    assert not any(module._forward_pre_hooks for module in model.modules())


def run(model, is_image):
    """Hidden states of random embeddings, with the given positions as images."""
    from unimodal.attention.door import make_plan
    from unimodal.sequence.mask import Marks

    length = is_image.shape[1]
    zero = torch.zeros(1, length, dtype=torch.long)
    marks = Marks(zero, torch.arange(length)[None], zero, zero.bool())
    embeds = torch.randn(1, length, 32, generator=torch.Generator().manual_seed(1))
    position = torch.arange(length)[None, :, None].expand(-1, -1, 3)
    return model.decoder(embeds, position, make_plan(marks), is_image)


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("experts", ["shared", "mot"])
def test_each_modality_is_left_alone_by_the_others_adapter(experts, dora):
    images, texts = torch.ones(1, 9, dtype=torch.bool), torch.zeros(1, 9, dtype=torch.bool)
    plain = tiny_model(experts=experts)
    for target, own, other in (("text", texts, images), ("image", images, texts)):
        model = tiny_model(experts=experts)
        attach(model, target=target, use_dora=dora)
        assert torch.equal(run(model, other), run(plain, other))
        assert not torch.isclose(run(model, own), run(plain, own)).all()


def test_words_without_pictures_are_the_bases_under_an_image_adapter():
    plain, model = tiny_model(), tiny_model()
    attach(model, target="image")
    words = Document((Turn("user", (Text("a red circle"),)), Turn("assistant", (Text("two", True),))))
    assert torch.equal(losses(model, pack(model, [words])), losses(plain, pack(plain, [words])))
    shown = Image(picture(np.random.default_rng(0)), False)
    seen = Document((Turn("user", (shown, Text("how many"))), Turn("assistant", (Text("two", True),))))
    assert not torch.equal(losses(model, pack(model, [seen])), losses(plain, pack(plain, [seen])))


@pytest.mark.parametrize("target", TARGETS)
def test_gradients_reach_the_whole_adapter_and_nothing_else(target):
    model = tiny_model()
    model.codec.requires_grad_(False)
    attach(model, target=target, use_dora=True, modules_to_save=["embed_tokens"])
    out = model(pack(model), torch.Generator().manual_seed(0))
    (out.text + out.image).backward()
    for name, weight in model.named_parameters():
        own = "lora" in name or "modules_to_save" in name
        assert weight.requires_grad == own, name
        assert (weight.grad is not None and weight.grad.abs().sum() > 0) == own, name


def test_gradient_checkpointing_keeps_the_places_of_a_modality():
    gradients = []
    for checkpointing in (False, True):
        model = tiny_model()
        attach(model, target="image")
        if checkpointing:
            model.gradient_checkpointing_enable()
        out = model.train()(pack(model), torch.Generator().manual_seed(0))
        run(model, torch.zeros(1, 4, dtype=torch.bool))  # another forward before the backward
        (out.text + out.image).backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    assert all(torch.equal(first, second) for first, second in zip(*gradients))


@pytest.mark.parametrize("target", TARGETS)
def test_dropout_is_for_training_alone(target):
    model = tiny_model()
    section = LoraSection(target=target, dropout=0.5, rank=4)
    Attached(model, lora_config(model, section, "base"), target)
    assert not any(module.training for module in model.modules())
    for name, tensor in adapter_tensors(model).items():
        torch.nn.init.normal_(tensor, std=0.2) if "lora_B" in name else None
    documents = pack(model)
    assert torch.equal(losses(model, documents), losses(model, documents))
    model.train()
    assert not torch.equal(losses(model, documents), losses(model, documents))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("head", r"is no module \(did you mean 'path\.head'\?\)"),
        ("path.hed", r"did you mean 'path\.head'"),
        ("lm_head", "not tied"),
        ("decoder", "block weights"),
        ("decoder.layers.0", "block weights"),
        ("codec", "codec"),
    ],
)
def test_modules_that_cannot_be_trained_in_full_are_refused(name, told):
    model = tiny_model()
    with pytest.raises(UserError, match=told):
        lora_config(model, LoraSection(modules_to_save=[name]), "base")


def test_weights_of_another_adapter_are_refused():
    model = tiny_model()
    attached = attach(model, target="text")
    good = {name: tensor.clone() for name, tensor in adapter_tensors(model).items()}
    name = next(iter(good))
    with pytest.raises(UserError, match=rf"it lacks {name}"):
        attached.fill({n: t for n, t in good.items() if n != name}, "here")
    with pytest.raises(UserError, match=r"unknown to the model, zzz"):
        attached.fill(good | {"zzz": torch.zeros(1)}, "here")
    with pytest.raises(UserError, match=r"has shape \(7,\)"):
        attached.fill(good | {name: torch.zeros(7)}, "here")
