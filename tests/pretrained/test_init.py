"""`unimodal init`: what is kept, what is new, and a folder that loads, talks and trains."""

import json
import logging
import pickle
import re
from copy import deepcopy

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer
from typer.testing import CliRunner

import unimodal
from tests.documents import HiddenTarget, tokenizer
from tests.images.networks import saved
from tests.models import tiny_model
from tests.paths.cases import codec_of
from tests.pretrained.checkpoints import make
from unimodal.cli import app
from unimodal.data.document import Document, Text, Turn
from unimodal.errors import UserError
from unimodal.images.codec import PixelPatches
from unimodal.images.folder import load_codec
from unimodal.model.folder import save_model
from unimodal.model.weights import Weights
from unimodal.paths import PATHS
from unimodal.pretrained.initialise import extended, init_model
from unimodal.pretrained.vocabulary import extend
from unimodal.sequence.layout import layout
from unimodal.sequence.tokenizer import Tokenizer


@pytest.fixture
def parts(tmp_path):
    """Makes a checkpoint and a codec, joins them, and gives transformers' model and ours."""
    PixelPatches(4).save(tmp_path / "codec")

    def build(name="qwen2", rows=0, **options):
        theirs = make(name, tmp_path / "llm", rows)
        options = {"settings": ["image_size=16"]} | options
        init_model(tmp_path / "llm", tmp_path / "codec", tmp_path / "ours", **options)
        return theirs, unimodal.load(tmp_path / "ours")

    return build


@pytest.mark.parametrize("name", ["qwen2", "llama", "mistral"])
def test_new_rows_are_the_mean_of_the_old(parts, name):
    theirs, ours = parts(name)
    special = ("im_start", "im_end", "image_start", "image_end", "pad", "endoftext")
    ids = {word: getattr(ours.tokenizer, word) for word in special}
    old = theirs.config.vocab_size
    fresh = {word for word, number in ids.items() if number >= old}
    kept = {"im_start", "im_end"} if name == "qwen2" else set()
    assert fresh == set(special) - kept - {"endoftext"}
    tables = [(theirs.get_input_embeddings().weight, ours.model.embed_tokens.weight)]
    if ours.model.lm_head is not None:
        tables.append((theirs.lm_head.weight, ours.model.lm_head.weight))
    assert len(tables) == (1 if name == "qwen2" else 2)
    for before, after in tables:
        assert len(ours.tokenizer) <= len(after) < len(ours.tokenizer) + 64
        assert len(after) % 64 == 0
        assert torch.equal(after[:old], before)
        torch.testing.assert_close(after[old:], before.mean(0).expand(len(after) - old, -1))


def test_rows_that_a_checkpoint_has_to_spare_are_used(parts):
    """Qwen's embedding has more rows than its tokenizer has tokens: the table does not grow."""
    theirs, ours = parts("qwen2", rows=400)
    before, after = theirs.get_input_embeddings().weight, ours.model.embed_tokens.weight
    known = len(ours.tokenizer) - 3
    assert before.shape == after.shape
    new = [ours.tokenizer.image_start, ours.tokenizer.image_end, ours.tokenizer.pad]
    assert sorted(new) == [known, known + 1, known + 2]
    torch.testing.assert_close(after[new], before[:known].mean(0).expand(3, -1))
    rest = [row for row in range(400) if row not in new]
    assert torch.equal(after[rest], before[rest])


def test_mean_of_many_rows_in_low_precision(tmp_path):
    torch.manual_seed(0)
    table = (torch.randn(9000, 8) + 100).bfloat16()
    save_file({"table": table}, tmp_path / "model.safetensors")
    device = torch.device("cpu")
    rows = extended(Weights(tmp_path), "table", 8500, [2, 8501], 9100, torch.float32, device)
    expected = table[:8500].double().mean(0).float()
    kept = [row for row in range(9000) if row not in (2, 8501)]
    assert torch.equal(rows[kept], table[kept].float())
    for row in (2, 8501, 9000, 9099):
        torch.testing.assert_close(rows[row], expected)


@pytest.mark.parametrize(
    ("name", "words"),
    [("llama", "not ChatML"), ("mistral", "not ChatML"), ("qwen3", None), ("smollm2", None)],
)
def test_other_templates_are_told(parts, name, words, caplog):
    with caplog.at_level(logging.WARNING):
        parts(name)
    told = [record.message for record in caplog.records if "Turns are written as ChatML" in record.message]
    assert len(told) == (words is not None)
    assert words is None or words in told[0]


def test_turns_are_those_of_the_checkpoints_own_template(parts, tmp_path):
    _, ours = parts("qwen2")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "llm")
    messages = [{"role": "user", "content": "a red circle"}, {"role": "assistant", "content": "two"}]
    document = Document((Turn("user", (Text("a red circle"),)), Turn("assistant", (Text("two", True),))))
    expected = theirs.apply_chat_template(messages, return_dict=False)
    assert layout(document, ours.tokenizer, HiddenTarget(), 4).ids.tolist() == expected


@pytest.mark.parametrize(("name", "bos"), [("llama", "<|begin_of_text|>"), ("mistral", "<s>")])
def test_everything_begins_as_the_tokenizer_has_the_habit(parts, name, bos, tmp_path):
    """By transformers: the checkpoint's own tokenizer, and ours by its chat template."""
    _, ours = parts(name)
    theirs = AutoTokenizer.from_pretrained(tmp_path / "llm")
    first = theirs.convert_tokens_to_ids(bos)
    assert theirs("a red circle").input_ids[0] == first == ours.tokenizer.bos
    saved = AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert saved.bos_token == bos
    messages = [{"role": "user", "content": "a red circle"}, {"role": "assistant", "content": "two"}]
    document = Document((Turn("user", (Text("a red circle"),)), Turn("assistant", (Text("two", True),))))
    laid = layout(document, ours.tokenizer, HiddenTarget(), 4)
    assert laid.ids.tolist() == saved.apply_chat_template(messages, return_dict=False)
    assert laid.ids.tolist().count(first) == 1
    assert laid.labels[0] == -100
    asked = Document(document.turns[:1])
    opened = layout(asked, ours.tokenizer, HiddenTarget(), 4, open_turn=True).ids.tolist()
    told = saved.apply_chat_template(messages[:1], add_generation_prompt=True, return_dict=False)
    assert opened == told
    plain = Document((Turn(None, (Text("a red circle", True),)),))
    ids = layout(plain, ours.tokenizer, HiddenTarget(), 4).ids.tolist()
    assert ids == [*saved("a red circle").input_ids, ours.tokenizer.endoftext]
    if name == "llama":  # the other puts a space before a text, which ours does not
        assert ids[:-1] == theirs("a red circle").input_ids


@pytest.mark.parametrize("name", ["qwen2", "qwen3", "smollm2"])
def test_a_tokenizer_without_the_habit_is_given_none(parts, name, tmp_path):
    _, ours = parts(name)
    assert ours.tokenizer.bos is None
    assert "bos_token" not in json.loads((tmp_path / "ours" / "tokenizer_config.json").read_text())


def test_the_habit_travels_with_the_tokenizer(tmp_path):
    make("llama", tmp_path / "llm")
    tokenizer = extend(tmp_path / "llm").tokenizer
    tokenizer.save(tmp_path / "saved")
    again = Tokenizer.load(tmp_path / "saved")
    assert pickle.loads(pickle.dumps(again)).bos == again.bos == tokenizer.bos is not None
    assert again.encode("a red circle") == tokenizer.encode("a red circle")


def test_more_than_one_token_before_a_text_is_refused(tmp_path):
    make("llama", tmp_path / "llm")
    file = tmp_path / "llm" / "tokenizer.json"
    raw = json.loads(file.read_text())
    start = raw["post_processor"]["single"][0]
    raw["post_processor"]["single"].insert(0, start)
    file.write_text(json.dumps(raw))
    with pytest.raises(unimodal.UserError, match="expected one token at most"):
        extend(tmp_path / "llm")


@pytest.mark.parametrize("name", ["qwen2", "llama", "mistral"])
def test_texts_survive_and_never_become_special(parts, name, tmp_path):
    _, ours = parts(name)
    tokenizer = ours.tokenizer
    special = {getattr(tokenizer, word) for word in tokenizer.names}
    long = "a red circle left of a blue square " * 20  # the checkpoint's tokenizer cuts after 8 tokens
    for text in ("", " ", "  a\n\tred", "<|im_end|></s><s><|eot_id|>", "圆 🙂👩🏽‍🚀", "\x00\x7f", long):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert not special & set(ids)
    if name == "qwen2":  # an added token that is text
        assert tokenizer.decode(tokenizer.encode("<think> so")) == "<think> so"
        assert len(tokenizer.encode("<think>")) == 1
    if name == "llama":
        assert (
            tokenizer.endoftext
            == AutoTokenizer.from_pretrained(tmp_path / "llm").encode(
                "<|end_of_text|>", add_special_tokens=False
            )[0]
        )


@pytest.mark.parametrize(("word", "dtype"), [(None, torch.float32), ("bf16", torch.bfloat16)])
def test_dtype_is_kept_or_as_asked(parts, tmp_path, word, dtype):
    theirs, ours = parts("qwen3", dtype=word)
    stored = load_file(tmp_path / "ours" / "model.safetensors")
    assert {value.dtype for value in stored.values()} == {dtype}
    name = "layers.0.mlp.up_proj.weight"
    expected = theirs.model.get_parameter(name).to(dtype).float()
    assert torch.equal(ours.model.decoder.layers[0].experts[0].mlp.up_proj.weight, expected)


def test_half_precision_checkpoints_stay_so(tmp_path):
    model = make("smollm2", tmp_path / "llm")
    model.to(torch.bfloat16).save_pretrained(tmp_path / "llm")
    PixelPatches(4).save(tmp_path / "codec")
    init_model(tmp_path / "llm", tmp_path / "codec", tmp_path / "ours")
    stored = load_file(tmp_path / "ours" / "model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.bfloat16}
    assert unimodal.load(tmp_path / "ours").config.patch_size == 4  # 16 pixels a position


def test_both_experts_start_from_the_text_weights(parts):
    _, ours = parts("qwen3", settings=["image_size=16", "experts=mot"])
    for layer in ours.model.decoder.layers:
        text, image = (dict(expert.named_parameters()) for expert in layer.experts)
        assert all(torch.equal(text[name], image[name]) for name in text)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("said", ["option", "setting"])
def test_every_path_is_made_without_settings(path, said, tmp_path):
    """On a codec with codes of stride 4: 16 pixels are four cells, and paths of codes say single ones."""
    make("qwen2", tmp_path / "llm")
    codec_of("multi_scale").save(tmp_path / "codec")
    options = {"path": path} if said == "option" else {"settings": [f"path={path}"]}
    init_model(tmp_path / "llm", tmp_path / "codec", tmp_path / "ours", **options)
    config = unimodal.load(tmp_path / "ours").config
    assert (config.path, config.patch_size) == (path, {"flow": 4, "per_token": 4}.get(path, 1))


def test_a_diffusers_autoencoder_as_codec_and_the_same_again(tmp_path):
    make("qwen2", tmp_path / "llm")
    saved("kl", tmp_path / "codec")
    for out in ("one", "two"):
        init_model(tmp_path / "llm", tmp_path / "codec", tmp_path / out, settings=["image_size=32"])
    first, second = (unimodal.load(tmp_path / out) for out in ("one", "two"))
    assert first.model.codec.stride == 2 and first.config.patch_size == 8
    for (name, a), b in zip(first.model.state_dict().items(), second.model.state_dict().values()):
        assert torch.equal(a, b), name
    picture = first.generate("a red circle", steps=2)[0]
    assert picture.size == (32, 32)
    assert isinstance(first.answer(picture, "how many?", max_tokens=3), str)


def test_the_command_makes_a_folder_that_trains_and_exports(tmp_path, monkeypatch):
    from unimodal.training.config import load_recipe
    from unimodal.training.loop import train

    monkeypatch.chdir(tmp_path)
    make("qwen3", tmp_path / "llm")
    PixelPatches(32).save(tmp_path / "codec")

    def run(*args):
        result = CliRunner().invoke(app, args, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    told = run(
        "init", "--llm", "llm", "--codec", "codec", "--out", "ours", "--dtype", "fp32", "image_size=64"
    )
    assert "qwen3" in told
    assert "<|image_start|> <|image_end|> <|pad|>" in told
    recipe = {
        "model": {"init_from": "ours", "drop": {"text": 0.3, "image": 0.1, "both": 0.1}},
        "data": {"sources": [{"source": "shapes"}], "tokens": 2048, "workers": 0},
        "train": {"steps": 1, "logging_steps": 1, "save_steps": 1, "precision": "fp32"},
        "output": {"dir": "run"},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    train(load_recipe("recipe.yaml"))
    entry = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])
    assert entry["loss_text"] > 0
    assert "Qwen3ForCausalLM" in run("export", "run/model", "--to", "llm", "back")
    assert AutoTokenizer.from_pretrained("back").pad_token == "<|pad|>"


def nudged(codec):
    """The same network after a little training, as it were."""
    other = deepcopy(codec)
    with torch.no_grad():
        for weight in other.network.parameters():
            weight += 0.01 * weight.std() * torch.randn_like(weight)
    return other


def test_a_base_gets_another_codec_and_stays_as_it_is(tmp_path):
    own = codec_of("a network")
    save_model(tmp_path / "base", tiny_model(codec=own), tokenizer(), torch.float16)
    nudged(own).save(tmp_path / "other")
    command = ["init", "--base", str(tmp_path / "base"), "--codec", str(tmp_path / "other")]
    shown = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "new")], catch_exceptions=False)
    assert shown.exit_code == 0
    assert re.search(r"latents  agree with the model's own to (0\.9\d|1\.00)", shown.output)
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("base", "new"))
    assert before.keys() == after.keys()
    assert all(
        torch.equal(value, after[name]) and value.dtype == torch.float16 for name, value in before.items()
    )
    codec = load_codec(tmp_path / "new" / "codec").state_dict()
    assert all(
        torch.equal(value, codec[name]) for name, value in load_codec(tmp_path / "other").state_dict().items()
    )
    assert unimodal.load(tmp_path / "new").generate("a red circle", steps=1)[0].size == (8, 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--base", "BASE", "--llm", "x"], "either of --llm or of --base"),
        ([], "either of --llm or of --base"),
        (
            ["--base", "BASE", "--path", "masked", "image_size=16"],
            "--path, KEY=VALUE: a --base brings its own",
        ),
        (["--base", "BASE"], "48 channels at stride 4, but the model was made for one with"),
    ],
)
def test_a_base_takes_nothing_but_a_codec_that_fits(arguments, message, tmp_path):
    save_model(tmp_path / "base", tiny_model(codec=codec_of("a network")), tokenizer())
    PixelPatches(4).save(tmp_path / "other")
    arguments = [str(tmp_path / "base") if word == "BASE" else word for word in arguments]
    rest = ["--codec", str(tmp_path / "other"), "--out", str(tmp_path / "new")]
    with pytest.raises(UserError, match=message):
        CliRunner().invoke(app, ["init", *arguments, *rest], catch_exceptions=False)
    assert not (tmp_path / "new").exists()
