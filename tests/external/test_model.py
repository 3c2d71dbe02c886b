"""External models: what learns and what does not, and that a prompt is told alike in training and drawing."""

import numpy as np
import pytest
import torch

from tests.documents import picture, random_document, tokenizer
from tests.external.make import CONNECTORS, config, external_model
from tests.models import tiny_model
from unimodal.connectors import CONNECTORS as KNOWN
from unimodal.data.document import Document, Image, Text, Turn, drop
from unimodal.data.rows import parse_row
from unimodal.diffusion.guidance import Guidance
from unimodal.diffusion.process import FLOW, velocity
from unimodal.errors import UserError
from unimodal.external.draw import draw
from unimodal.external.model import ExternalModel, alike
from unimodal.external.prompts import as_prompt, prompts, reference
from unimodal.images.codec import PixelPatches
from unimodal.readers.own import OwnReader
from unimodal.training.config import TrainSection
from unimodal.training.optimizers import build_optimizers

REFERENCES = ("vlm", "vae_seq", "vae_channel", "dual")


def batch(count=5, seed=0, sizes=((8, 8), (8, 16))):
    """Prompts with and without a picture to edit, and pictures of two sizes to draw."""
    rng = np.random.default_rng(seed)
    asked, drawn = [], []
    for number in range(count):
        size = sizes[number % len(sizes)]
        shown = (Image(picture(rng, *size)),) if number % 3 else ()
        asked.append(Document((Turn("user", (*shown, Text("make it green " + "two " * number))),)))
        drawn.append(picture(rng, *size))
    return asked, drawn


def test_every_connector_is_tried():
    assert set(CONNECTORS) == set(KNOWN)


@pytest.mark.parametrize("connector", CONNECTORS)
@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize("parts", [("connector", "denoiser"), ("connector",), ("denoiser",)])
def test_frozen_weights_do_not_move_by_one_bit(connector, reference, parts):
    """Under AdamW with weight decay; and everything else does move."""
    model = external_model(connector, reference=reference).train()
    for part in ("connector", "denoiser"):
        getattr(model, part).requires_grad_(part in parts)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    section = TrainSection(steps=3, learning_rate=1e-2, weight_decay=0.3)
    (optimizer,) = build_optimizers(model, section, torch.float32)
    for step in range(3):
        losses = model(*batch(seed=step), torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        (losses.image + (0 if losses.embedding is None else losses.embedding)).backward()
        optimizer.step()
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert {name.split(".")[0] for name in trained} == set(parts)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name]) == (name not in trained), name
    assert not model.reader.training and not model.codec.training


@pytest.mark.parametrize("connector", CONNECTORS)
@pytest.mark.parametrize("reference", REFERENCES)
def test_losses_of_a_batch_are_those_of_its_rows(monkeypatch, connector, reference):
    model = external_model(connector, reference=reference)

    def error(clean, ready, generator):
        """Noise that depends on the picture alone."""
        eps, t = torch.sin(clean * 50), torch.full((len(clean),), 0.6)
        noisy = FLOW.noised(clean, eps, torch.tensor(0.6))
        said = model.denoiser(noisy, t, ready)
        return (said - velocity(clean, eps)).square().mean(1), t

    monkeypatch.setattr(model, "_error", error)
    asked, drawn = batch()
    together = model(asked, drawn, torch.Generator())
    alone = [model([a], [d], torch.Generator()) for a, d in zip(asked, drawn)]
    torch.testing.assert_close(together.image, sum(one.image for one in alone), rtol=1e-4, atol=1e-4)
    if connector == "prefilled":
        torch.testing.assert_close(together.embedding, sum(one.embedding for one in alone))
    else:
        assert together.embedding is None
    assert len(together.image_each) == len(together.times) == len(asked)


def test_copies_draw_a_prompt_at_several_noise_levels():
    model = external_model(times={"copies": 3})
    asked, drawn = batch(4)
    prepare, prepared = model.denoiser.prepare, []
    model.denoiser.prepare = lambda told: prepared.append(len(told.cond)) or prepare(told)
    losses = model(asked, drawn, torch.Generator().manual_seed(0))
    assert sum(prepared) == 4
    assert len(losses.image_each) == 12
    assert len(losses.times.unique()) == 12
    cells = torch.tensor([2 * 2, 2 * 4] * 2).float()
    groups = alike([(d.shape, bool(a.images)) for a, d in zip(asked, drawn)])
    order = torch.tensor([row for rows in groups for row in rows]).repeat_interleave(3)
    torch.testing.assert_close((losses.image_each * cells[order]).sum(), losses.image.detach())


@pytest.mark.parametrize(
    ("reference", "reader_changes", "denoiser_changes"),
    [("vlm", True, False), ("vae_seq", False, True), ("vae_channel", False, True), ("dual", True, True)],
)
def test_the_picture_to_edit_reaches_what_it_should(reference, reader_changes, denoiser_changes):
    model = external_model(reference=reference)
    rng = np.random.default_rng(3)
    first, second = (
        Document((Turn("user", (Image(picture(rng)), Text("make it green"))),)) for _ in range(2)
    )
    hidden = [model.read([prompt])[0] for prompt in (first, second)]
    assert torch.allclose(*hidden) != reader_changes
    references = [model.references([prompt])[0] for prompt in (first, second)]
    assert (references[0] is not None) == denoiser_changes
    if denoiser_changes:
        assert not torch.equal(*references)
        assert torch.equal(references[0], model.encode([first.images[0].pixels])[0])


def test_prompts_are_the_conversation_before_each_drawn_picture():
    for seed in range(60):
        document = random_document(np.random.default_rng(seed))
        drawn = [part for part in document.parts() if isinstance(part, Image) and part.trained]
        found = list(prompts(document, plans=True))
        assert len(found) == len(drawn)
        everything = list(document.parts())
        for (prompt, pixels), image in zip(found, drawn):
            assert pixels is image.pixels
            before = everything[: everything.index(image)]
            assert [type(part) for part in prompt.parts()] == [type(part) for part in before]
            assert not any(part.trained for part in prompt.parts() if isinstance(part, Image))
            last = [part.pixels for part in before if isinstance(part, Image)]
            assert reference(prompt) is (last[-1] if last else None)
            assert not drop(prompt, "both").images
            assert as_prompt(prompt, plans=True).turns == prompt.turns or prompt.images


@pytest.mark.parametrize("said", ["<image>", "a plan of it <image>", "<image><image>"])
@pytest.mark.parametrize("reference", REFERENCES)
def test_a_row_that_begins_with_what_it_draws_trains_and_is_drawn(said, reference):
    """Its prompt is a user who says nothing, as that of a row which lost what it says."""
    shown = [picture(np.random.default_rng(n)) for n in range(said.count("<image>"))]
    row = {"messages": [{"role": "assistant", "content": said}], "images": shown}
    for connector in CONNECTORS:
        model = external_model(connector, reference=reference)
        asked, drawn = zip(*prompts(parse_row(row, "here"), model.config.plans))
        assert asked[0].turns == (Turn("user", ()),)
        assert model(list(asked), list(drawn), torch.Generator().manual_seed(0)).image.isfinite()
        begun = Document((Turn("assistant", ()),))
        guidance, noise = Guidance(2.0), [torch.Generator().manual_seed(0)]
        assert draw(model, [begun], (8, 8), noise, guidance)[0].shape == (8, 8, 3)


def test_parts_that_do_not_go_together_are_refused():
    reader = OwnReader(tiny_model(), tokenizer())
    with pytest.raises(UserError, match="image_size 10 is no multiple of 4"):
        ExternalModel(config(image_size=10), reader, PixelPatches(2))
    wrong = config().connector.model_copy(update={"tap_layer": 3})
    wrong = config().model_copy(update={"connector": wrong})
    with pytest.raises(UserError, match="tap_layer 3: the reader has 2 layers"):
        ExternalModel(wrong, reader, PixelPatches(4))
    reader.causal = True
    with pytest.raises(UserError, match="causal=true"):
        ExternalModel(config(), reader, PixelPatches(4))
