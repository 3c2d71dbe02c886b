"""Conditions kept on disk: a cached run is an uncached one, and only what changed is read again."""

import numpy as np
import pytest
import torch

from tests.documents import picture
from tests.external.make import CONNECTORS, external_model
from tests.external.test_model import batch
from unimodal.data.document import Document, Image, Text, Turn
from unimodal.errors import UserError
from unimodal.external.cache import ConditionCache, key_of


def sealed(model):
    """The model with a reader whose hash is known."""
    note = model.config.reader.model_copy(update={"sha256": "a" * 64})
    model.config = model.config.model_copy(update={"reader": note})
    return model


@pytest.mark.parametrize("connector", ["hidden", "qformer"])
def test_a_cached_run_has_the_losses_of_an_uncached_one(tmp_path, connector):
    plain, cached = (sealed(external_model(connector)).train() for _ in range(2))
    cached.keep_conditions(tmp_path)
    asked, drawn = batch(6)
    for epoch in range(3):
        seed = torch.Generator().manual_seed(epoch)
        other = torch.Generator().manual_seed(epoch)
        first, second = plain(asked, drawn, seed), cached(asked, drawn, other)
        torch.testing.assert_close(first.image, second.image, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(first.image_each, second.image_each, rtol=1e-5, atol=1e-5)
        first.image.backward()
        second.image.backward()
        for a, b in zip(plain.connector.parameters(), cached.connector.parameters()):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-4)
    assert cached.cache.read_anew == len(asked)


@pytest.mark.parametrize("connector", ["queries", "prefilled"])
def test_what_is_read_of_positions_that_do_not_learn_is_kept_too(tmp_path, connector):
    """Under hashes of their own: neither another connector's nor another reader's are taken for them."""
    plain, cached, other = (sealed(external_model(connector, seed)).train() for seed in (0, 0, 1))
    asked, drawn = batch(6)
    with pytest.raises(UserError, match="changes as they learn"):
        cached.keep_conditions(tmp_path)
    for model in (plain, cached, other):
        model.connector.requires_grad_(False)
        model.reader = plain.reader
    cached.keep_conditions(tmp_path)
    for epoch in range(2):
        first, second = (m(asked, drawn, torch.Generator().manual_seed(epoch)) for m in (plain, cached))
        torch.testing.assert_close(first.image_each, second.image_each, rtol=1e-4, atol=1e-5)
        if first.embedding is not None:
            torch.testing.assert_close(first.embedding, second.embedding, rtol=1e-4, atol=1e-5)
    assert cached.cache.read_anew == len(asked)
    cached.cache.flush()
    again = sealed(external_model(connector)).train()
    again.connector.requires_grad_(False)
    again.keep_conditions(tmp_path)
    other.keep_conditions(tmp_path)
    assert (len(again.cache), len(other.cache)) == (6, 0)


def test_conditions_of_fixed_queries_are_kept_while_the_rest_learns(tmp_path, monkeypatch):
    fixed = CONNECTORS["queries"] | {"learned": False}
    monkeypatch.setitem(CONNECTORS, "queries", fixed | {"residual": True})
    residual = sealed(external_model()).train()
    monkeypatch.setitem(CONNECTORS, "queries", fixed)
    plain, cached = (sealed(external_model()).train() for _ in range(2))
    with pytest.raises(UserError, match="changes as they learn"):
        residual.keep_conditions(tmp_path)
    cached.keep_conditions(tmp_path)
    folder, (asked, drawn) = cached.cache.folder, batch(4)
    first, second = (m(asked, drawn, torch.Generator().manual_seed(0)) for m in (plain, cached))
    torch.testing.assert_close(first.image, second.image, rtol=1e-5, atol=1e-5)
    second.image.backward()
    with torch.no_grad():
        for weight in cached.connector.parameters():
            weight.sub_(0.01 * weight.grad)
    cached.keep_conditions(tmp_path)
    assert cached.cache.folder == folder


@pytest.mark.parametrize("connector", CONNECTORS)
def test_the_reader_reads_in_its_own_precision_whatever_training_computes_in(tmp_path, connector):
    plain, (asked, drawn) = sealed(external_model(connector)).train(), batch(6)
    before, _ = plain.read(asked)
    with torch.autocast("cpu", torch.bfloat16):
        hidden, _ = plain.read(asked)
        seen = plain.see(drawn)
    torch.testing.assert_close(hidden, before, rtol=1e-6, atol=1e-6)
    for (got, _), (expected, _) in zip(seen, plain.see(drawn)):
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)
    if plain.connector.appended is not None:
        return
    cached = sealed(external_model(connector)).train()
    cached.keep_conditions(tmp_path)
    with torch.autocast("cpu", torch.bfloat16):
        first, second = (m(asked, drawn, torch.Generator().manual_seed(0)) for m in (plain, cached))
    assert plain.denoiser.head.weight.dtype == torch.float32 and first.image.isfinite()
    torch.testing.assert_close(first.image_each, second.image_each, rtol=1e-3, atol=1e-3)


def test_another_run_reads_nothing_anew_and_another_reader_everything(tmp_path):
    model, (asked, _) = external_model("hidden"), batch(6)
    layers = model.connector.tap.layers

    def run(sha256="a" * 64, layers=layers, shard_bytes=1):
        cache = ConditionCache(tmp_path, sha256, layers, shard_bytes)
        hidden, mask = cache.read(model.reader, asked, torch.device("cpu"))
        return cache, hidden, mask

    first, hidden, mask = run()
    assert first.read_anew == 6
    again, kept, kept_mask = run()
    assert again.read_anew == 0 and len(again) == 6
    assert torch.equal(hidden, kept) and torch.equal(mask, kept_mask)
    assert run("b" * 64)[0].read_anew == 6
    assert run(layers=[0, *layers])[0].read_anew == 6
    real, there = model.reader.read(asked, layers)
    for row in range(6):
        torch.testing.assert_close(kept[row][kept_mask[row]], real[row][there[row]], rtol=1e-5, atol=1e-5)


def test_what_waits_is_written_when_asked(tmp_path):
    model, (asked, _) = external_model("hidden"), batch(3)
    cache = ConditionCache(tmp_path, "a", [2])
    cache.read(model.reader, asked + asked[:1], torch.device("cpu"))
    assert cache.read_anew == 3 and not list(cache.folder.iterdir())
    cache.flush()
    assert len(list(cache.folder.iterdir())) == 1
    assert len(ConditionCache(tmp_path, "a", [2])) == 3


def test_the_key_is_all_that_is_said_and_shown():
    rng = np.random.default_rng(0)
    pixels = picture(rng)
    other = pixels.copy()
    other[0, 0, 0] ^= 1
    flat = pixels.reshape(4, 16, 3)
    documents = [
        Document((Turn("user", (Text("a red"), Text(" circle"))),)),
        Document((Turn("user", (Text("a red circle"),)),)),
        Document((Turn("system", (Text("a red circle"),)),)),
        Document((Turn("user", (Text("a red circle"),)), Turn("assistant", ()))),
        *(Document((Turn("user", (Image(one), Text("a red circle"))),)) for one in (pixels, other, flat)),
        Document((Turn("user", (Text("a red circle"), Image(pixels))),)),
    ]
    assert len({key_of(document) for document in documents}) == len(documents)
    same = Document((Turn("user", (Text("a red circle", True),)),), "elsewhere:3")
    assert key_of(same) == key_of(documents[1])


def test_mistakes_are_sentences(tmp_path):
    with pytest.raises(UserError, match="puts positions of its own behind"):
        sealed(external_model("queries")).keep_conditions(tmp_path)
    cache = ConditionCache(tmp_path, "a", [2])
    (cache.folder / "shard-1.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match="cannot be used"):
        ConditionCache(tmp_path, "a", [2])
