"""Masked text: what training hides, what it costs, and who sees it."""

import numpy as np
import pytest
import torch

from tests.documents import picture, random_document, tokenizer
from tests.models import tiny_config, tiny_model
from unimodal.attention.door import make_plan
from unimodal.data.document import Document, Image, Text, Turn
from unimodal.model import unified
from unimodal.model.masked_text import HIDDEN, Hidden, hide
from unimodal.model.unified import UnifiedModel
from unimodal.sequence.layout import layout
from unimodal.sequence.pack import pack_sequences
from unimodal.sequence.spans import TextBlock

MASKED = {"text_objective": "masked", "masked_text": {"block": 4, "forwards": 4}}


def lay(model, document):
    return layout(document, tokenizer(), model.path, model.multiple, block=model.block)


def told(words="two red circle left of green"):
    return Document((Turn("user", (Text("how many"),)), Turn("assistant", (Text(words, True),))))


def test_a_uniform_share_of_each_block_is_hidden_and_weighs_as_much():
    blocks = [TextBlock(100 * n, 1 + n % 5) for n in range(4000)]
    hidden = hide(blocks, torch.Generator().manual_seed(0))
    block, place = hidden.at // 100, hidden.at % 100
    lengths = torch.tensor([one.length for one in blocks])
    assert (place < lengths[block]).all()
    assert len(hidden.at.unique()) == len(hidden.at)
    weights = torch.zeros(len(blocks)).index_add(0, block, hidden.weight)
    torch.testing.assert_close(weights, lengths.float())  # every block weighs its length
    counts = torch.bincount(block, minlength=len(blocks))
    for length in range(1, 6):
        of_length = counts[lengths == length]
        share = torch.bincount(of_length, minlength=length + 1)[1:] / len(of_length)
        torch.testing.assert_close(share, torch.full((length,), 1 / length), atol=0.06, rtol=0)
    # All places alike.
    often = torch.bincount(place[lengths[block] == 5], minlength=5).float()
    assert (often / often.mean() - 1).abs().max() < 0.1


def test_no_text_is_nothing_to_hide():
    hidden = hide([], torch.Generator())
    assert len(hidden.at) == len(hidden.weight) == 0


@torch.no_grad()
def test_the_loss_is_that_of_the_definition():
    """Cross-entropy of each hidden token given what is left of its block, by a forward written out."""
    model = tiny_model(**MASKED)
    sequence = lay(model, told())
    pack = pack_sequences([sequence])
    losses = model(pack, torch.Generator().manual_seed(3))
    chosen = hide(pack.blocks, torch.Generator().manual_seed(3))
    ids = pack.ids[0].clone()
    ids[chosen.at] = HIDDEN
    embeds = model.embed_tokens.weight[ids.clamp_min(0)]
    embeds[chosen.at] = model.text_mask
    text = torch.zeros(1, len(sequence), dtype=torch.bool)
    hidden = model.decoder(embeds[None], pack.position, make_plan(pack.marks), text)[0]
    logp = model.logits(hidden).log_softmax(-1)
    wanted = sum(-w * logp[at, sequence.ids[at]] for at, w in zip(chosen.at.tolist(), chosen.weight))
    torch.testing.assert_close(losses.text, wanted)


def test_an_untrained_model_pays_the_same_for_every_token():
    """The mean over blocks of any share is the mean over tokens: ln V each."""
    model = UnifiedModel(tiny_config(**MASKED, tie_word_embeddings=False), tiny_model().codec)
    torch.nn.init.zeros_(model.lm_head.weight)
    pack = pack_sequences([lay(model, told())])
    trained = int((pack.labels >= 0).sum())
    for seed in range(3):
        losses = model(pack, torch.Generator().manual_seed(seed))
        assert losses.text.item() == pytest.approx(trained * np.log(len(tokenizer())), rel=1e-5)


@torch.no_grad()
def test_nothing_sees_what_is_hidden_but_its_own_block(monkeypatch):
    """Masks in one block change what that block says, and nothing else: neither text nor picture."""
    model = tiny_model(**MASKED)
    shown = Image(picture(np.random.default_rng(0)), True)
    said = Turn("assistant", (Text("two red", True), shown, Text("two", True)))
    document = Document((Turn("user", (Text("how many"),)), said))
    pack = pack_sequences([lay(model, document)])
    first, last = pack.blocks[0], pack.blocks[-1]

    def losses(at, seen):
        """With `seen` hidden everywhere, the loss of the tokens `at`."""
        weight = torch.isin(torch.tensor(seen), torch.tensor(at)).float()
        monkeypatch.setattr(unified, "hide", lambda *_: Hidden(torch.tensor(seen), weight))
        found = model(pack, torch.Generator().manual_seed(0))
        return found.text, found.image

    its = [last.start]
    alone, picture_alone = losses(its, its)
    with_first, picture_then = losses(its, [*its, first.start, first.start + 1])
    with_own, _ = losses(its, [*its, last.start + 1])
    torch.testing.assert_close(alone, with_first)
    torch.testing.assert_close(picture_alone, picture_then)
    assert not torch.isclose(alone, with_own)


def test_gradients_reach_the_mask_and_every_weight():
    model = tiny_model(**MASKED)
    sequences = [lay(model, random_document(np.random.default_rng(seed))) for seed in range(6)]
    losses = model(pack_sequences(sequences), torch.Generator().manual_seed(0))
    (losses.text + losses.image).backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None and weight.grad.abs().sum() > 0, name


def test_settings_of_masked_text_need_it():
    with pytest.raises(ValueError, match="text_objective masked"):
        tiny_config(masked_text={"block": 3})
    assert tiny_model().block is None and tiny_model().text_mask is None
