"""Every wrong checkpoint, tokenizer, codec or word is refused in a sentence, and nothing is written."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import unimodal
from tests.pretrained.checkpoints import make
from unimodal.errors import UserError
from unimodal.images.codec import PixelPatches
from unimodal.pretrained.checkpoint import find_checkpoint
from unimodal.pretrained.export import export_llm
from unimodal.pretrained.initialise import init_model


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    root = tmp_path_factory.mktemp("good")
    make("llama-biased", root / "llm", max_shard_size="40KB")
    make("mistral-window", root / "window")
    PixelPatches(4).save(root / "codec")
    return root


@pytest.fixture
def root(good, tmp_path):
    shutil.copytree(good, tmp_path / "root")
    return tmp_path / "root"


def edit(file, **changes):
    found = json.loads(file.read_text())
    file.write_text(json.dumps({key: value for key, value in (found | changes).items() if value is not ...}))


def config(**changes):
    return lambda llm: edit(llm / "config.json", **changes)


def pickled(llm):
    for file in llm.glob("model*"):
        file.unlink()
    (llm / "pytorch_model.bin").write_bytes(b"")


def tensor(**changes):
    """Changes one tensor of a checkpoint; None takes it away."""

    def change(llm):
        index = json.loads((llm / "model.safetensors.index.json").read_text())["weight_map"]
        for name, value in changes.items():
            name = name.replace("__", ".")
            file = llm / index.get(name, index["model.norm.weight"])
            weights = load_file(file) | {name: value}
            save_file(
                {key: v for key, v in weights.items() if v is not None}, file, metadata={"format": "pt"}
            )

    return change


def gone(name):
    return lambda llm: (llm / name).unlink()


def cut_shard(llm):
    file = sorted(llm.glob("model-*"))[0]
    file.write_bytes(file.read_bytes()[:2000])


def lost_shard(llm):
    sorted(llm.glob("model-*"))[-1].unlink()


def escaping_index(llm):
    edit(llm / "model.safetensors.index.json", weight_map={"model.norm.weight": "../other.safetensors"})


def numbered_template(llm):
    (llm / "chat_template.jinja").unlink()
    edit(llm / "tokenizer_config.json", chat_template=3)


def template(written):
    return lambda llm: (llm / "chat_template.jinja").write_bytes(written)


def word_pieces(llm):
    from tokenizers import Tokenizer, models

    backend = Tokenizer(models.WordPiece({"[UNK]": 0, "größer": 1, "圆": 2}, unk_token="[UNK]"))
    backend.save(str(llm / "tokenizer.json"))


def gaps(llm):
    raw = json.loads((llm / "tokenizer.json").read_text())
    raw["model"]["vocab"] = {t: i + 1000 * (i > 100) for t, i in raw["model"]["vocab"].items()}
    for token in raw["added_tokens"]:
        token["id"] += 1000
    (llm / "tokenizer.json").write_text(json.dumps(raw))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (config(model_type="gpt2"), "'gpt2'.*known are llama, mistral, qwen2, qwen3, smollm3"),
        (config(model_type="lama"), "did you mean 'llama'"),
        (config(model_type="unimodal"), "unified model already.*init_from"),
        (config(hidden_act="gelu"), "'gelu'.*silu"),
        (config(quantization_config={"quant_method": "gptq"}), r"quantized \(gptq\)"),
        (
            config(rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}),
            "'dynamic'.*yarn",
        ),
        (config(hidden_size="wide"), "no configuration of a llama model"),
        (config(num_key_value_heads=3), "num_attention_heads"),
        (config(intermediate_size=50), "do not fit its config.json: .*mlp.*shape"),
        (config(eos_token_id=900), r"config\.json: eos_token_id is 900, which is no token of its tokenizer"),
        (config(eos_token_id=[1, -1]), "eos_token_id is -1, which is no token"),
        (config(vocab_size=700), "embed_tokens.weight has shape"),
        (config(vocab_size=100), "tokenizer has 3.. tokens.*only 100 rows"),
        (config(tie_word_embeddings=False), "lm_head.weight is missing"),
        (gone("config.json"), "no config.json"),
        (gone("tokenizer.json"), "no tokenizer.json"),
        (pickled, "pytorch_model.bin, a pickle.*safetensors"),
        (lost_shard, "incomplete: .*names model-"),
        (cut_shard, "damaged"),
        (escaping_index, r"'\.\./other\.safetensors'.*same folder"),
        (tensor(model__norm__weight=None), "model.norm.weight is missing"),
        (tensor(model__adapter__weight=torch.ones(3)), "model.adapter.weight is unknown"),
        (tensor(model__norm__weight=torch.ones(32, dtype=torch.uint8)), "stored as U8"),
        (word_pieces, r"tokenizer\.json"),
        (gaps, "gaps|only .* rows"),
        (lambda llm: (llm / "tokenizer.json").write_text("{}"), "no tokenizer that"),
        (lambda llm: (llm / "tokenizer.json").write_text("[1]"), "expected a JSON object"),
        (lambda llm: (llm / "chat_template.jinja").unlink(), None),
        (numbered_template, "chat_template is a int; expected Jinja"),
        (template(b"\xff\xfe{{"), r"chat_template\.jinja is not UTF-8"),
        (template(b"{% for message in messages %}{{"), "chat_template.jinja: the chat template is no Jinja"),
        (template(b"{% generation %}a{% endgeneration %}"), None),
    ],
)
def test_checkpoints(root, change, words):
    change(root / "llm")
    if words is None:  # a base model has no template, which is nothing wrong
        init_model(root / "llm", root / "codec", root / "ours")
        return
    with pytest.raises(unimodal.UserError, match="(?s)" + words):
        init_model(root / "llm", root / "codec", root / "ours")
    assert not list(root.glob("*ours*")) and not list(root.glob(".partial*"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dtype": "float8"}, "dtype 'float8' is not known.*float16"),
        ({"dtype": "bfloat"}, "did you mean 'bfloat16'"),
        ({"device": "gpu"}, "device 'gpu' is not here"),
        ({"path": "flaw"}, "path is 'flaw'"),
        ({"settings": ["image_sise=64"]}, "did you mean 'image_size'"),
        ({"settings": ["image_size=100"]}, "100 is no multiple of 16"),
        ({"settings": ["image_size"]}, "no `=`"),
        ({"settings": ["hidden_size=64"]}, "the language model's to say"),
        ({"llm": "none/such/place"}, "there is no language model"),
        ({"llm": "my models/llama"}, "there is no language model 'my models/llama'"),
        ({"vision": "my models/eye"}, "there is no vision tower 'my models/eye'"),
        ({"codec": "nowhere"}, "no codec folder 'nowhere'"),
        ({"codec": "llm"}, "autoencoder class is None"),
        ({"llm": "window"}, "looks back 24 positions.*--max-length 24"),
        ({"llm": "codec"}, "config.json"),
        ({"out": "codec"}, "is there already"),
    ],
)
def test_choices(root, options, words):
    known = {"llm": root / "llm", "codec": root / "codec", "out": root / "ours"}
    given = {key: root / value if (root / str(value)).exists() else value for key, value in options.items()}
    with pytest.raises(unimodal.UserError, match="(?s)" + words):
        init_model(**known | given)
    assert not (root / "ours").exists()


def test_what_float16_cannot_hold_is_told(root):
    tensor(model__norm__weight=torch.full((32,), 1e5))(root / "llm")
    with pytest.raises(unimodal.UserError, match=r"model.*1e\+05.*float16 cannot hold.*bfloat16"):
        init_model(root / "llm", root / "codec", root / "ours", dtype="float16")
    assert not (root / "ours").exists()


def test_a_full_disk_leaves_nothing(root, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("unimodal.model.weights.save_file", full)
    with pytest.raises(unimodal.UserError, match=r"could not be written.*No space left"):
        init_model(root / "llm", root / "codec", root / "ours")
    assert not (root / "ours").exists() and not list(root.glob(".partial*"))


def test_masked_text_is_no_causal_language_model(tmp_path):
    from tests.models import tiny
    from unimodal.model.folder import save_model

    model = tiny(text_objective="masked")
    save_model(tmp_path / "masked", model.model, model.tokenizer)
    with pytest.raises(unimodal.UserError, match="expected next_token"):
        export_llm(str(tmp_path / "masked"), tmp_path / "llm")
    assert not (tmp_path / "llm").exists()


def test_no_family_has_such_a_mixture(tmp_path):
    from tests.models import tiny
    from unimodal.model.folder import save_model

    model = tiny(attention_output_bias=True)
    save_model(tmp_path / "odd", model.model, model.tokenizer)
    with pytest.raises(unimodal.UserError, match="qk_norm = True, attention_bias = False, attention_output"):
        export_llm(str(tmp_path / "odd"), tmp_path / "llm")
    assert not (tmp_path / "llm").exists()


def test_a_hub_id_asks_for_safetensors_only(monkeypatch, tmp_path):
    asked = {}

    def fetch(name, allow_patterns, ignore_patterns):
        from fnmatch import fnmatch

        files = ["config.json", "tokenizer.json", "model-00001-of-00002.safetensors", "chat_template.jinja"]
        others = ["pytorch_model.bin", "consolidated.safetensors", "original/model.safetensors", "run.py"]
        asked["yes"] = all(any(fnmatch(file, p) for p in allow_patterns) for file in files)
        asked["no"] = [
            file
            for file in others
            if any(fnmatch(file, p) for p in allow_patterns)
            and not any(fnmatch(file, p) for p in ignore_patterns)
        ]
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert find_checkpoint("owner/name") == tmp_path
    assert asked == {"yes": True, "no": []}


@pytest.mark.parametrize("size", [0, -64])
def test_pictures_of_no_size_are_refused(root, size):
    with pytest.raises(UserError, match="image_size"):
        init_model(root / "llm", root / "codec", root / "out", settings=[f"image_size={size}"])
    assert not (root / "out").exists()


def test_documents_longer_than_the_weights_know_are_refused(root):
    with pytest.raises(UserError, match=r"--max-length 1000000.*max_position_embeddings"):
        init_model(root / "llm", root / "codec", root / "out", max_length=1_000_000)
    assert not (root / "out").exists()
