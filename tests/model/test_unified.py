"""The model: packed equals alone, nothing looks at noise, gradients reach everything."""

import numpy as np
import pytest
import torch

from tests.documents import picture, random_document, tokenizer
from tests.models import tiny_model
from tests.paths.cases import codec_of
from unimodal.attention.door import use_backend
from unimodal.data.document import Document, Image, Text, Turn
from unimodal.diffusion.process import FLOW, velocity
from unimodal.images.signal import to_signal
from unimodal.paths.path import Corrupted, flatten
from unimodal.sequence.layout import layout
from unimodal.sequence.pack import pack_sequences


def lay(model, document):
    return layout(document, tokenizer(), model.path, model.multiple)


def noise_of_the_picture(truths, grids, generator):
    """Noise that depends on the picture alone, so that a document is noised alike wherever it is packed."""
    latents, owner = flatten(truths)
    eps = torch.sin(latents * 50)
    times = torch.full((len(truths),), 0.6)
    return Corrupted(FLOW.noised(latents, eps, torch.tensor(0.6)), velocity(latents, eps), owner, times)


@pytest.mark.parametrize("experts", ["shared", "mot"])
@pytest.mark.parametrize("backend", ["naive", "sdpa", "flash"])
def test_packed_equals_alone(monkeypatch, experts, backend):
    model = tiny_model(experts=experts)
    monkeypatch.setattr(model.path, "corrupt", noise_of_the_picture)
    use_backend(backend)
    sequences = [lay(model, random_document(np.random.default_rng(seed))) for seed in range(6)]
    together = model(pack_sequences(sequences, sum(map(len, sequences)) + 9), torch.Generator())
    use_backend("naive")
    alone = [model(pack_sequences([sequence]), torch.Generator()) for sequence in sequences]
    use_backend(None)
    torch.testing.assert_close(together.text, sum(x.text for x in alone), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(together.image, sum(x.image for x in alone), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(together.image_each, torch.cat([x.image_each for x in alone]))


def test_copies_of_a_drawn_picture_see_nothing_of_one_another(monkeypatch):
    """Three copies, each with noise of its own, have the losses that three documents would have."""
    document = next(
        d for d in (random_document(np.random.default_rng(seed)) for seed in range(99)) if _drawn(d) == 2
    )
    level = torch.tensor([0.2, 0.5, 0.9])

    def corrupt(truths, grids, generator):
        (latents, owner), images = flatten(truths), len(truths)
        t = level.repeat(images)[:images] if copies == 3 else level[at].expand(images)
        eps = torch.sin(latents * 50) * (1 + t[owner][:, None])
        return Corrupted(FLOW.noised(latents, eps, t[owner][:, None]), velocity(latents, eps), owner, t)

    results = {}
    for copies in (3, 1):
        model = tiny_model(times={"copies": copies})
        monkeypatch.setattr(model.path, "corrupt", corrupt)
        pack = pack_sequences([lay(model, document)])
        for at in range(3 if copies == 1 else 1):
            results[copies, at] = model(pack, torch.Generator())
    together, alone = results[3, 0], [results[1, at] for at in range(3)]
    torch.testing.assert_close(together.text, alone[0].text)
    each = together.image_each.unflatten(0, (2, 3))  # drawn picture, copy
    torch.testing.assert_close(each.T, torch.stack([one.image_each for one in alone]))


def _drawn(document) -> int:
    return sum(image.trained for image in document.images)


def test_later_text_never_sees_the_noise():
    """Two draws of noise give one text loss, and one with clean pictures gives another."""
    model = tiny_model()
    document = Document(
        (
            Turn("user", (Text("a red circle"),)),
            Turn("assistant", (Image(picture(np.random.default_rng(0)), True), Text("two", True))),
        )
    )
    pack = pack_sequences([lay(model, document)])
    first, second = (model(pack, torch.Generator().manual_seed(seed)) for seed in (1, 2))
    assert first.text == second.text
    assert first.image != second.image
    pack.pixels[0] = 255 - pack.pixels[0]
    assert model(pack, torch.Generator().manual_seed(1)).text != first.text


@pytest.mark.parametrize("experts", ["shared", "mot"])
def test_gradients_reach_every_weight_and_not_the_frozen_codec(experts):
    model = tiny_model(experts=experts, tie_word_embeddings=False, attention_bias=True)
    model.codec.requires_grad_(False)
    sequences = [lay(model, random_document(np.random.default_rng(seed))) for seed in range(6)]
    losses = model(pack_sequences(sequences), torch.Generator().manual_seed(0))
    (losses.text + losses.image).backward()
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            assert weight.grad is not None and weight.grad.abs().sum() > 0, name


def test_gradient_checkpointing_changes_nothing():
    sequences = None
    gradients = []
    for checkpointing in (False, True):
        model = tiny_model()
        sequences = sequences or [lay(model, random_document(np.random.default_rng(s))) for s in range(3)]
        if checkpointing:
            model.gradient_checkpointing_enable()
        losses = model(pack_sequences(sequences), torch.Generator().manual_seed(0))
        (losses.text + losses.image).backward()
        gradients.append(model.decoder.layers[0].experts[0].mlp.up_proj.weight.grad)
    assert torch.equal(*gradients)


def test_overfits_a_few_documents():
    model = tiny_model()
    sequences = [lay(model, random_document(np.random.default_rng(seed))) for seed in range(4)]
    pack = pack_sequences(sequences)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    values = []
    for _ in range(150):
        losses = model(pack, torch.Generator().manual_seed(0))
        loss = losses.text / (pack.labels >= 0).sum() + losses.image / 20
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(losses.text.item())
    assert values[-1] < 0.02 * values[0]


def test_text_only_pack_touches_the_path_for_all_reduce():
    model = tiny_model()
    document = Document((Turn("user", (Text("how many"),)), Turn("assistant", (Text("two", True),))))
    losses = model(pack_sequences([lay(model, document)]), torch.Generator())
    assert losses.image == 0
    losses.image.backward()
    assert model.path.head.weight.grad is not None


@pytest.mark.parametrize("codec", ["a network", "residual"])
def test_training_in_half_precision_sees_the_latents_and_codes_of_use(codec):
    model = tiny_model(0, codec_of(codec), path="masked" if codec == "residual" else "flow")
    pixels = [picture(np.random.default_rng(seed), 16, 16) for seed in range(8)]
    signal = to_signal(np.stack(pixels), model.device)
    encoder = model.codec.unquantized if model.codec.discrete else model.codec.to_raw
    latents, truths = model.encoded(pixels)
    with torch.autocast("cpu", torch.bfloat16):
        rounded, said = model.encoded(pixels)
        raw = encoder(signal)
    assert not torch.equal(raw.float(), encoder(signal))  # what it would have been
    for one, other in ((latents, rounded), (truths, said)):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
