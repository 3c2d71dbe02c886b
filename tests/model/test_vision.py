"""A model with a vision tower: what it reads twice, and that training and inference read the same."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

import unimodal
from tests.documents import tokenizer
from tests.images.towers import make_tower
from tests.models import tiny_model
from tests.pretrained.checkpoints import make
from unimodal.adapters.merge import merge_adapter
from unimodal.adapters.section import LoraSection
from unimodal.adapters.targets import lora_config
from unimodal.data.document import Document, Image, Text, Turn
from unimodal.errors import UserError
from unimodal.generation.context import read_documents, read_tokens
from unimodal.images.codec import PixelPatches
from unimodal.model.experts import with_image_expert
from unimodal.pretrained.initialise import init_model
from unimodal.sequence.layout import layout
from unimodal.sequence.pack import pack_sequences
from unimodal.training.config import load_recipe
from unimodal.training.loop import train

RNG = np.random.default_rng(0)
ANSWER = "two no"


def picture(side: int = 16) -> np.ndarray:
    return RNG.integers(0, 256, (side, side, 3), dtype=np.uint8)


def asked(*pictures: np.ndarray) -> list[Turn]:
    return [Turn("user", (*map(Image, pictures), Text("how many are there")))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A unified model of a tiny language model, raw pixels and a tiny tower."""
    root = tmp_path_factory.mktemp("seeing")
    make("qwen3", root / "llm")
    make_tower("siglip", root / "tower")
    PixelPatches(8).save(root / "codec")
    told = init_model(
        root / "llm", root / "codec", root / "model", settings=["image_size=16"], vision=root / "tower"
    )
    assert told["vision tower"] == "16 pixels to 4 x 4 positions"
    return root / "model"


def laid_out(model, words, document, **options):
    return layout(document, words, model.path, model.multiple, vision=model.vision_grid, **options)


def test_pictures_that_are_read_are_read_twice_and_drawn_ones_once(folder):
    loaded = unimodal.load(folder, "cpu")
    turns = [*asked(picture()), Turn("assistant", (Image(picture(), True), Text(ANSWER, True)))]
    sequence = laid_out(loaded.model, loaded.tokenizer, Document(tuple(turns)))
    spans = [(span.kind, span.image, span.length, span.grid) for span in sequence.images]
    assert spans == [
        ("clean", 0, 1, (1, 1)),
        ("vision", 0, 16, (4, 4)),
        ("target", 1, 1, (1, 1)),
        ("clean", 1, 1, (1, 1)),
    ]
    second = sequence.images[1]
    at = slice(second.start, second.start + 16)
    assert len(set(sequence.step[at])) == 1  # they see each other
    assert not sequence.hidden[at].any()
    rows = sequence.position[at] - sequence.position[second.start]
    assert rows[:, 1:].tolist() == [[r, c] for r in range(4) for c in range(4)]
    # No position on the diagonal is used twice: text goes on behind the grid.
    assert sequence.position[second.start + 16].tolist() == [sequence.position[second.start][0] + 4] * 3


def test_training_and_inference_read_the_same(folder):
    """The loss of an answer in a pack is that of its tokens, read one by one over the cache."""
    loaded = unimodal.load(folder, "cpu")
    model, words = loaded.model, loaded.tokenizer
    questions = [asked(picture()), asked(picture(32), picture())]
    documents = [Document((*turns, Turn("assistant", (Text(ANSWER, True),)))) for turns in questions]
    with torch.no_grad():
        pack = pack_sequences([laid_out(model, words, document) for document in documents])
        expected = model(pack, torch.Generator()).text
        context = read_documents(model, words, [Document(tuple(turns)) for turns in questions])
        found = torch.zeros(())
        for token in [*words.encode(ANSWER), words.im_end]:
            ids = torch.full((2,), token)
            found = found + cross_entropy(model.logits(context.hidden), ids, reduction="sum")
            read_tokens(model, context, ids, torch.ones(2, dtype=torch.bool))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_what_the_tower_sees_matters_and_its_projection_alone_learns(folder):
    loaded = unimodal.load(folder, "cpu")
    model = loaded.model.train()
    document = Document((*asked(picture()), Turn("assistant", (Text(ANSWER, True),))))
    pack = pack_sequences([laid_out(model, loaded.tokenizer, document)])
    before = model(pack, torch.Generator()).text
    before.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.vision_in.parameters())
    assert all(p.grad is None for p in model.tower.parameters())
    plain = model.tower.forward
    model.tower.forward = lambda pixels: [told + 1 for told in plain(pixels)]
    assert not torch.isclose(model(pack, torch.Generator()).text, before, rtol=1e-3)


def test_an_image_expert_is_given_to_a_model_with_a_tower(folder):
    loaded = unimodal.load(folder, "cpu")
    split = with_image_expert(loaded.model)
    document = Document((*asked(picture()), Turn("assistant", (Text(ANSWER, True),))))
    pack = pack_sequences([laid_out(split, loaded.tokenizer, document)])
    with torch.no_grad():
        first, second = (model(pack, torch.Generator()).text for model in (split, loaded.model))
    torch.testing.assert_close(first, second)


def test_it_answers_edits_and_draws_and_survives_saving(folder, tmp_path):
    from unimodal.model.folder import save_model

    loaded = unimodal.load(folder, "cpu")
    seen = loaded.answer(picture(), "how many?", max_tokens=3)
    assert loaded.edit(picture(), "make it green", steps=2)[0].size == (16, 16)
    reply = loaded.chat([{"role": "user", "content": "<image>two"}], [picture()], max_tokens=2)
    assert isinstance(reply.text, str)
    save_model(tmp_path / "again", loaded.model, loaded.tokenizer)
    again = unimodal.load(tmp_path / "again", "cpu")
    before, after = loaded.model.state_dict(), again.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert isinstance(seen, str)


def test_it_trains_in_full_and_as_an_adapter_that_learns_its_projection(folder, tmp_path, capsys):
    rows = tmp_path / "rows"
    rows.mkdir()
    from PIL import Image as Pillow

    Pillow.fromarray(picture()).save(rows / "a.png")
    messages = [{"role": "user", "content": "<image>how many"}, {"role": "assistant", "content": ANSWER}]
    (rows / "rows.jsonl").write_text(json.dumps({"messages": messages, "images": ["a.png"]}) + "\n")
    recipe = {
        "model": {"init_from": str(folder)},
        "data": {"sources": [{"path": str(rows / "rows.jsonl")}], "tokens": 128, "workers": 0},
        "train": {"steps": 2, "precision": "fp32", "learning_rate": 0.01, "ema_decay": None},
        "output": {"dir": str(tmp_path / "full")},
    }
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe))
    base, tuned = unimodal.load(folder, "cpu").model, unimodal.load(train(load_recipe(file)), "cpu").model
    for name, weight in base.tower.state_dict().items():
        assert torch.equal(weight, tuned.tower.state_dict()[name])
    assert not torch.equal(base.vision_in.linear_in.weight, tuned.vision_in.linear_in.weight)
    lora = ["model.lora={rank: 2, target: text}", f"output.dir={tmp_path / 'thin'}"]
    adapted = unimodal.load(adapter=train(load_recipe(file, lora)), device="cpu")
    assert "(vision_in) is trained in full, beside the adapter" in " ".join(capsys.readouterr().out.split())
    for name, weight in base.vision_in.named_parameters():
        assert not torch.equal(
            weight, adapted.model.vision_in.get_parameter(f"modules_to_save.default.{name}")
        )
    assert isinstance(adapted.answer(picture(), "how many", max_tokens=2), str)
    adapted.set_adapter(None)
    off = adapted.model.vision_in.state_dict()
    assert all(torch.equal(weight, off[name]) for name, weight in base.vision_in.state_dict().items())
    merged = unimodal.load(merge_adapter(None, tmp_path / "thin" / "adapter", tmp_path / "merged"), "cpu")
    saved = load_file(tmp_path / "thin" / "adapter" / "adapter_model.safetensors")
    for name, weight in merged.model.vision_in.named_parameters():
        assert torch.equal(weight, saved[f"base_model.model.vision_in.{name}"])


def test_of_a_projection_that_is_named_in_part_no_more_is_trained(folder):
    model = unimodal.load(folder, "cpu").model
    section = LoraSection(modules_to_save=["vision_in.linear_out"])
    assert lora_config(model, section, "base").modules_to_save == ["vision_in.linear_out"]


def test_off_by_default_and_refused_where_there_is_none(tmp_path):
    model = tiny_model()
    assert model.vision_grid is None and model.tower is None
    assert not any("vision" in name or "tower" in name for name in model.state_dict())
    document = Document((*asked(picture(8)), Turn("assistant", (Text(ANSWER, True),))))
    assert [span.kind for span in laid_out(model, tokenizer(), document).images] == ["clean"]
    PixelPatches(8).save(tmp_path / "codec")
    raw = {
        "model": {"codec": str(tmp_path / "codec"), "vision": {"hidden_size": 4, "grid": [2, 2]}},
        "data": {"sources": [{"source": "shapes"}]},
        "train": {"steps": 1},
        "output": {"dir": str(tmp_path / "run")},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(raw))
    recipe = load_recipe(tmp_path / "recipe.yaml")
    with pytest.raises(UserError, match="unimodal init --vision"):
        recipe.model.build(recipe)


def test_another_tower_in_the_folder_is_told(folder, tmp_path):
    import shutil

    shutil.copytree(folder, tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    config["vision"]["hidden_size"] = 24
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"tells 16 numbers on a grid of \(4, 4\), but config.json says 24"):
        unimodal.load(tmp_path / "model", "cpu")
