"""A pretrained model stays itself: its logits are transformers', cached, packed, and after the way back."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import unimodal
from tests.pretrained.checkpoints import FAMILIES, make
from unimodal.attention.door import make_plan
from unimodal.images.codec import PixelPatches
from unimodal.model.rope import inverse_frequencies
from unimodal.pretrained.export import export_llm
from unimodal.pretrained.initialise import init_model
from unimodal.sequence.mask import PADDING, Marks

TOLERANCE = 1e-4


def marks_of(lengths):
    """Marks (1, T) and positions (1, T, 3) of text documents side by side."""
    steps = torch.cat([torch.arange(n) for n in lengths])[None]
    document = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))[None]
    marks = Marks(document, steps, steps * 0, torch.zeros_like(steps, dtype=torch.bool))
    return marks, steps[..., None].expand(-1, -1, 3)


@torch.no_grad()
def packed(model, rows):
    """Logits of each row of ids, all read in one pack."""
    lengths = [len(row) for row in rows]
    marks, position = marks_of(lengths)
    embeds = model.embed_tokens(torch.cat(rows)[None])
    hidden = model.decoder(embeds, position, make_plan(marks), marks.hidden)
    return model.logits(hidden)[0].split(lengths)


@torch.no_grad()
def cached(model, ids, pieces):
    """Logits of one row, read piece by piece into a cache."""
    cache, said, start = model.new_cache(1, 4), [], 0
    marks, position = marks_of([len(ids)])
    for count in pieces:
        part = slice(start, start + count)
        hidden = model.read(cache, ids[None, part], position[:, part], marks.map(lambda m, p=part: m[:, p]))
        said.append(model.logits(hidden)[0])
        start += count
    return torch.cat(said)


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request, tmp_path_factory):
    """Name, transformers' model, ours, its folder."""
    name, root = request.param, tmp_path_factory.mktemp("parity")
    sharded = {"max_shard_size": "30KB"} if name in ("llama", "qwen3") else {}
    theirs = make(name, root / "llm", **sharded)
    PixelPatches(4).save(root / "codec")
    length = 24 if name == "mistral-window" else None
    init_model(root / "llm", root / "codec", root / "ours", settings=["image_size=16"], max_length=length)
    return name, theirs, unimodal.load(root / "ours").model, root


def rows_for(theirs, seed=0):
    generator = torch.Generator().manual_seed(seed)
    vocabulary = theirs.config.vocab_size
    return [torch.randint(vocabulary, (n,), generator=generator) for n in (24, 1, 17, 9)]


def test_logits_equal_alone_packed_and_cached(pair):
    _, theirs, ours, _ = pair
    rows = rows_for(theirs)
    old = theirs.config.vocab_size
    together = packed(ours, rows)
    for row, in_pack in zip(rows, together):
        with torch.no_grad():
            expected = theirs(row[None]).logits[0]
        assert expected.std() > 0.5  # or agreement would mean little
        pieces = [len(row) // 2, *[1] * (len(row) - len(row) // 2)] if len(row) > 1 else [1]
        for said in (in_pack, packed(ours, [row])[0], cached(ours, row, pieces)):
            assert (said[:, :old] - expected).abs().max() < TOLERANCE


@torch.no_grad()
def test_ragged_rows_over_one_cache_are_transformers_padded_batch(pair):
    """Read a piece at a time, rows of their own lengths in each; theirs are padded in front and masked."""
    _, theirs, ours, _ = pair
    rows = rows_for(theirs)
    width, old = max(map(len, rows)), theirs.config.vocab_size
    padded = torch.stack([torch.nn.functional.pad(row, (width - len(row), 0)) for row in rows])
    mask = torch.stack([torch.arange(width) >= width - len(row) for row in rows]).long()
    places = (mask.cumsum(1) - 1).clamp_min(0)
    expected = theirs(padded, attention_mask=mask, position_ids=places).logits
    cache, said = ours.new_cache(len(rows), 4), [[] for _ in rows]
    for start, stop in ((0, 7), (7, 8), (8, 20), (20, width)):
        pieces = [row[start:stop] for row in rows]
        longest = max(map(len, pieces))
        ids = torch.stack([torch.nn.functional.pad(p, (0, longest - len(p))) for p in pieces])
        inside = torch.stack([torch.arange(longest) < len(p) for p in pieces])
        steps = (start + torch.arange(longest)).expand(len(rows), -1)
        marks = Marks(torch.where(inside, 0, PADDING), steps, steps * 0, torch.zeros_like(inside))
        hidden = ours.read(cache, ids, steps[..., None].expand(-1, -1, 3), marks)
        for row, piece in enumerate(pieces):
            said[row].append(ours.logits(hidden[row, : len(piece)]))
    assert cache.length.tolist() == [len(row) for row in rows]
    for row, (pieces, wanted) in enumerate(zip(said, expected)):
        assert (torch.cat(pieces)[:, :old] - wanted[width - len(rows[row]) :]).abs().max() < TOLERANCE


def test_every_switch_of_a_family_matters(pair):
    """Without what sets the family apart the logits are others, so the test above would see its loss."""
    name, theirs, ours, _ = pair
    row = rows_for(theirs)[0]
    before = packed(ours, [row])[0]
    if ours.config.rope_scale:
        kept = ours.decoder.frequencies, ours.decoder.rope_factor
        ours.decoder.frequencies = inverse_frequencies(ours.config.head_dim, ours.config.rope_theta)
        assert (packed(ours, [row])[0] - before).abs().max() > 0.01
        ours.decoder.frequencies = kept[0]
        if name == "qwen2-yarn":
            ours.decoder.rope_factor = 1.0
            assert (packed(ours, [row])[0] - before).abs().max() > 0.01
            ours.decoder.rope_factor = kept[1]
    if ours.config.no_rope_layers:
        ours.decoder.layers[1].rotary = True
        assert (packed(ours, [row])[0] - before).abs().max() > 0.01
        ours.decoder.layers[1].rotary = False
    vectors = [p for n, p in ours.decoder.named_parameters() if n.endswith("bias") or "q_norm" in n]
    for vector in vectors:
        saved = vector.data.clone()
        vector.data = torch.ones_like(saved) if saved.mean() > 0.5 else torch.zeros_like(saved)
        assert (packed(ours, [row])[0] - before).abs().max() > TOLERANCE
        vector.data = saved
    counts = {"llama-biased": 3 * 7, "qwen2": 3 * 3, "qwen2-yarn": 3 * 3, "qwen3": 3}
    assert len(vectors) == counts.get(name, 0)


def test_export_gives_the_checkpoint_back(pair, tmp_path):
    """Resized vocabulary included: equal to ours on all, and on the old tokens to where it came from."""
    name, theirs, ours, root = pair
    export_llm(str(root / "ours"), tmp_path / "back")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "back").eval()
    assert again.config.vocab_size == ours.config.vocab_size
    wanted = {"mistral": "LlamaForCausalLM"}.get(name, type(theirs).__name__)
    assert type(again).__name__ == wanted
    old = theirs.config.vocab_size
    for row in rows_for(theirs, 1):
        with torch.no_grad():
            said, expected = again(row[None]).logits[0], theirs(row[None]).logits[0]
        assert (said - packed(ours, [row])[0]).abs().max() < TOLERANCE
        assert (said[:, :old] - expected).abs().max() < TOLERANCE
    state = dict(again.state_dict())
    for key, value in theirs.state_dict().items():
        assert torch.equal(state[key][: len(value)], value), key
    tokenizer, loaded = (
        unimodal.load(root / "ours").tokenizer,
        AutoTokenizer.from_pretrained(tmp_path / "back"),
    )
    for text in ("a red circle", "user\n größer 🙂", " two"):
        assert loaded.encode(text, add_special_tokens=False) == tokenizer.encode(text)
        assert loaded.decode(tokenizer.encode(text)) == text
    habit = [] if tokenizer.bos is None else [tokenizer.bos]
    assert loaded.encode("two") == [*habit, *tokenizer.encode("two")]
    assert again.generation_config.bos_token_id == (habit or [tokenizer.endoftext])[0]
    own = AutoTokenizer.from_pretrained(root / "llm")
    assert loaded.chat_template == own.chat_template
    assert own.eos_token_id == loaded.eos_token_id
    assert again.generation_config.eos_token_id in (tokenizer.im_end, [own.eos_token_id, tokenizer.im_end])
    assert again.config.max_position_embeddings == theirs.config.max_position_embeddings
    assert loaded.pad_token_id == again.config.pad_token_id == tokenizer.pad


def test_a_model_trained_from_nothing_exports_too(tmp_path):
    from tests.models import tiny
    from unimodal.model.folder import save_model

    model = tiny(experts="mot", tie_word_embeddings=False)
    save_model(tmp_path / "tiny", model.model, model.tokenizer)
    export_llm(str(tmp_path / "tiny"), tmp_path / "llm")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "llm").eval()
    assert type(again).__name__ == "Qwen3ForCausalLM"
    row = torch.arange(20)
    with torch.no_grad():
        assert (again(row[None]).logits[0] - packed(model.model, [row])[0]).abs().max() < TOLERANCE


def test_a_longest_document_is_kept_to_and_the_checkpoints_own_goes_back(tmp_path):
    """It is the user's word on documents; what the weights were made for stays what it was."""
    theirs = make("qwen2", tmp_path / "llm")
    PixelPatches(4).save(tmp_path / "codec")
    init_model(tmp_path / "llm", tmp_path / "codec", tmp_path / "ours", max_length=10)
    ours = unimodal.load(tmp_path / "ours").model
    packed(ours, [torch.arange(10), torch.arange(7)])
    with pytest.raises(unimodal.UserError, match=r"takes 11 rotary positions, .* takes 10 at most"):
        packed(ours, [torch.arange(11)])
    export_llm(str(tmp_path / "ours"), tmp_path / "back")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "back").config
    assert again.max_position_embeddings == theirs.config.max_position_embeddings == 64


def test_the_window_is_kept_to(pair):
    """Up to the window a model is itself; a longer document is refused rather than misread."""
    name, _, ours, _ = pair
    if name == "mistral-window":
        packed(ours, [torch.arange(24)])
        with pytest.raises(unimodal.UserError, match=r"takes 24 at most .*sliding window"):
            packed(ours, [torch.arange(25)])
    else:
        packed(ours, [torch.arange(25)])
