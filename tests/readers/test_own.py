"""The toolkit's decoder as a reader: its hidden states are those of the engine, and nothing of it moves."""

import numpy as np
import pytest
import torch

from tests.documents import picture, tokenizer
from tests.images.towers import make_tower
from tests.models import tiny_model
from unimodal.connectors.connector import Appended
from unimodal.data.document import Document, Image, Text, Turn
from unimodal.generation.context import read_documents, read_tokens, side_by_side
from unimodal.images.vision import load_tower
from unimodal.model.config import Vision
from unimodal.model.unified import UnifiedModel
from unimodal.readers.own import OwnReader
from unimodal.sequence.layout import layout


def reader(**changes):
    return OwnReader(tiny_model(**changes), tokenizer())


def prompts():
    rng = np.random.default_rng(0)
    shown = Image(picture(rng, 8, 16))
    return [
        Document((Turn("user", (Text("a red circle"),)),)),
        Document((Turn("user", (shown, Text("make it green"))),)),
        Document((Turn("system", (Text("two"),)), Turn("user", (Text("a blue square left of a circle"),)))),
        Document((Turn("user", (Text("yes"),)), Turn("assistant", (Text("a red"),)))),
        Document((Turn("user", ()),)),
    ]


@pytest.mark.parametrize("experts", ["shared", "mot"])
def test_the_last_hidden_state_is_the_engines(experts):
    read = reader(experts=experts)
    hidden, mask = read.read(prompts(), [0, 1, 2])
    context = read_documents(read.model, tokenizer(), prompts())
    assert hidden.shape[2:] == (3, 32)
    for row, length in enumerate(context.cache.length.tolist()):
        last = hidden[row, length - 1, 2]
        torch.testing.assert_close(last, context.hidden[row], atol=1e-5, rtol=1e-4)
        assert mask[row, length - 1] and not mask[row, length:].any()


def test_taps_are_embeddings_layers_and_the_normalised_end():
    read = reader()
    (one,) = prompts()[:1]
    hidden, _ = read.read([one], [0, 1, 2])
    ids = [tokenizer().im_start, *tokenizer().encode("user\n"), *tokenizer().encode("a red circle")]
    embeds = read.model.embed_tokens.weight[torch.tensor(ids)]
    torch.testing.assert_close(hidden[0, : len(ids), 0], embeds)
    seen = []
    for layer in read.model.decoder.layers:
        layer.register_forward_hook(lambda module, arguments, out: seen.append(out[0]))
    read.read([one], [2])
    torch.testing.assert_close(hidden[0, :, 1], seen[0])
    torch.testing.assert_close(hidden[0, :, 2], read.model.decoder.norm(seen[1]))


def test_a_batch_equals_its_singles():
    read = reader()
    hidden, mask = read.read(prompts(), [0, 1, 2])
    for row, prompt in enumerate(prompts()):
        alone, real = read.read([prompt], [0, 1, 2])
        torch.testing.assert_close(hidden[row][mask[row]], alone[0][real[0]], atol=1e-5, rtol=1e-4)


def test_what_the_template_says_first_is_left_out():
    _, mask = reader().read(prompts(), [0])
    for row, prompt in enumerate(prompts()):
        before = 1 + len(tokenizer().encode(f"{prompt.turns[0].role}\n"))
        assert not mask[row, :before].any()
        assert mask[row, before]
    habitual = tokenizer()  # as those of Llama 3 and Mistral, which begin every sequence with one token
    habitual.bos = habitual.endoftext
    _, shifted = OwnReader(tiny_model(), habitual).read(prompts(), [0])
    assert torch.equal(shifted[:, 1:], mask) and not shifted[:, 0].any()


def tokens_behind(read, ids, causal):
    """Appended positions that hold the embeddings of these tokens."""
    embeds = read.model.embed_tokens.weight[ids]
    return Appended(len(ids), causal, lambda prompt, mask: embeds[None].expand(len(prompt), -1, -1))


def test_causal_positions_behind_the_prompt_are_what_written_tokens_would_be():
    read, asked = reader(), prompts()[:3]
    ids = torch.tensor(tokenizer().encode("two circle"))
    hidden, mask = read.read(asked, [2], tokens_behind(read, ids, causal=True))
    assert mask.all() and hidden.shape[1] == len(ids)
    context = read_documents(read.model, tokenizer(), asked)
    for place, token in enumerate(ids):
        read_tokens(read.model, context, token.expand(3), torch.ones(3, dtype=torch.bool))
        torch.testing.assert_close(hidden[:, place, 0], context.hidden, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("causal", [True, False])
def test_who_sees_whom_behind_the_prompt(causal):
    read, asked = reader(), prompts()[:2]
    ids = torch.tensor(tokenizer().encode("two circle"))
    other = ids.clone()
    other[-1] = ids[0]
    first, second = (read.read(asked, [2], tokens_behind(read, i, causal))[0][:, 0] for i in (ids, other))
    assert torch.allclose(first, second) == causal


def test_gradients_reach_what_is_appended_and_no_weight():
    read = reader()
    queries = torch.randn(3, 32, requires_grad=True)
    appended = Appended(3, False, lambda prompt, mask: queries[None].expand(len(prompt), -1, -1))
    hidden, _ = read.read(prompts(), [1, 2], appended)
    hidden.sum().backward()
    assert queries.grad.abs().sum(-1).gt(0).all()
    assert all(weight.grad is None for weight in read.parameters())
    plain, _ = read.read(prompts(), [2])
    assert not plain.requires_grad


def test_it_sees_each_picture_by_itself():
    read, rng = reader(), np.random.default_rng(1)
    pictures = [picture(rng, *size) for size in ((8, 8), (8, 16), (8, 8))]
    seen = read.see(pictures)
    assert [grid for _, grid in seen] == [(2, 2), (2, 4), (2, 2)]
    for one, (embeddings, grid) in zip(pictures, seen):
        assert embeddings.shape == (grid[0] * grid[1], 32)
        torch.testing.assert_close(embeddings, read.see([one])[0][0], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(seen[0][0], seen[2][0])
    shown = Document((Turn("user", (Image(pictures[1]), Text("two"))),))
    sequence = layout(shown, tokenizer(), read.model.path, read.multiple, open_turn=True)
    ids, _, _, *read_by = side_by_side(read.model, [sequence])
    embeds, is_image = read.model.embedded(ids, *read_by)
    torch.testing.assert_close(embeds[is_image], seen[1][0])  # as the decoder is given it


def test_with_a_vision_tower_it_sees_the_towers_features(tmp_path):
    """Against transformers' own model on pictures of the size that it sees."""
    network = make_tower("siglip", tmp_path).eval()
    tower, plain = load_tower(tmp_path), tiny_model()
    config = plain.config.model_copy(update={"vision": Vision(hidden_size=tower.width, grid=tower.grid)})
    read = OwnReader(UnifiedModel(config, plain.codec, tower), tokenizer())
    shown = picture(np.random.default_rng(1), tower.side, tower.side)
    ((seen, grid),) = read.see([shown])
    normalised = (torch.tensor(shown).permute(2, 0, 1) / 255 - tower.mean) / tower.std
    torch.testing.assert_close(seen, network(normalised[None]).last_hidden_state[0], atol=1e-5, rtol=1e-4)
    assert grid == tower.grid and read.seen == seen.shape[-1]
