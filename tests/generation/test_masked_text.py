"""Writing by masked prediction: against the training forward, row by row, and end to end."""

from itertools import pairwise, product

import numpy as np
import pytest
import torch
from PIL import Image as PILImage

from tests.documents import picture, tokenizer
from tests.models import tiny, tiny_model
from tests.paths.cases import codec_of
from tests.paths.toy import fits
from unimodal.data.document import Document, Image, Text, Turn
from unimodal.generation.context import read_documents
from unimodal.generation.masked_text import say_block
from unimodal.generation.verbs import Unimodal
from unimodal.model import unified
from unimodal.model.masked_text import HIDDEN, Hidden
from unimodal.paths.choose import Choice
from unimodal.sequence.layout import layout
from unimodal.sequence.mask import Marks
from unimodal.sequence.pack import pack_sequences

MASKED = {"text_objective": "masked", "masked_text": {"block": 4, "forwards": 4}}
PROMPTS = ["a red circle", "two", "a blue square left of a red circle, make it green"]
LIKELIEST = Choice(temperature=0)


def asked(words):
    return Document((Turn("user", (Text(words),)),))


def answered(words, *parts):
    return Document((*asked(words).turns, Turn("assistant", parts)))


def allowed(rows, *forbidden):
    none = torch.zeros(rows, len(tokenizer()), dtype=torch.bool)
    none[:, list(forbidden)] = True
    return none


@torch.inference_mode()
def training_logits(model, prompt, block, monkeypatch):
    """What training computes at the positions of a block that is hidden as a whole."""
    words = tokenizer().decode(block)
    sequence = layout(
        answered(prompt, Text(words, True)), tokenizer(), model.path, model.multiple, block=model.block
    )
    first = sequence.blocks[0]
    assert sequence.ids[first.start : first.start + first.length].tolist() == block
    at = torch.arange(first.start, first.start + first.length)
    monkeypatch.setattr(unified, "hide", lambda *_: Hidden(at, torch.ones(len(at))))
    found, logits = [], model.logits
    model.logits = lambda hidden: found.append(logits(hidden)) or found[-1]
    model(pack_sequences([sequence]), torch.Generator())
    del model.logits
    return found[0]


def looked_at(model, context, known):
    """Logits (n, V) of a block of which some tokens are known and the others HIDDEN."""
    zero = torch.zeros(1, len(known), dtype=torch.long)
    marks = Marks(zero, zero + context.step, zero + context.span + 1, zero.bool())
    position = (context.position + torch.arange(len(known)))[None, :, None].expand(-1, -1, 3)
    embeds = model.embed_text(torch.tensor([known]))
    return model.logits(model.look(context.cache, embeds, position, marks, image=False))[0]


def test_a_block_is_filled_in_as_training_has_it(monkeypatch):
    """The likeliest block of one forward is what training says of a block that is hidden as a whole."""
    model = tiny_model(**MASKED | {"masked_text": {"block": 4, "forwards": 1}})
    block = tokenizer().encode("two red circle left of a blue")[:4]
    context = read_documents(model, tokenizer(), [asked("a red circle")])
    before = context.cache.length.clone()
    said = say_block(model, context, allowed(1), [torch.Generator()], LIKELIEST)
    assert torch.equal(context.cache.length, before)
    logits = training_logits(model, "a red circle", block, monkeypatch)
    assert said[0].tolist() == logits.argmax(-1).tolist()


@torch.inference_mode()
def test_the_surest_token_stays_and_the_rest_is_asked_again():
    """Against a loop that is written as the definition, over looks at one token more each time."""
    model = tiny_model(5, **MASKED)
    context = read_documents(model, tokenizer(), [asked("two")])
    looks, look = [], model.look
    model.look = lambda *given, **named: looks.append(given[1]) or look(*given, **named)
    said = say_block(model, context, allowed(1), [torch.Generator()], LIKELIEST)[0]
    del model.look
    assert len(looks) == 4
    hidden = [(embeds[0] == model.text_mask).all(-1) for embeds in looks]
    assert [int(h.sum()) for h in hidden] == [4, 3, 2, 1]
    for before, after in pairwise(hidden):
        assert (before | ~after).all()  # what is known stays known
    # The first to stay is the one whose likeliest token has most probability.
    known = {}
    for _ in range(4):
        odds = looked_at(model, context, [known.get(i, HIDDEN) for i in range(4)]).softmax(-1)
        best = max((i for i in range(4) if i not in known), key=lambda i: odds[i].max().item())
        known[best] = int(odds[best].argmax())
    assert said.tolist() == [known[i] for i in range(4)]


@torch.inference_mode()
def test_a_random_model_says_blocks_as_often_as_it_should():
    """Samples of two tokens out of three, the surer first, against the odds of all nine."""
    model = tiny_model(2, **MASKED | {"masked_text": {"block": 2, "forwards": 2}})
    words = sorted(tokenizer().encode(word)[0] for word in ("two", "yes", "no"))
    context = read_documents(model, tokenizer(), [asked("two")])

    def odds(*known):
        """(2, 3) of each word at each place."""
        return looked_at(model, context, known)[:, words].softmax(-1).double()

    first, wanted = odds(HIDDEN, HIDDEN), torch.zeros(3, 3, dtype=torch.float64)
    for a, b in product(range(3), repeat=2):  # what is drawn for both; the surer of the two stays
        chance = first[0, a] * first[1, b]
        if first[0, a] > first[1, b]:
            wanted[a] += chance * odds(words[a], HIDDEN)[1]
        else:
            wanted[:, b] += chance * odds(HIDDEN, words[b])[0]
    assert wanted.sum().item() == pytest.approx(1)
    count = 4000
    forbidden = torch.ones(1, len(tokenizer()), dtype=torch.bool)
    forbidden[:, words] = False
    generators = [torch.Generator().manual_seed(seed) for seed in range(count)]
    many = context.select([0] * count)
    said = say_block(model, many, forbidden.expand(count, -1), generators, Choice()).numpy()
    found = np.searchsorted(words, said)
    counts = np.bincount(3 * found[:, 0] + found[:, 1], minlength=9)
    assert fits(counts, wanted.flatten().numpy())


def test_forbidden_tokens_are_never_said():
    model = tiny_model(**MASKED)
    context = read_documents(model, tokenizer(), [asked("two"), asked("a red circle")])
    only = tokenizer().encode("two")[0]
    forbidden = torch.ones(2, len(tokenizer()), dtype=torch.bool)
    forbidden[:, only] = False
    generators = [torch.Generator(), torch.Generator()]
    assert (say_block(model, context, forbidden, generators, Choice()) == only).all()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_answers_of_a_batch_equal_singles(temperature):
    model = tiny(**MASKED)
    images = [PILImage.fromarray(picture(np.random.default_rng(seed))) for seed in range(3)]
    options = dict(max_tokens=11, temperature=temperature, seed=3)
    answers = model.answer(images, PROMPTS, **options)
    assert answers == [model.answer(i, p, **options) for i, p in zip(images, PROMPTS)]
    assert model.complete(PROMPTS, **options) == [model.complete(p, **options) for p in PROMPTS]
    replies = model.chat_batch([{"messages": [{"role": "user", "content": p}]} for p in PROMPTS], **options)
    assert len(replies) == 3


def test_the_longest_answer_is_cut_inside_a_block(monkeypatch):
    model = tiny(**MASKED)
    word = tokenizer().encode("two")[0]
    monkeypatch.setattr(
        "unimodal.generation.converse.say_block", lambda *_: torch.full((1, 4), word, dtype=torch.long)
    )
    assert model.complete("two", max_tokens=6) == tokenizer().decode([word] * 6)


@pytest.mark.parametrize("path", ["flow", "masked"])
def test_learns_to_answer_to_draw_and_to_stop(path):
    """Trained on three documents, it says what they say: in words, in a picture, in both.

    Text is said by masked prediction, and with the path `masked` everything is.
    """
    codec = codec_of("pixels" if path == "flow" else "vq")
    model = tiny_model(1, codec, path=path, path_options={}, **MASKED)
    shown = picture(np.random.default_rng(0))
    lessons = [
        answered("how many", Text("two red circle left of a blue square", True)),
        answered("a red circle", Image(shown, True)),
        answered("make it green", Text("yes", True), Image(shown, True), Text("two", True)),
    ]
    sequences = [layout(d, tokenizer(), model.path, model.multiple, block=4) for d in lessons]
    pack = pack_sequences(sequences)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for step in range(400):
        losses = model(pack, torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        (losses.text / 20 + losses.image / 20).backward()
        optimizer.step()
    talk = Unimodal(model, tokenizer())

    def said(words):
        return talk.chat([{"role": "user", "content": words}], guidance=1.0, image_guidance=1.0)

    assert said("how many").parts == ("two red circle left of a blue square",)
    drawn = said("a red circle")
    assert isinstance(drawn.parts[0], PILImage.Image)  # nothing was told to follow
    if path == "masked":
        pixels = np.asarray(drawn.parts[0])
        signal = (torch.from_numpy(shown.copy()).permute(2, 0, 1)[None] / 127.5 - 1).float()
        learned = codec.reconstruct(signal)[0].permute(1, 2, 0)
        assert np.abs(pixels / 127.5 - 1 - learned.clamp(-1, 1).numpy()).max() < 0.01
    both = said("make it green")
    assert [part if isinstance(part, str) else "picture" for part in both.parts] == ["yes", "picture", "two"]
