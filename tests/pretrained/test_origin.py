"""A checkpoint's own chat template and ends are kept beside our tokenizer and given back on export."""

import json
import logging
import pickle

import pytest
import torch
import yaml
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

import unimodal
from tests.pretrained.checkpoints import HEADERS, make
from unimodal.images.codec import PixelPatches
from unimodal.pretrained.export import export_llm
from unimodal.pretrained.initialise import init_model
from unimodal.sequence.tokenizer import Tokenizer
from unimodal.training.config import load_recipe
from unimodal.training.loop import train

MESSAGES = [{"role": "user", "content": "a red circle"}, {"role": "assistant", "content": "two"}]
LIVELY = {"do_sample": True, "temperature": 0.6, "top_p": 0.9}


def edit(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.fixture
def parts(tmp_path):
    """A Llama-like checkpoint that ends its turns by tokens of its own, and what it becomes."""
    make("llama", tmp_path / "llm")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "llm")
    ends = theirs.convert_tokens_to_ids(["<|end_of_text|>", "<|eot_id|>"])
    start = theirs.convert_tokens_to_ids("<|begin_of_text|>")
    ids = {"bos_token_id": start, "eos_token_id": ends}
    edit(tmp_path / "llm" / "config.json", **ids)
    edit(tmp_path / "llm" / "generation_config.json", **ids, **LIVELY)
    PixelPatches(32).save(tmp_path / "codec")

    def build():
        init_model(tmp_path / "llm", tmp_path / "codec", tmp_path / "ours", settings=["image_size=64"])
        return theirs, ends

    return build


def assert_given_back(folder, theirs, ends):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.chat_template == theirs.chat_template == HEADERS
    assert tokenizer.eos_token == "<|eot_id|>"
    for add in (False, True):
        options = {"add_generation_prompt": add, "return_dict": False}
        assert tokenizer.apply_chat_template(MESSAGES, **options) == theirs.apply_chat_template(
            MESSAGES, **options
        )
    assert AutoConfig.from_pretrained(folder).eos_token_id == ends
    generation = GenerationConfig.from_pretrained(folder)
    assert generation.eos_token_id == [*ends, tokenizer.convert_tokens_to_ids("<|im_end|>")]
    assert generation.bos_token_id == theirs.convert_tokens_to_ids("<|begin_of_text|>")
    assert {key: getattr(generation, key) for key in LIVELY} == LIVELY
    assert not (folder / "origin.json").exists()


def test_template_and_ends_are_given_back_also_after_fine_tuning(parts, tmp_path):
    theirs, ends = parts()
    export_llm(str(tmp_path / "ours"), tmp_path / "back")
    assert_given_back(tmp_path / "back", theirs, ends)
    recipe = {
        "model": {"init_from": str(tmp_path / "ours"), "drop": {"text": 0.3, "image": 0.1, "both": 0.1}},
        "data": {"sources": [{"source": "shapes"}], "tokens": 2048, "workers": 0},
        "train": {"steps": 1, "logging_steps": 1, "save_steps": 1, "precision": "fp32"},
        "output": {"dir": str(tmp_path / "run")},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    train(load_recipe(tmp_path / "recipe.yaml"))
    export_llm(str(tmp_path / "run" / "model"), tmp_path / "trained")
    assert_given_back(tmp_path / "trained", theirs, ends)


def test_generation_stops_at_the_end_of_a_turn_as_it_is_learned_here(parts, tmp_path):
    """A model that says nothing but one token, as transformers generates from it."""
    _, ends = parts()
    export_llm(str(tmp_path / "ours"), tmp_path / "back")
    model, tokenizer = (
        kind.from_pretrained(tmp_path / "back") for kind in (AutoModelForCausalLM, AutoTokenizer)
    )
    asked = torch.tensor([tokenizer("a red circle").input_ids])
    learned, other = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|image_start|>"])
    for said, length in ((learned, 1), (ends[0], 1), (other, 4)):

        def always(_, scores, said=said):
            return torch.full_like(scores, -torch.inf).index_fill(1, torch.tensor([said]), 0.0)

        answer = model.generate(asked, max_new_tokens=4, logits_processor=[always], do_sample=False)
        assert answer[0, asked.shape[1] :].tolist() == [said] * length


@pytest.mark.parametrize(("name", "ends"), [("qwen2", "<|im_end|>"), ("mistral", ["</s>", "<|im_end|>"])])
def test_an_end_is_added_where_it_is_missing(tmp_path, name, ends):
    make(name, tmp_path / "llm")
    PixelPatches(32).save(tmp_path / "codec")
    init_model(tmp_path / "llm", tmp_path / "codec", tmp_path / "ours", settings=["image_size=64"])
    export_llm(str(tmp_path / "ours"), tmp_path / "back")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "back")
    found = GenerationConfig.from_pretrained(tmp_path / "back").eos_token_id
    assert found == tokenizer.convert_tokens_to_ids(ends)


def test_ours_are_kept_in_our_own_folders(parts, tmp_path):
    parts()
    saved = AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert "<|im_start|>" in saved.chat_template and saved.eos_token == "<|im_end|>"
    tokenizer = Tokenizer.load(tmp_path / "ours")
    assert pickle.loads(pickle.dumps(tokenizer)).origin == tokenizer.origin
    added = ["<|im_start|>", "<|im_end|>", "<|image_start|>", "<|image_end|>"]
    assert tokenizer.new_ids == saved.convert_tokens_to_ids(added)


def test_several_templates_are_given_back_by_name(parts, tmp_path):
    (tmp_path / "llm" / "chat_template.jinja").unlink()
    named = [{"name": "default", "template": HEADERS}, {"name": "tools", "template": "tools" + HEADERS}]
    edit(tmp_path / "llm" / "tokenizer_config.json", chat_template=named)
    parts()
    export_llm(str(tmp_path / "ours"), tmp_path / "back")
    found = AutoTokenizer.from_pretrained(tmp_path / "back").chat_template
    assert found == {one["name"]: one["template"] for one in named}


def test_a_base_model_has_turns_and_ends_in_chatml(parts, tmp_path, caplog):
    (tmp_path / "llm" / "chat_template.jinja").unlink()
    with caplog.at_level(logging.WARNING):
        parts()
    assert "it has no chat template" in caplog.text
    export_llm(str(tmp_path / "ours"), tmp_path / "back")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "back")
    assert "<|im_start|>" in tokenizer.chat_template
    generation = GenerationConfig.from_pretrained(tmp_path / "back")
    assert generation.eos_token_id == tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|end_of_text|>"])
    assert generation.temperature == LIVELY["temperature"]


@pytest.mark.parametrize("broken", ["[1]", '{"added": 3}', "\udc80"])
def test_a_broken_note_is_told(parts, tmp_path, broken):
    parts()
    (tmp_path / "ours" / "origin.json").write_bytes(broken.encode("utf-8", "surrogateescape"))
    with pytest.raises(unimodal.UserError, match=r"origin\.json cannot be understood"):
        unimodal.load(tmp_path / "ours", "cpu")
