"""A loaded external model answers as any other; it draws by its denoiser and writes as its reader."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image as PILImage

import unimodal
from tests.documents import picture, tokenizer
from tests.external.make import CONNECTORS, config, external, external_model, save_beside_reader
from tests.images.networks import DC
from tests.models import assert_alike, edits_of_two_sizes, tiny, tiny_model
from unimodal.adapters.base import fingerprint
from unimodal.errors import UserError
from unimodal.evaluation.run import evaluate
from unimodal.external.folder import load_external, noted, save_external
from unimodal.external.model import ExternalModel
from unimodal.external.verbs import External
from unimodal.generation.verbs import Drawing, Picture
from unimodal.images.codec import DiffusersCodec
from unimodal.model.folder import save_model
from unimodal.readers.own import OwnReader
from unimodal.readers.tokens import TokensReader

PROMPTS = ["a red circle", "two", "a blue square left of a red circle, make it green"]


def pixels_of(images):
    return [np.asarray(image).astype(int) for image in images]


@pytest.mark.parametrize("connector", CONNECTORS)
def test_generate_batch_equals_singles(connector):
    model = external(connector)
    together = pixels_of(model.generate(PROMPTS, n=2, seed=5))
    alone = [p for prompt in PROMPTS for s in (5, 6) for p in pixels_of(model.generate(prompt, seed=s))]
    assert all(np.abs(a - b).max() <= 1 for a, b in zip(together, alone, strict=True))
    assert np.abs(together[0] - together[1]).max() > 1
    assert np.abs(together[0] - together[2]).max() > 1


@pytest.mark.parametrize("reference", ["vlm", "vae_seq", "vae_channel", "dual"])
def test_edit_batch_equals_singles_also_of_different_sizes(reference):
    model = external(reference=reference)
    images, together, alone = edits_of_two_sizes(model, PROMPTS)
    assert [after.size for after in together] == [image.size for image in images]
    assert_alike(together, alone)
    assert (
        np.abs(
            np.subtract(*pixels_of([together[0], model.edit(images[2], PROMPTS[0], seed=1, size=16)[0]]))
        ).max()
        > 1
    )


def test_guidance_takes_the_branches_it_needs_and_prepares_once():
    model = external()
    denoiser, calls, prepared = model.model.denoiser, [], []
    forward, prepare = denoiser.forward, denoiser.prepare
    denoiser.forward = lambda x, t, ready: calls.append(len(x)) or forward(x, t, ready)
    denoiser.prepare = lambda conditions: prepared.append(len(conditions.cond)) or prepare(conditions)
    model.generate("two", guidance=1.0, steps=5)
    assert (calls, prepared) == ([1] * 5, [1])
    calls.clear(), prepared.clear()
    model.generate("two", guidance=2.0, steps=5)
    assert (calls, prepared) == ([2] * 5, [2])
    calls.clear(), prepared.clear()
    image = PILImage.fromarray(picture(np.random.default_rng(0)))
    model.edit(image, "two", guidance=3.0, image_guidance=1.5, steps=2)
    assert (calls, prepared) == ([3] * 2, [3])


def test_nulls_are_those_of_training_and_an_untrained_one_is_refused():
    model = external(drop={"text": 0.0, "image": 0.0, "both": 0.0})
    model.generate("two", guidance=1.0)
    with pytest.raises(UserError, match=r"text dropped.*drop\.text = 0"):
        model.generate("two", guidance=2.0)


def test_size_is_asked_for_or_the_models_own():
    model = external()
    assert model.generate("two")[0].size == (8, 8)
    assert model.generate("two", size=(12, 20))[0].size == (20, 12)


def test_understanding_is_the_readers_to_the_letter():
    model, reader = external(), tiny()
    image = PILImage.fromarray(picture(np.random.default_rng(0)))
    options = dict(max_tokens=12, temperature=1.0, seed=3)
    assert model.answer(image, "how many", **options) == reader.answer(image, "how many", **options)
    assert model.complete(PROMPTS, **options) == reader.complete(PROMPTS, **options)


def decided(model, *wanted):
    """Let the reader write these tokens, whatever it would say."""
    said = iter(wanted)
    model.model.reader.model.logits = lambda hidden: torch.nn.functional.one_hot(
        torch.tensor([next(said)]), len(tokenizer())
    ).float()


def test_the_reader_decides_to_draw_and_goes_on_after_the_picture():
    model = external()
    special = tokenizer()
    decided(model, special.image_start, *special.encode("two"), special.im_end)
    reply = model.chat([{"role": "user", "content": "a red circle"}], seed=4)
    assert isinstance(reply.parts[0], PILImage.Image) and reply.text == "two"
    drawn = model.generate("a red circle", seed=4)[0]
    assert np.abs(np.subtract(*pixels_of([reply.images[0], drawn]))).max() <= 1


def test_stream_tells_steps():
    model = external()
    decided(model, tokenizer().image_start, tokenizer().im_end)
    events = list(model.stream([{"role": "user", "content": "two"}], steps=3))
    assert [type(event) for event in events] == [Drawing, Drawing, Drawing, Picture]


def test_adapters_are_refused():
    with pytest.raises(UserError, match="takes no adapters"):
        external().add_adapter("somewhere")


@pytest.fixture
def saved(tmp_path):
    """A saved external model beside its saved reader."""
    return tmp_path, save_beside_reader(tmp_path)


def test_saved_and_loaded_it_draws_the_same(saved):
    folder, model = saved
    loaded = unimodal.load(folder / "model")
    assert isinstance(loaded.model, ExternalModel)
    assert loaded.config == model.config
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, loaded.model.state_dict()[name]), name
    ours = pixels_of(external().generate(PROMPTS, seed=2))
    assert all(np.array_equal(a, b) for a, b in zip(ours, pixels_of(loaded.generate(PROMPTS, seed=2))))
    assert loaded.size == sum(weight.numel() for weight in model.parameters())
    assert not (folder / "model" / "tokenizer.json").exists()


def test_a_codec_that_reader_and_denoiser_share_is_there_once(tmp_path):
    def codec(seed):
        torch.manual_seed(seed)
        return DiffusersCodec({"_class_name": "AutoencoderDC"} | DC)

    size = sum(weight.numel() for weight in codec(0).parameters())
    alike, apart = (
        ExternalModel(config("hidden", image_size=16), OwnReader(tiny_model(0, codec(0)), tokenizer()), other)
        for other in (codec(0), codec(1))
    )
    assert alike.codec is alike.reader.model.codec and apart.codec is not apart.reader.model.codec
    assert External(apart).size - External(alike).size == size > 0
    save_model(tmp_path / "reader", alike.reader.model, tokenizer())
    note, _ = noted("unimodal", str(tmp_path / "reader"))
    alike.config = alike.config.model_copy(update={"reader": note})
    save_external(tmp_path / "model", alike)
    loaded = unimodal.load(tmp_path / "model")
    assert loaded.model.codec is loaded.model.reader.model.codec and loaded.size == External(alike).size
    assert all(map(torch.equal, loaded.model.codec.parameters(), alike.codec.parameters()))


def test_the_folder_may_move_with_its_reader_and_not_without(saved, tmp_path):
    folder, _ = saved
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in ("reader", "model"):
        shutil.move(folder / name, moved / name)
    again = load_external(moved / "model")
    save_external(moved / "deeper" / "model", again)
    assert load_external(moved / "deeper" / "model").config.reader.sha256 == again.config.reader.sha256
    shutil.rmtree(moved / "reader")
    with pytest.raises(UserError, match=r"needs its reader .*which is not here"):
        load_external(moved / "model")


def test_a_reader_with_other_weights_is_refused(saved):
    folder, _ = saved
    save_model(folder / "reader", external_model(seed=5).reader.model, tokenizer())
    with pytest.raises(UserError, match="has other weights"):
        unimodal.load(folder / "model")


@pytest.mark.parametrize("kind", ["unimodal", "transformers"])
def test_all_that_a_reader_reads_by_is_part_of_its_hash(tmp_path, kind):
    """A template, a processor or a tokenizer that was edited makes other conditions of the same prompt."""
    names = ["config.json", "tokenizer.json", "tokenizer_config.json"]
    if kind == "transformers":
        names += ["chat_template.jinja", "processor_config.json", "preprocessor_config.json", "vocab.json"]
    save_model(tmp_path, tiny_model(), tokenizer())
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "README.md").write_text("of no matter")

    def found():
        return noted(kind, str(tmp_path))[0].sha256

    hashes, weights = [found()], fingerprint(tmp_path)
    for name in names:
        with (tmp_path / name).open("a") as file:
            file.write(" ")
        hashes.append(found())
    (tmp_path / "README.md").write_text("still of none")
    assert found() == hashes[-1] and len(set(hashes)) == len(names) + 1
    assert fingerprint(tmp_path) == weights  # an adapter's base is its weights


def test_a_broken_config_is_a_sentence(saved):
    folder, _ = saved
    file = folder / "model" / "config.json"
    entries = json.loads(file.read_text())
    entries["connector"]["kind"] = "querys"
    file.write_text(json.dumps(entries))
    with pytest.raises(UserError, match="did you mean 'queries'"):
        unimodal.load(folder / "model")


def test_without_a_language_model_only_what_it_draws_is_judged(capsys):
    model = external("hidden", reader=TokensReader(tokenizer()), reference="vae_seq", image_size=64)
    scores = evaluate(model, n=1).scores
    assert {name.split("/")[0] for name in scores} == {"t2i", "edit", "codec"}
    assert "not judged, since this model has no language model: vqa, text, chat" in capsys.readouterr().out
    assert external().writes
