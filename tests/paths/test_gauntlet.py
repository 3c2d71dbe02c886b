"""Every path x every suitable codec through the same tests; a new path joins by a line in cases.py."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from PIL import Image as PILImage

from tests.adapters.make import attach
from tests.documents import picture, random_document, tokenizer
from tests.paths.cases import CASES
from unimodal.attention.door import use_backend
from unimodal.data.document import Document, Image, Text, Turn
from unimodal.diffusion.guidance import Guidance
from unimodal.generation.context import image_place, read_documents, start_image
from unimodal.generation.converse import Converser, Drawn, Piece, Settings
from unimodal.generation.load import load
from unimodal.generation.verbs import Unimodal
from unimodal.model import unified
from unimodal.model.folder import save_model
from unimodal.model.masked_text import Hidden
from unimodal.sequence.layout import layout
from unimodal.sequence.pack import pack_sequences

GRIDS = {"square": (8, 8), "wide": (8, 16), "tall": (16, 4), "one row": (4, 12), "one cell": (4, 4)}
PROMPTS = ["a red circle", "a blue square left of a red circle", "green"]


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def lay(model, document):
    return layout(document, tokenizer(), model.path, model.multiple, block=model.block)


def documents(count, drawn=0):
    """Random documents, with at least `drawn` drawn pictures each."""
    found, seed = [], 0
    while len(found) < count:
        document = random_document(np.random.default_rng(seed))
        seed += 1
        if sum(image.trained for image in document.images) >= drawn:
            found.append(document)
    return found


def drawing(pixels, words="a red circle"):
    """A prompt, and the same with its picture drawn."""
    prompt = Document((Turn("user", (Text(words),)),))
    return prompt, Document((*prompt.turns, Turn("assistant", (Image(pixels, True),))))


def alone(corrupt):
    """Corrupt every image by itself, by chance of its number: of all at once, then of each again in turn."""
    count, at_once = 0, None

    def one(truth, grid):
        nonlocal count
        count += 1
        return corrupt([truth], [grid], torch.Generator().manual_seed((count - 1) % at_once))

    def together(truths, grids, generator):
        nonlocal at_once
        at_once = at_once or len(truths)
        made = [one(truth, grid) for truth, grid in zip(truths, grids)]
        names = [f.name for f in fields(made[0]) if f.name not in ("owner", "before")]
        joined = {name: torch.cat([getattr(m, name) for m in made]) for name in names}
        owner = torch.cat([m.owner + number for number, m in enumerate(made)])
        return replace(made[0], **joined, owner=owner)

    return together


def hide_all(blocks, generator):
    """All tokens of every block of masked text, with nothing left to chance."""
    at = [torch.arange(block.start, block.start + block.length) for block in blocks]
    at = torch.cat([torch.zeros(0, dtype=torch.long), *at])
    return Hidden(at, torch.ones(len(at)))


def test_learns_a_few_documents_by_heart(case, monkeypatch):
    model = case.model().train()
    pack = pack_sequences([lay(model, d) for d in documents(8, drawn=1)])
    trained = int((pack.labels >= 0).sum())
    positions = sum(span.length for span in pack.images if span.kind == "target")
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], case.rate)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    encoded = model.encoded(pack.pixels)  # once: the codec does not learn
    monkeypatch.setattr(model, "encoded", lambda pixels: encoded)
    words = "text_expert" not in case.frozen
    first, learned = None, False
    for _ in range(case.steps):
        losses = model(pack, torch.Generator().manual_seed(0))
        text, image = losses.text.item(), losses.image.item()
        first = first or (text, image)
        learned = image < case.to * first[1] and (not words or text < max(0.05, case.to) * first[0])
        if learned:
            break
        optimizer.zero_grad()
        (losses.text / trained + losses.image / positions).backward()
        optimizer.step()
    assert learned, f"text {text / first[0]:.3f} and pictures {image / first[1]:.3f} of the first losses"
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    for name, weight in model.state_dict().items():  # not one bit of what is frozen has moved
        assert torch.equal(weight, before[name]) == (name not in trained), name


def test_gradients_reach_every_trained_weight_and_no_frozen_one(case):
    model = case.model()
    model.codec.requires_grad_(False)
    losses = model(
        pack_sequences([lay(model, d) for d in documents(6, drawn=1)]), torch.Generator().manual_seed(0)
    )
    (losses.text + losses.image).backward()
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            assert weight.grad is not None and weight.grad.abs().sum() > 0, name
        else:
            assert weight.grad is None, name


def test_text_alone_touches_the_path_for_all_reduce(case):
    model = case.model()
    document = Document((Turn("user", (Text("how many"),)), Turn("assistant", (Text("two", True),))))
    losses = model(pack_sequences([lay(model, document)]), torch.Generator())
    assert losses.image == 0
    losses.image.backward()
    drawing = [model.path] + ([model.reference] if model.reference else [])
    assert all(p.grad is not None for part in drawing for p in part.parameters() if p.requires_grad)


@pytest.mark.parametrize("backend", ["naive", "sdpa", "flash"])
def test_packed_equals_alone(case, monkeypatch, backend):
    model = case.model()
    monkeypatch.setattr(unified, "hide", hide_all)
    monkeypatch.setattr(model.path, "corrupt", alone(model.path.corrupt))
    use_backend(backend)
    sequences = [lay(model, d) for d in documents(5)]
    together = model(pack_sequences(sequences, sum(map(len, sequences)) + 9), torch.Generator())
    use_backend("naive")
    singles = [model(pack_sequences([sequence]), torch.Generator()) for sequence in sequences]
    use_backend(None)
    torch.testing.assert_close(together.text, sum(x.text for x in singles), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(together.image, sum(x.image for x in singles), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        together.image_each, torch.cat([x.image_each for x in singles]), rtol=1e-4, atol=1e-4
    )


def test_later_text_sees_the_finished_picture_and_never_the_corrupted_one(case, monkeypatch):
    model = case.model()
    monkeypatch.setattr(unified, "hide", hide_all)
    shown = Image(picture(np.random.default_rng(0)), True)
    turns = (Turn("user", (Text("a red circle"),)), Turn("assistant", (shown, Text("two", True))))
    pack = pack_sequences([lay(model, Document(turns))])
    first, second = (model(pack, torch.Generator().manual_seed(seed)) for seed in (1, 2))
    assert first.text == second.text
    pack.pixels[0] = 255 - pack.pixels[0]
    assert model(pack, torch.Generator().manual_seed(1)).text != first.text


@pytest.mark.parametrize("size", GRIDS.values(), ids=GRIDS)
@torch.inference_mode()
def test_cached_equals_uncached(case, size):
    """What a look over the cache sees, step by step and kept, is what training computes in place."""
    model = case.model()
    prompt, trained = drawing(picture(np.random.default_rng(0), *size))
    seen = {}
    corrupt, loss = model.path.corrupt, model.path.loss

    def keep_corrupted(*given):
        seen["made"] = corrupt(*given)
        return seen["made"]

    def keep_hidden(hidden, corrupted):
        seen["hidden"] = hidden
        return loss(hidden, corrupted)

    model.path.corrupt, model.path.loss = keep_corrupted, keep_hidden
    model(pack_sequences([lay(model, trained)]), torch.Generator().manual_seed(4))
    grid = (size[0] // model.multiple, size[1] // model.multiple)
    target = model.path.target_layout(grid)
    count = len(target.steps)
    embeds = model.path.embed(seen["made"])[None, :count]  # of the first copy, if there are several
    context = read_documents(model, tokenizer(), [prompt])
    start_image(model, tokenizer(), context, grid)
    position, marks = image_place(context, grid, target)
    found = []
    for step in sorted(set(target.steps.tolist())):
        at = np.flatnonzero(target.steps == step)
        assert (np.diff(at) == 1).all(), "the positions of a step stand side by side"
        at = slice(int(at[0]), int(at[-1]) + 1)
        here = marks.map(lambda mark, at=at: mark[:, at])
        found.append(model.look(context.cache, embeds[:, at], position[:, at], here))
        context.cache.commit(torch.tensor([at.stop - at.start]))
    torch.testing.assert_close(torch.cat(found, 1)[0], seen["hidden"][:count], atol=1e-5, rtol=1e-4)


def pixels_of(images):
    return [np.asarray(image).astype(int) for image in images]


def same(first, second):
    """Equal within one level: sums in another order round otherwise."""
    return all(a.shape == b.shape and np.abs(a - b).max() <= 1 for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("size", GRIDS.values(), ids=GRIDS)
def test_batch_equals_singles_at_every_size(case, size):
    model = Unimodal(case.model(), tokenizer())
    together = pixels_of(model.generate(PROMPTS, n=2, seed=5, size=size))
    assert {picture.shape for picture in together} == {(*size, 3)}
    singles = [p for q in PROMPTS for s in (5, 6) for p in pixels_of(model.generate(q, seed=s, size=size))]
    assert same(together, singles)
    if size != GRIDS["one cell"]:  # where a code may well be drawn twice
        assert not same(together[::2], together[1::2])  # the two seeds of every prompt


def test_edits_of_different_sizes_equal_singles(case):
    model = Unimodal(case.model(), tokenizer())
    rng = np.random.default_rng(0)
    shown = [PILImage.fromarray(picture(rng, *size)) for size in ((16, 16), (8, 16), (16, 16))]
    told = ["make it red", "make it green", "make it a blue square"]
    together = pixels_of(model.edit(shown, told, seed=3, size=16))
    singles = [p for i, t in zip(shown, told) for p in pixels_of(model.edit(i, t, seed=3, size=16))]
    assert same(together, singles)
    assert [p.shape for p in together] == [(16, 16, 3), (8, 16, 3), (16, 16, 3)]


def test_guidance_of_one_is_no_guidance(case):
    """Null branches that are computed and weigh nothing change nothing."""
    model = Unimodal(case.model(), tokenizer())
    plain = pixels_of(model.generate(PROMPTS, seed=1, guidance=1.0))
    assert same(plain, pixels_of(model.generate(PROMPTS, seed=1, guidance=1.0 + 1e-7)))
    strong = pixels_of(model.generate(PROMPTS, seed=1, guidance=6.0))
    assert not same(plain, strong)


@torch.inference_mode()
def test_converses_in_words_and_pictures(case, monkeypatch):
    """Pictures given and drawn, words between them: replies of two rows, one of two pictures and one of one.

    The rows are told what to say, since what random weights say would rarely be `<|image_start|>`; what they
    draw is their own, and is read back as a conversation that is read anew.
    """
    model, words = case.model(), tokenizer()
    rng = np.random.default_rng(1)
    given = [Image(picture(rng)) for _ in range(2)]
    asked = [Document((Turn("user", (*given[:count], Text("a red circle"))),)) for count in (2, 1)]
    start, end = words.image_start, words.im_end
    first = [*words.encode("two"), start, *words.encode("red circle"), start, end]
    scripts = [iter(first), iter([start, end])]

    def scripted(self, writing, images, tokens):
        said = [next(script) if busy else words.pad for script, busy in zip(scripts, writing)]
        return torch.tensor(said)[:, None]

    monkeypatch.setattr(Converser, "_next", scripted)
    converser = Converser(model, words, asked, Settings(guidance=Guidance(2.0, 1.0)))
    events = list(converser.run([0, 1]))
    told = ["".join(e.text for row, e in events if row == own and isinstance(e, Piece)) for own in (0, 1)]
    assert told == ["twored circle", ""]
    drawn = [[e.pixels for row, e in events if row == own and isinstance(e, Drawn)] for own in (0, 1)]
    assert [len(pictures) for pictures in drawn] == [2, 1]
    reply = (Text("two", True), Image(drawn[0][0], True), Text("red circle", True), Image(drawn[0][1], True))
    wanted = [(*asked[0].turns, Turn("assistant", reply))]
    wanted.append((*asked[1].turns, Turn("assistant", (Image(drawn[1][0], True),))))
    anew = read_documents(model, words, [Document(turns) for turns in wanted])
    assert torch.equal(converser.context.position, anew.position)
    torch.testing.assert_close(converser.context.hidden, anew.hidden, atol=1e-5, rtol=1e-4)


def test_an_adapter_changes_pictures_and_merges(case):
    """Random low-rank changes of every layer, the path's own included."""
    model = Unimodal(case.model(), tokenizer())
    plain = pixels_of(model.generate(PROMPTS, n=3, seed=4))
    attached = attach(model.model)
    changed = pixels_of(model.generate(PROMPTS, n=3, seed=4))
    assert not same(plain, changed)
    attached.detach(merge=True)
    assert same(changed, pixels_of(model.generate(PROMPTS, n=3, seed=4)))


@torch.inference_mode()
def test_a_drawn_picture_is_read_as_training_lays_it_out(case):
    """The context after drawing, marks and size included, is that of reading the whole conversation anew."""
    model = case.model()
    asked = [drawing(picture(np.random.default_rng(0)), words)[0] for words in PROMPTS]
    settings = Settings(writes=False, guidance=Guidance(2.0, 1.0), grid=(2, 1))
    converser = Converser(model, tokenizer(), asked, settings)
    assert len(list(converser.run([0, 1, 2]))) == 3
    anew = read_documents(model, tokenizer(), converser.documents)
    assert torch.equal(converser.context.position, anew.position)
    torch.testing.assert_close(converser.context.hidden, anew.hidden, atol=1e-5, rtol=1e-4)


def test_a_saved_model_draws_the_same(case, tmp_path):
    model = Unimodal(case.model(), tokenizer())
    save_model(tmp_path / "model", model.model, model.tokenizer)
    before = pixels_of(model.generate(PROMPTS, seed=2))
    assert same(before, pixels_of(load(str(tmp_path / "model")).generate(PROMPTS, seed=2)))
