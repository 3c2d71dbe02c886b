"""Saved models: a round trip is exact, and what is damaged is refused in words."""

import json
import shutil

import pytest
import torch

import unimodal
from tests.models import tiny
from unimodal.errors import UserError
from unimodal.model.folder import save_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny"
    model = tiny()
    save_model(path, model.model, model.tokenizer)
    return path


def test_round_trip(folder):
    model, again = tiny(), unimodal.load(folder)
    for (name, ours), theirs in zip(model.model.state_dict().items(), again.model.state_dict().values()):
        assert torch.equal(ours, theirs), name
    prompt = "a red circle"
    ours, theirs = (m.generate(prompt, seed=3)[0].tobytes() for m in (model, again))
    assert ours == theirs
    assert again.config == model.config


def test_drop_table_and_null_travel_with_the_model(folder):
    config = json.loads((folder / "config.json").read_text())
    assert config["drop"] == {"text": 0.2, "image": 0.1, "both": 0.1}
    assert config["null"] == "removed"


def test_half_precision_storage_is_read_as_float32(tmp_path):
    model = tiny()
    save_model(tmp_path / "half", model.model, model.tokenizer, torch.float16)
    again = unimodal.load(tmp_path / "half").model.embed_tokens.weight
    assert again.dtype == torch.float32
    torch.testing.assert_close(again, model.model.embed_tokens.weight, atol=1e-3, rtol=1e-3)


def test_what_stands_between_codec_and_decoder_is_not_rounded(tmp_path):
    model = tiny(reference="cells")
    save_model(tmp_path / "whole", model.model, model.tokenizer)
    again = unimodal.load(tmp_path / "whole", dtype="bfloat16").model.state_dict()
    for name, value in model.model.state_dict().items():
        exact = name.startswith(("path.", "places.", "reference.", "codec."))
        assert torch.equal(again[name], value if exact else value.bfloat16()), name


@pytest.mark.parametrize("name", ["my models/llama", "owner/na:me", "~/model"])
def test_a_name_that_no_hub_has_is_a_missing_model(name):
    with pytest.raises(UserError, match=rf"no model '{name}'.*expected a folder"):
        unimodal.load(name)


def test_float16_is_not_written_where_it_would_be_infinite(tmp_path):
    model = tiny()
    with torch.no_grad():
        model.model.decoder.norm.weight[0] = 1e5
    with pytest.raises(UserError, match=r"decoder\.norm\.weight reaches 1e\+05, which float16 cannot hold"):
        save_model(tmp_path / "half", model.model, model.tokenizer, torch.float16)
    save_model(tmp_path / "wide", model.model, model.tokenizer, torch.bfloat16)


def test_transformers_reads_the_tokenizer(folder):
    from transformers import AutoTokenizer

    text = "a red circle, größer 圆 🙂"
    assert AutoTokenizer.from_pretrained(folder).encode(text) == tiny().tokenizer.encode(text)


def damage(folder, tmp_path, change):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    change(copy)
    return copy


def unknown_key(copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"hiden_size": 3}))


def other_width(copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"intermediate_size": 64}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (unknown_key, "hiden_size"),
        (other_width, "do not fit"),
        (lambda copy: (copy / "model.safetensors").write_bytes(b"short"), "damaged"),
        (lambda copy: (copy / "model.safetensors").unlink(), "do not fit|damaged"),
        (lambda copy: (copy / "config.json").unlink(), "no config.json"),
        (lambda copy: (copy / "tokenizer.json").unlink(), "tokenizer"),
        (lambda copy: shutil.rmtree(copy / "codec"), "codec"),
    ],
)
def test_damage_is_refused(folder, tmp_path, change, words):
    with pytest.raises(UserError, match=words):
        unimodal.load(damage(folder, tmp_path, change))


def test_unknown_name_is_refused():
    with pytest.raises(UserError, match="no model 'shapes-bse'"):
        unimodal.load("shapes-bse")
