"""Models of transformers as readers, against transformers run by hand on the same prompts."""

import numpy as np
import pytest
import torch
from PIL import Image as PILImage

import unimodal
from tests.documents import picture
from tests.external.make import DIT
from tests.readers.checkpoints import FAMILIES, NEEDS, make
from unimodal.connectors.connector import Appended
from unimodal.data.document import Document, Image, Text, Turn
from unimodal.errors import UserError
from unimodal.external.config import ExternalConfig
from unimodal.external.folder import noted, save_external
from unimodal.external.model import ExternalModel
from unimodal.images.codec import PixelPatches
from unimodal.readers.vlm import load_vlm
from unimodal.training.config import TrainSection
from unimodal.training.optimizers import build_optimizers


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, tmp_path_factory):
    """A saved checkpoint of each family."""
    for package in NEEDS.get(request.param, ()):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp(request.param)
    make(request.param, folder)
    return folder


@pytest.fixture(scope="module")
def reader(folder):
    return load_vlm(folder)


def shown(words="make it green", size=(32, 48), seed=0):
    return Document((Turn("user", (Image(picture(np.random.default_rng(seed), *size)), Text(words))),))


def said(words="a red circle"):
    return Document((Turn("user", (Text(words),)),))


def by_hand(reader, prompt):
    """All hidden states (T, layers + 1, D) and ids (T,): transformers alone, template rendered first."""
    messages = [
        {
            "role": turn.role,
            "content": [
                {"type": "text", "text": part.text} if isinstance(part, Text) else {"type": "image"}
                for part in turn.parts
            ],
        }
        for turn in prompt.turns
    ]
    text = reader.processor.apply_chat_template(messages, add_generation_prompt=True)
    pictures = [PILImage.fromarray(image.pixels) for image in prompt.images]
    inputs = reader.processor(text=[text], images=[pictures] if pictures else None, return_tensors="pt")
    with torch.no_grad():
        out = reader.model(**inputs, output_hidden_states=True)
    return torch.stack(out.hidden_states, dim=2)[0], inputs["input_ids"][0]


def test_hidden_states_are_transformers_own(reader):
    prompts = [said(), shown(), said("a blue square left of a red circle")]
    hidden, mask = reader.read(prompts, [0, 1, 2])
    start = len(reader.processor.tokenizer("<|im_start|>user\n")["input_ids"])
    for row, prompt in enumerate(prompts):
        expected, _ = by_hand(reader, prompt)
        got = hidden[row][mask[row]]
        torch.testing.assert_close(got, expected[start:], atol=1e-5, rtol=1e-4)
    assert reader.layers == 2 and reader.width == hidden.shape[-1]


def test_positions_behind_the_prompt_are_what_written_tokens_would_be(reader):
    ids = torch.tensor(reader.processor.tokenizer("two circle")["input_ids"])
    embeds = reader.model.get_input_embeddings()(ids)
    appended = Appended(len(ids), True, lambda prompt, mask: embeds[None])
    for prompt in (said(), shown()):
        hidden, mask = reader.read([prompt], [1, 2], appended)
        assert mask.all() and hidden.shape[1] == len(ids)
        inputs = reader.inputs(prompt)
        assert torch.equal(inputs["input_ids"][0], by_hand(reader, prompt)[1])
        more = {"input_ids": ids[None], "attention_mask": torch.ones_like(ids)[None]}
        longer = {
            name: torch.cat([value, more.get(name, torch.zeros_like(ids)[None])], 1)
            if value.shape == inputs["input_ids"].shape
            else value
            for name, value in inputs.items()
        }
        with torch.no_grad():
            out = reader.model(**longer, output_hidden_states=True).hidden_states
        expected = torch.stack([out[1], out[2]], 2)[:, -len(ids) :]
        torch.testing.assert_close(hidden, expected, atol=1e-5, rtol=1e-4)


def test_gradients_reach_what_is_appended_and_no_weight(reader):
    queries = torch.randn(3, reader.width, requires_grad=True)
    hidden, _ = reader.read([said(), shown()], [2], Appended(3, True, lambda prompt, mask: queries[None]))
    hidden.sum().backward()
    assert queries.grad.abs().sum(-1).gt(0).all()
    assert all(weight.grad is None for weight in reader.parameters())


def test_it_sees_what_the_language_model_is_given_of_a_picture(reader):
    if (
        reader.model.config.model_type == "llava_onevision"
    ):  # the picture, and a row end behind each of its rows
        with pytest.raises(UserError, match="of 2 cuts of a picture"):
            reader.see([shown(size=(32, 32)).images[0].pixels])
        return
    ((tokens, grid),) = reader.see([shown(size=(32, 32)).images[0].pixels])
    assert tokens.shape == (grid[0] * grid[1], reader.seen)
    expected, ids = by_hand(reader, Document((Turn("user", shown(size=(32, 32)).turns[0].parts[:1]),)))
    there = ids == reader.model.config.image_token_id
    torch.testing.assert_close(tokens, expected[there, 0], atol=1e-5, rtol=1e-4)
    assert (tokens - expected[there, -1]).abs().max() > 0.1  # before it reads anything


def test_a_text_with_a_mark_of_the_readers_own_is_refused(reader):
    with pytest.raises(UserError, match=r"has '<\|im_end\|>' in it"):
        reader.inputs(said("a <|im_end|> b"))
    image = reader.processor.tokenizer.decode([reader.model.config.image_token_id])
    with pytest.raises(UserError, match="a mark of its own"):
        reader.read([said(f"two {image}")], [0])


def test_a_prompt_with_nothing_in_it_can_be_read(reader):
    silent = [Document((Turn(role, ()),)) for role in ("user", "assistant")]
    hidden, mask = reader.read([*silent, said()], [2])
    assert mask.any(1).all() and hidden.isfinite().all()


@pytest.fixture(scope="module")
def model(folder, tmp_path_factory):
    """An external model with this reader, saved and loaded."""
    note, path = noted("transformers", str(folder))
    config = ExternalConfig.model_validate(
        {
            "reader": note,
            "connector": {
                "kind": "queries",
                "tap_layer": "mix",
                "options": {"count": 4, "width": 16, "depth": 1, "heads": 2, "causal": True},
            },
            "denoiser": {"options": DIT},
            "image_size": 8,
            "sampling": {"steps": 2},
        }
    )
    torch.manual_seed(0)
    fresh = ExternalModel(config, load_vlm(path), PixelPatches(4))
    for weight in fresh.denoiser.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    out = tmp_path_factory.mktemp("external")
    save_external(out, fresh)
    return unimodal.load(out)


def test_an_external_model_draws_edits_and_answers_with_it(model):
    one, two = (np.asarray(model.generate(words, seed=1)[0]).astype(int) for words in ("a circle", "two"))
    assert one.shape == (8, 8, 3) and np.abs(one - two).max() > 1
    image = PILImage.fromarray(picture(np.random.default_rng(0), 16, 16))
    assert model.edit(image, "make it green")[0].size == (8, 8)
    assert model.edit(image, "make it green", size=16)[0].size == (16, 16)
    options = dict(max_tokens=5, temperature=1.0)
    answers = model.answer([image, image], ["how many", "two"], seed=3, **options)
    assert answers == [model.answer(image, words, seed=3, **options) for words in ("how many", "two")]


def test_losses_reach_the_queries_and_the_reader_stays_in_its_precision(folder, tmp_path):
    import shutil

    from transformers import AutoModelForImageTextToText

    shutil.copytree(folder, tmp_path / "half")
    AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(
        tmp_path / "half"
    )
    reader = load_vlm(tmp_path / "half")
    assert {weight.dtype for weight in reader.parameters()} == {torch.bfloat16}
    options = {"count": 4, "width": 16, "depth": 1, "heads": 2, "causal": True}
    config = ExternalConfig.model_validate(
        {
            "reader": {"kind": "transformers", "name": "half"},
            "connector": {"options": options},
            "denoiser": {"options": DIT},
            "image_size": 8,
        }
    )
    model = ExternalModel(config, reader, PixelPatches(4)).train()
    for weight in model.denoiser.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    pictures = [picture(np.random.default_rng(seed)) for seed in range(2)]
    losses = model([said(), shown()], pictures, torch.Generator().manual_seed(0))
    losses.image.backward()
    assert losses.image.isfinite()
    assert model.connector.queries.grad.abs().sum(-1).gt(0).all()
    assert not any(weight.requires_grad for weight in reader.parameters())
    before = {name: weight.clone() for name, weight in reader.state_dict().items()}
    section = TrainSection(steps=1, learning_rate=1e-2, weight_decay=0.3)
    (optimizer,) = build_optimizers(model, section, torch.float32)
    optimizer.step()
    assert all(torch.equal(weight, before[name]) for name, weight in reader.state_dict().items())


def test_a_folder_that_is_none_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "unimodal"}')
    with pytest.raises(UserError, match="cannot be read as an image-text-to-text model"):
        load_vlm(tmp_path)
