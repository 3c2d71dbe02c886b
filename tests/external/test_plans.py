"""Plans: what the reader says before a picture is what training shows there, and reaches the denoiser."""

import numpy as np
import pytest
import torch

from tests.documents import picture, random_document, tokenizer
from tests.external.make import CONNECTORS, DIT, external, external_model, planner
from unimodal.data.document import Document, Image, Text, Turn
from unimodal.diffusion.guidance import Guidance
from unimodal.external.cache import key_of
from unimodal.external.prompts import as_prompt, plan_of, prompts
from unimodal.generation.converse import Converser, Settings, with_reply

ASKED = Document((Turn("user", (Text("a red circle"),)),))
PROMPTS = ["a red circle", "two", "a blue square left of a red circle, make it green"]


def pixels_of(images):
    return [np.asarray(image).astype(int) for image in images]


def told(model):
    """The prompts that a model reads from now on."""
    seen, read = [], model.model.read
    model.model.read = lambda prompts: seen.extend(prompts) or read(prompts)
    return seen


def said_by(reader, seed):
    """What the reader's own converser says before it draws, asked the same with the same seed."""
    writing = reader.writing
    settings = Settings(
        writes=False,
        plan=writing.plan,
        temperature=writing.temperature,
        top_p=writing.top_p,
        guidance=Guidance(1.0, 1.0),
        grid=(2, 2),
        steps=1,
    )
    events = [event for _, event in Converser(reader.model, tokenizer(), [ASKED], settings).run([seed])]
    return "".join(event.text for event in events[:-1])


def test_the_readers_plan_is_part_of_what_the_denoiser_is_told():
    model = external(reader=planner(), plans=True)
    for seed in (1, 2, 3):
        seen = told(model)
        model.generate("a red circle", seed=seed, guidance=2.0)
        full, null = seen
        assert plan_of(full) == said_by(model.model.reader, seed) != ""
        assert full.turns[0] == ASKED.turns[0]
        assert not any(isinstance(part, Text) for part in null.parts())
        del model.model.read


def test_without_plans_nothing_is_said_and_pictures_are_as_if_the_reader_had_none():
    """Also where the reader says something by itself, in a conversation."""
    model, plain = external(reader=planner()), external()
    ours, theirs = (pixels_of(m.generate(PROMPTS, seed=4)) for m in (model, plain))
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs))
    assert model.writing.plan == 0 and model.model.reader.writing.plan == 6
    start, end = tokenizer().image_start, tokenizer().im_end
    wanted = iter([*tokenizer().encode("two"), start, end])
    model.model.reader.model.logits = lambda hidden: torch.nn.functional.one_hot(
        torch.tensor([next(wanted)]), len(tokenizer())
    ).float()
    seen = told(model)
    reply = model.chat([{"role": "user", "content": "a red circle"}], seed=4, temperature=0.0)
    assert reply.text == "two" and len(reply.images) == 1
    assert seen[0].turns == ASKED.turns


@pytest.mark.parametrize("connector", CONNECTORS)
def test_a_batch_of_plans_equals_singles(connector):
    model = external(connector, reader=planner(), plans=True)
    together = pixels_of(model.generate(PROMPTS, n=2, seed=5))
    alone = [p for prompt in PROMPTS for s in (5, 6) for p in pixels_of(model.generate(prompt, seed=s))]
    assert all(np.abs(a - b).max() <= 1 for a, b in zip(together, alone, strict=True))
    unplanned = pixels_of(external(connector).generate(PROMPTS, n=2, seed=5))
    assert any(np.abs(a - b).max() > 1 for a, b in zip(together, unplanned))


def test_sizes_are_pixels_though_reader_and_denoiser_count_in_others():
    model = external(
        reader=planner(), plans=True, denoiser={"kind": "dit", "options": DIT | {"patch_size": 2}}
    )
    assert (model.model.multiple, model.model.reader.multiple) == (8, 4)
    assert model.generate("two", size=(16, 8))[0].size == (8, 16)
    assert model.generate("two")[0].size == (8, 8)


@pytest.mark.parametrize("plans", [True, False])
def test_a_row_is_told_in_training_as_a_conversation_is_in_drawing(plans):
    """The prompt of every row's picture is that of the same conversation, written up to there."""
    compared = planned = 0
    for seed in range(80):
        document = random_document(np.random.default_rng(seed))
        drawn = iter(prompts(document, plans))
        so_far = Document(())
        for turn in document.turns:
            if turn.role != "assistant":
                so_far = Document((*so_far.turns, turn))
                continue
            for part in turn.parts:
                if isinstance(part, Image) and part.trained:
                    prompt, pixels = next(drawn)
                    written = as_prompt(so_far, plans)
                    assert key_of(prompt) == key_of(written)
                    assert pixels is part.pixels
                    compared, planned = compared + 1, planned + bool(plan_of(so_far))
                    assert bool(plan_of(prompt)) == (plans and bool(plan_of(so_far)))
                so_far = with_reply(so_far, [part])
        assert next(drawn, None) is None
    assert compared > 60 and planned > 10


def test_hidden_states_of_both_are_the_same():
    model = external_model("hidden", reader=planner(), plans=True)
    rng = np.random.default_rng(0)
    shown, drawn = picture(rng), picture(rng)
    asked = Turn("user", (Image(shown), Text("make it green")))
    row = Document((asked, Turn("assistant", (Text("a green circle", True), Image(drawn, True)))))
    ((prompt, _),) = prompts(row, model.config.plans)
    talked = as_prompt(with_reply(Document((asked,)), [Text("a green circle", True)]), model.config.plans)
    for ours, theirs in zip(model.read([prompt]), model.read([talked])):
        assert torch.equal(ours, theirs)
