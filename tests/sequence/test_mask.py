"""The mask rule against what it must mean, position by position."""

import numpy as np
import pytest
import torch

from tests.documents import TARGETS, random_document, tokenizer
from unimodal.sequence.layout import layout
from unimodal.sequence.mask import PADDING, may_look
from unimodal.sequence.pack import pack_sequences


def meaning(sequence, target_hidden: bool) -> np.ndarray:
    """What may be looked at, from the story of the sequence rather than from steps."""
    count = len(sequence)
    kind = ["text"] * count
    owner = [-1] * count
    for number, span in enumerate(sequence.images):
        for place in range(span.start, span.start + span.length):
            kind[place], owner[place] = span.kind, number
    for number, block in enumerate(sequence.blocks, start=len(sequence.images)):
        for place in range(block.start, block.start + block.length):
            kind[place], owner[place] = "target", number
    allowed = np.zeros((count, count), dtype=bool)
    for q in range(count):
        for k in range(count):
            same_image = owner[q] >= 0 and owner[q] == owner[k]
            if same_image:
                allowed[q, k] = True  # whole images, and whole blocks to be masked, are seen at once
            elif kind[k] == "target" and target_hidden:
                allowed[q, k] = False  # nobody else sees noise or masks
            else:
                allowed[q, k] = k <= q
    return allowed


@pytest.mark.parametrize("block", [None, 3], ids=["token by token", "masked"])
@pytest.mark.parametrize("seed", range(20))
def test_rule_means_what_it_says(seed, block):
    rng = np.random.default_rng(seed)
    sequence = layout(random_document(rng), tokenizer(), TARGETS["hidden"], 4, block=block)
    marks = pack_sequences([sequence]).marks
    assert np.array_equal(may_look(marks, marks)[0].numpy(), meaning(sequence, True))


def test_raster_image_is_causal():
    rng = np.random.default_rng(3)
    sequence = layout(random_document(rng), tokenizer(), TARGETS["raster"], 4)
    while not any(span.kind == "target" for span in sequence.images):
        sequence = layout(random_document(rng), tokenizer(), TARGETS["raster"], 4)
    marks = pack_sequences([sequence]).marks
    mask = may_look(marks, marks)[0]
    span = next(span for span in sequence.images if span.kind == "target")
    inside = mask[span.start : span.start + span.length, span.start : span.start + span.length]
    assert torch.equal(inside, torch.ones_like(inside).tril())


def test_documents_and_padding_do_not_meet():
    rng = np.random.default_rng(0)
    sequences = [layout(random_document(rng), tokenizer(), TARGETS["hidden"], 4) for _ in range(4)]
    pack = pack_sequences(sequences, sum(map(len, sequences)) + 7)
    mask = may_look(pack.marks, pack.marks)[0]
    document = pack.marks.document[0]
    assert not mask[document[:, None] != document[None]].any()
    assert not mask[document == PADDING].any()
    assert not mask[:, document == PADDING].any()
    start = 0
    for sequence in sequences:  # a packed document sees what it sees alone
        end = start + len(sequence)
        alone = pack_sequences([sequence]).marks
        assert torch.equal(mask[start:end, start:end], may_look(alone, alone)[0])
        start = end
