"""The room of a document, told without laying it out, against laying it out in every way."""

import numpy as np
import pytest
import tokenizers

from tests.documents import TARGETS, picture, random_document, tokenizer
from unimodal.data.document import Document, Image, Text, Turn, drop
from unimodal.data.pictures import fit, unseen
from unimodal.sequence.layout import layout
from unimodal.sequence.room import Room
from unimodal.sequence.tokenizer import Tokenizer


@pytest.mark.parametrize("vision", [None, (2, 3)])
@pytest.mark.parametrize("block", [None, 1, 5])
@pytest.mark.parametrize("target", TARGETS)
def test_no_sequence_is_longer_than_told(target, block, vision):
    room = Room(tokenizer(), TARGETS[target], 4, block, vision)
    for seed in range(60):
        document = random_document(np.random.default_rng(seed))
        plain = document.turns[0].role is None
        sequences = [
            layout(drop(document, kind) if kind else document, tokenizer(), TARGETS[target], 4, **rules)
            for kind in ((None,) if plain else (None, "text", "image", "both"))
            for first in (range(1, block + 1) if block and plain else (None,))
            for rules in [{"block": block, "first": first, "vision": vision}]
        ]
        lengths, reaches = [len(s) for s in sequences], [s.position.max() + 1 for s in sequences]
        exact = room.exactly(document)
        assert exact == max(lengths)
        assert exact <= room.at_most(document)
        assert room.beyond(document, exact) is None
        assert room.beyond(document, exact - 1) == exact
        reach = room.reach(document)
        assert reach == max(reaches) <= exact
        assert room.farther(document, reach) is None
        assert room.farther(document, reach - 1) == reach


def test_a_normal_form_that_makes_texts_longer_is_reckoned_with():
    backend = tokenizers.Tokenizer.from_str(tokenizer().backend.to_str())
    backend.normalizer = tokenizers.normalizers.NFC()
    normal = Tokenizer(backend)
    text = "\U0001d160" * 50  # four bytes each, whose NFC has twelve
    assert 4 * len(text) + 1 < len(normal.encode(text)) <= normal.at_most(text)
    assert normal.at_most("plain words") == tokenizer().at_most("plain words")


def test_pictures_are_fitted_without_their_pixels():
    rng = np.random.default_rng(0)
    for _ in range(50):
        shapes = rng.integers(1, 90, (rng.integers(1, 4), 2))
        size = None if rng.random() < 0.3 else int(rng.integers(4, 60))

        def document(make, shapes=shapes):
            return Document((Turn("user", (Text("a"), *(Image(make(*map(int, s))) for s in shapes))),))

        seen = fit(document(lambda h, w: picture(rng, h, w)), 4, 5000, size)
        blank = fit(document(unseen), 4, 5000, size, decoded=False)
        assert [i.pixels.shape for i in seen.images] == [i.pixels.shape for i in blank.images]
