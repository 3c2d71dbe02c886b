"""What is drawn is shown the picture before it, cell by cell: where, by what, in drawing as in training."""

import numpy as np
import pytest
import torch

from tests.documents import picture, tokenizer
from tests.models import tiny_model
from tests.paths.cases import CASES
from unimodal.data.document import Document, Image, Text, Turn
from unimodal.diffusion.guidance import Guidance
from unimodal.generation.context import read_documents, start_image
from unimodal.generation.draw import draw
from unimodal.model.change_path import with_path
from unimodal.model.experts import freeze
from unimodal.sequence.layout import layout
from unimodal.sequence.pack import pack_sequences
from unimodal.training.flops import Costs

SHOWN = [name for name in CASES if "shown" in name]


def edit(seed: int = 0, before=(8, 8), after=(8, 8)) -> tuple[Document, Document]:
    """A picture and an instruction; and the same with what becomes of it."""
    rng = np.random.default_rng(seed)
    asked = Document((Turn("user", (Image(picture(rng, *before)), Text("make it red"))),))
    return asked, Document((*asked.turns, Turn("assistant", (Image(picture(rng, *after), True),))))


def lay(model, *documents):
    rules = (tokenizer(), model.path, model.multiple)
    return pack_sequences([layout(document, *rules) for document in documents])


def image_loss(model, pack):
    return model(pack, torch.Generator().manual_seed(3)).image.item()


def test_every_drawn_picture_knows_the_one_before_it_in_its_own_document():
    model = tiny_model()
    first, other_size, alone = edit(1)[1], edit(2, before=(8, 16))[1], edit(3)[1].turns[1:]
    shown = first.turns[1].parts[0]
    further = Document((*first.turns, Turn("user", (Text("now blue"),)), Turn("assistant", (shown,))))
    pack = lay(model, first, other_size, Document(alone), further)
    drawn = {span.image: span.before for span in pack.images if span.kind == "target"}
    assert drawn == {1: 0, 3: None, 4: None, 6: 5, 7: 6}
    assert all(span.before is None for span in pack.images if span.kind == "clean")


@pytest.mark.parametrize("name", SHOWN)
def test_each_position_gets_its_own_cell(name):
    """Against a walk over the places of all positions, one by one."""
    model, grid = CASES[name].model(), (4, 2)
    latents = torch.randn(8, model.reference.channels)
    before = model.reference.before([latents, None], [grid, grid], model.path)
    added = model.reference(before)
    target = model.path.target_layout(grid)
    positions = len(target.steps)
    assert added.shape == (2 * positions, model.config.hidden_size)
    assert not added[positions:].any()
    assert not before.known[positions:].any()
    for number, (_, row, column) in enumerate(target.offsets(grid).tolist()):
        inside = row < 4 and column < 2
        cell = latents[2 * row + column] if inside else torch.zeros_like(latents[0])
        torch.testing.assert_close(added[number], model.reference.proj.weight @ cell)
        torch.testing.assert_close(before.latents[number], cell)
        assert before.known[number] == inside


def test_a_model_begins_as_it_was_without():
    model = tiny_model()
    begun = with_path(model, model.config.model_copy(update={"reference": "cells"}))
    assert not begun.reference.proj.weight.any()
    torch.nn.init.constant_(begun.path.copied.bias, -40.0)  # else a twentieth is copied
    pack = lay(model, edit()[1])
    assert image_loss(model, pack) == pytest.approx(image_loss(begun, pack), rel=1e-5)
    assert with_path(begun, model.config).reference is None


def test_nothing_is_shown_without_a_picture_of_its_size():
    model = tiny_model(reference="cells")
    packs = [lay(model, edit(1, before=size)[1]) for size in ((8, 8), (8, 16))]
    packs.append(lay(model, Document(edit(1)[1].turns[1:])))
    before = [image_loss(model, pack) for pack in packs]
    torch.nn.init.zeros_(model.reference.proj.weight)
    torch.nn.init.constant_(model.path.copied.bias, -40.0)
    after = [image_loss(model, pack) for pack in packs]
    assert before[0] != after[0]
    assert before[1:] == after[1:]


@pytest.mark.parametrize("name", SHOWN)
def test_drawing_sees_what_training_saw(name, monkeypatch):
    """Hidden states of a drawn picture, from the engine's look (nulls beside it) and from a training pack."""
    model = CASES[name].model()
    asked, whole = edit()
    seen = {}
    corrupt, loss = model.path.corrupt, model.path.loss

    def keep_corrupted(*given):
        seen["made"] = corrupt(*given)
        return seen["made"]

    def keep_hidden(hidden, corrupted):
        seen["hidden"] = hidden
        seen["loss"] = loss(hidden, corrupted)
        return seen["loss"]

    monkeypatch.setattr(model.path, "corrupt", keep_corrupted)
    monkeypatch.setattr(model.path, "loss", keep_hidden)
    with torch.no_grad():
        model(lay(model, whole), torch.Generator().manual_seed(0))
    steps = model.path.target_layout((2, 2)).steps
    count = len(steps)
    embeds = model.path.embed(seen["made"])[None, :count].detach()

    class Seen(Exception):
        """Enough was seen."""

    def sample(look, codec, *rest):
        found = []
        for step in sorted(set(steps.tolist())):
            at = np.flatnonzero(steps == step)
            at = slice(int(at[0]), int(at[-1]) + 1)
            hidden, nulls = look(embeds[:, at], at=at)
            assert nulls
            found.append(hidden)
        seen["drawn"] = torch.cat(found, 1)[0]
        raise Seen

    monkeypatch.setattr(model.path, "sample", sample)
    with torch.inference_mode():
        context = read_documents(model, tokenizer(), [asked])
        start_image(model, tokenizer(), context, (2, 2))
        noise = [torch.Generator()]
        with pytest.raises(Seen):
            draw(model, tokenizer(), context, [asked], (2, 2), noise, Guidance(2.0, 1.5))
    torch.testing.assert_close(seen["drawn"], seen["hidden"][:count], atol=1e-5, rtol=1e-4)


def test_it_is_frozen_and_counted_with_what_draws():
    plain, shown = tiny_model(), tiny_model(reference="cells")
    costs = [Costs(model).pack(lay(model, edit()[1])) for model in (plain, shown)]
    weights = shown.reference.proj.weight.numel() + shown.path.copied.weight.numel()
    assert costs[1] - costs[0] == 6 * 4 * weights  # four positions
    freeze(shown, ["path"])
    assert not shown.reference.proj.weight.requires_grad
