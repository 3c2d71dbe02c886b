"""The engine: cached equals uncached, a batch equals its singles, the clean picture is read back."""

import numpy as np
import pytest
import torch
from PIL import Image as PILImage

from tests.documents import picture, random_document, tokenizer
from tests.models import assert_alike, edits_of_two_sizes, tiny, tiny_model
from tests.paths.cases import CASES
from unimodal.data.document import Document, Image, Text, Turn
from unimodal.diffusion.guidance import Guidance
from unimodal.errors import UserError
from unimodal.generation.context import image_place, read_documents, read_images, read_tokens, start_image
from unimodal.generation.converse import Converser, Drawn, Settings, with_reply
from unimodal.generation.draw import draw
from unimodal.model.config import Writing
from unimodal.sequence.layout import layout
from unimodal.sequence.pack import pack_sequences

PROMPTS = ["a red circle", "two", "a blue square left of a red circle, make it green"]


def documents(count=3):
    found = []
    for seed in range(100):
        document = random_document(np.random.default_rng(seed))
        if document.turns[-1].role == "assistant":
            found.append(Document(document.turns[:-1]))
        if len(found) == count:
            return found


def uncached_hidden(model, document):
    """Hidden state of the last position by one forward over the whole document, no cache."""
    pack = pack_sequences([layout(document, tokenizer(), model.path, model.multiple, open_turn=True)])
    from unimodal.attention.door import make_plan

    embeds = model.embed_tokens(pack.ids)[0].detach()
    is_image = torch.zeros(pack.budget, dtype=torch.bool)
    latents = model.encode(pack.pixels)
    for span in pack.images:
        at = slice(span.start, span.start + span.length)
        embeds[at] = model.path.embed_clean(latents[span.image])
        is_image[at] = True
    embeds = model.places(embeds[None], pack.position, is_image[None])
    return model.decoder(embeds, pack.position, make_plan(pack.marks), is_image[None])[0, -1]


@torch.inference_mode()
def test_ragged_prefill_equals_each_alone_uncached():
    model = tiny_model()
    asked = documents()
    context = read_documents(model, tokenizer(), asked)
    for row, document in enumerate(asked):
        torch.testing.assert_close(
            context.hidden[row], uncached_hidden(model, document), atol=1e-5, rtol=1e-4
        )


@torch.inference_mode()
def test_cached_text_and_text_after_an_image_equal_uncached():
    """Token by token, then an image, then a token: the state is that of reading the whole document at once.

    After the image the cache must hold the finished clean picture, not a denoising step's.
    """
    model = tiny_model()
    asked = documents(2)
    context = read_documents(model, tokenizer(), asked)
    on = torch.ones(2, dtype=torch.bool)
    said = tokenizer().encode("two")
    for token in said:
        read_tokens(model, context, torch.tensor([token, token]), on)
    read_tokens(model, context, torch.full((2,), tokenizer().image_start), on)
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    pictures = draw(model, tokenizer(), context, asked, (2, 2), generators, Guidance(2.0, 1.5), 3)
    read_images(model, context, torch.stack(model.encode(pictures)), (2, 2), on)
    read_tokens(model, context, torch.full((2,), tokenizer().image_end), on)
    for token in said:
        read_tokens(model, context, torch.tensor([token, token]), on)
    for row, document in enumerate(asked):
        parts = [Text("two", True), Image(pictures[row], True), Text("two", True)]
        whole = uncached_hidden(model, with_reply(document, parts))
        torch.testing.assert_close(context.hidden[row], whole, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_cached_denoising_equals_the_training_forward():
    """The velocity that `look` computes over the cache is the one training computes in place."""
    model = tiny_model()
    pixels = picture(np.random.default_rng(0))
    prompt = Document((Turn("user", (Text("a red circle"),)),))
    trained = Document((*prompt.turns, Turn("assistant", (Image(pixels, True),))))
    seen = {}

    def corrupt(truths, grids, generator):
        seen["made"] = type(model.path).corrupt(model.path, truths, grids, generator)
        return seen["made"]

    def loss(hidden, corrupted):
        seen["hidden"] = hidden
        return type(model.path).loss(model.path, hidden, corrupted)

    model.path.corrupt, model.path.loss = corrupt, loss
    pack = pack_sequences([layout(trained, tokenizer(), model.path, model.multiple)])
    model(pack, torch.Generator().manual_seed(4))
    context = read_documents(model, tokenizer(), [prompt])
    read_tokens(model, context, torch.tensor([tokenizer().image_start]), torch.tensor([True]))
    embeds = model.path.embed(seen["made"])[None]
    place = image_place(context, (2, 2), model.path.target_layout((2, 2)))
    for _ in range(2):  # a second look sees no trace of the first
        hidden = model.look(context.cache, embeds, *place)
        torch.testing.assert_close(hidden[0], seen["hidden"], atol=1e-5, rtol=1e-4)


def pixels_of(images):
    return [np.asarray(image) for image in images]


@pytest.mark.parametrize("experts", ["shared", "mot"])
def test_generate_batch_equals_singles(experts):
    model = tiny(experts=experts)
    together = pixels_of(model.generate(PROMPTS, n=2, seed=5))
    alone = [p for prompt in PROMPTS for s in (5, 6) for p in pixels_of(model.generate(prompt, seed=s))]
    assert all(np.abs(a.astype(int) - b).max() <= 1 for a, b in zip(together, alone, strict=True))
    assert np.abs(together[0].astype(int) - together[1]).max() > 1
    own = pixels_of(model.generate(PROMPTS, seed=[5, 6, 5]))
    assert all(np.abs(own[k].astype(int) - together[at]).max() <= 1 for k, at in enumerate((0, 3, 4)))
    with pytest.raises(UserError, match="3 prompts but 2 seeds"):
        model.generate(PROMPTS, seed=[1, 2])


def test_edit_batch_equals_singles_also_of_different_sizes():
    images, together, alone = edits_of_two_sizes(tiny(), PROMPTS)
    assert [after.size for after in together] == [image.size for image in images]
    assert_alike(together, alone)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_answers_and_texts_of_a_batch_equal_singles(temperature):
    model = tiny()
    images = [PILImage.fromarray(picture(np.random.default_rng(seed))) for seed in range(3)]
    options = dict(max_tokens=12, temperature=temperature, seed=3)
    answers = model.answer(images, PROMPTS, **options)
    assert answers == [model.answer(i, p, **options) for i, p in zip(images, PROMPTS)]
    assert model.complete(PROMPTS, **options) == [model.complete(p, **options) for p in PROMPTS]


def test_a_row_that_stops_does_not_stop_its_neighbours():
    model = tiny()
    asked = documents(3)
    settings = Settings(max_tokens=20, temperature=1.5, draws=False)

    def run(some, seeds):
        texts = [""] * len(some)
        for row, event in Converser(model.model, tokenizer(), some, settings).run(seeds):
            texts[row] += event.text
        return texts

    seeds = list(range(3))
    together = run(asked, seeds)
    assert together == [run([d], [s])[0] for d, s in zip(asked, seeds)]
    assert len({len(text) for text in together}) > 1


def test_guidance_one_equals_no_guidance_and_steps_are_counted():
    model = tiny()
    calls = []
    look = model.model.look
    model.model.look = lambda cache, embeds, *rest, **more: (
        calls.append(len(embeds)) or look(cache, embeds, *rest, **more)
    )
    plain = np.asarray(model.generate("two", guidance=1.0, steps=7)[0])
    assert calls == [1] * 7  # one row, exactly as many evaluations as steps
    calls.clear()
    model.generate("two", guidance=2.0, steps=7)
    assert calls == [2] * 7  # both branches in one forward
    calls.clear()
    image = PILImage.fromarray(picture(np.random.default_rng(0)))
    model.edit(image, "two", guidance=3.0, image_guidance=1.5, steps=2)
    assert calls == [3] * 2
    assert plain.shape == (8, 8, 3)


def test_guidance_with_an_untrained_null_is_refused():
    model = tiny(drop=dict(text=0.0, image=0.0, both=0.0))
    model.generate("two", guidance=1.0)
    with pytest.raises(UserError, match=r"text dropped.*drop\.text = 0"):
        model.generate("two", guidance=2.0)


def test_any_size_on_the_grid():
    model = tiny()
    assert model.generate("two", size=(12, 20))[0].size == (20, 12)
    assert model.generate("two", size=16)[0].size == (16, 16)


def test_chat_decides_to_draw_and_goes_on_after_the_picture():
    """A model made to write `<|image_start|>` draws, reads its picture, and then writes on."""
    model = tiny()
    wanted = iter([tokenizer().image_start, *tokenizer().encode("two"), tokenizer().im_end])
    model.model.logits = lambda hidden: torch.nn.functional.one_hot(
        torch.tensor([next(wanted)]), len(tokenizer())
    ).float()
    reply = model.chat([{"role": "user", "content": "a red circle"}])
    assert len(reply.images) == 1
    assert reply.text == "two"
    assert isinstance(reply.parts[0], PILImage.Image)


def test_stream_tells_steps_and_can_be_closed():
    from unimodal.generation.verbs import Drawing, Picture

    model = tiny()
    wanted = iter([tokenizer().image_start, tokenizer().im_end])
    model.model.logits = lambda hidden: torch.nn.functional.one_hot(
        torch.tensor([next(wanted)]), len(tokenizer())
    ).float()
    events = list(model.stream([{"role": "user", "content": "two"}], steps=3))
    assert [type(event) for event in events] == [Drawing, Drawing, Drawing, Picture]
    assert [(e.step, e.steps) for e in events[:3]] == [(1, 3), (2, 3), (3, 3)]
    wanted = iter([tokenizer().image_start])
    stream = model.stream([{"role": "user", "content": "two"}], steps=10_000)
    next(stream)
    stream.close()


def test_finished_picture_is_what_is_read_back():
    """What later turns read is the picture the person got, decoded and encoded again."""
    model = tiny()
    converser = Converser(
        model.model,
        tokenizer(),
        documents(1),
        Settings(writes=False, guidance=Guidance(1.0, 1.0), grid=(2, 2)),
    )
    drawn = [event for _, event in converser.run([0]) if isinstance(event, Drawn)]
    assert np.array_equal(converser.documents[0].images[-1].pixels, drawn[0].pixels)


def planning(plan, temperature=1.0, **changes):
    """A tiny model that may say so many tokens before a picture which it has to draw."""
    return tiny(writing=Writing(plan=plan, temperature=temperature, top_p=0.9), **changes)


@pytest.mark.parametrize("objective", ["next_token", "masked"])
def test_planned_pictures_of_a_batch_equal_singles(objective):
    """Rows whose plans differ in length wait for one another, and are drawn as if each were alone."""
    model = planning(6, text_objective=objective)
    together = pixels_of(model.generate(PROMPTS, n=2, seed=5))
    alone = [p for prompt in PROMPTS for s in (5, 6) for p in pixels_of(model.generate(prompt, seed=s))]
    assert all(np.abs(a.astype(int) - b).max() <= 1 for a, b in zip(together, alone, strict=True))
    unplanned = pixels_of(tiny(text_objective=objective).generate(PROMPTS, n=2, seed=5))
    assert any(np.abs(a.astype(int) - b).max() > 1 for a, b in zip(together, unplanned))


def said_before(model, logits, plan):
    """What is said before the picture by a model whose most likely tokens are these, one after the other."""
    wanted = iter(logits)
    model.model.logits = lambda hidden: torch.nn.functional.one_hot(
        torch.tensor([next(wanted)]), len(tokenizer())
    ).float()
    settings = Settings(writes=False, plan=plan, guidance=Guidance(1.0, 1.0), grid=(2, 2), steps=1)
    asked = [Document((Turn("user", (Text("two"),)),))]
    converser = Converser(model.model, tokenizer(), asked, settings)
    events = [event for _, event in converser.run([0])]
    assert isinstance(events[-1], Drawn)
    said = "".join(event.text for event in events[:-1])
    *words, drawn = converser.documents[0].turns[-1].parts  # what the picture's nulls are made of
    assert words == ([Text(said, trained=True)] if said else [])
    assert np.array_equal(drawn.pixels, events[-1].pixels)
    return said


def test_a_plan_ends_in_a_picture_however_it_ends():
    """By itself, by the end of the turn, which would leave nothing drawn, or because it is long enough."""
    a, *_ = tokenizer().encode("a")
    start, end = tokenizer().image_start, tokenizer().im_end
    assert said_before(tiny(), [a, a, start], 8) == "aa"
    assert said_before(tiny(), [a, end], 8) == "a"
    assert said_before(tiny(), [a, a, a, a], 3) == "aaa"
    assert said_before(tiny(), [], 0) == ""


@torch.inference_mode()
def test_room_for_a_picture_is_made_once():
    """However many looks are kept, the cache is not moved while a picture is drawn."""
    model = CASES["next_token on codes"].model()
    context = read_documents(model, tokenizer(), documents(2), room=1)
    start_image(model, tokenizer(), context, (4, 6))
    seen, look = [], model.look
    model.look = lambda cache, *rest, **more: seen.append(cache.k[0].data_ptr()) or look(cache, *rest, **more)
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    draw(model, tokenizer(), context, documents(2), (4, 6), generators, Guidance(2.0))
    assert len(seen) == 24 and len(set(seen)) == 1


def test_a_temperature_that_cannot_be_is_refused():
    for options in ({"temperature": -1.0}, {"top_p": 0.0}):
        with pytest.raises(UserError, match="temperature must be 0 or more"):
            Converser(tiny_model(), tokenizer(), documents(1), Settings(**options))
