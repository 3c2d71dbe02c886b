"""Packing: nothing is cut, lost or repeated; packs are full; the stream resumes."""

import json
from itertools import islice

import numpy as np
import pytest

from tests.documents import TARGETS, random_document, tokenizer
from unimodal.errors import UserError
from unimodal.sequence.layout import layout
from unimodal.sequence.pack import Packer, pack_sequences


def make(row):
    document = random_document(np.random.default_rng(row))
    sequence = layout(document, tokenizer(), TARGETS["hidden"], 4)
    sequence.id = str(row)
    return sequence


def test_packs_are_full_and_every_row_comes_once():
    packs = list(islice(Packer(make, 2048), 40))
    assert np.mean([pack.tokens / pack.budget for pack in packs]) > 0.95
    rows = [int(i) for pack in packs for i in pack.sample_ids]
    assert len(rows) == len(set(rows))
    waiting = packs[-1].state["waiting"]
    assert sorted(rows + waiting) == list(range(packs[-1].state["next_row"]))


def test_images_are_never_cut():
    for pack in islice(Packer(make, 600), 20):
        for span in pack.images:
            inside = pack.marks.document[0, span.start : span.start + span.length]
            assert len(inside) == span.length
            assert len(set(inside.tolist())) == 1


def test_ranks_share_the_rows():
    seen = [
        {int(i) for pack in islice(Packer(make, 600, first=rank, stride=2), 5) for i in pack.sample_ids}
        for rank in (0, 1)
    ]
    assert {row % 2 for row in seen[0]} == {0}
    assert {row % 2 for row in seen[1]} == {1}


@pytest.mark.parametrize("after", [1, 4])
def test_stream_resumes_from_a_json_state(after):
    straight = list(islice(Packer(make, 600), 8))
    state = json.loads(json.dumps(straight[after - 1].state))
    resumed = list(islice(Packer(make, 600, state=state), 8 - after))
    assert [p.sample_ids for p in resumed] == [p.sample_ids for p in straight[after:]]
    assert all((a.ids == b.ids).all() for a, b in zip(resumed, straight[after:]))


def test_too_long_is_refused_by_name():
    with pytest.raises(UserError, match=r"0: .*do not fit the budget of 5.*never cut"):
        Packer(make, 5).next_pack()


def test_spans_point_at_their_pictures():
    sequences = [make(row) for row in range(12)]
    pack = pack_sequences(sequences)
    start = 0
    for sequence in sequences:
        mine = [s for s in pack.images if start <= s.start < start + len(sequence)]
        for packed, alone in zip(mine, sequence.images, strict=True):
            assert packed.start - start == alone.start
            assert pack.pixels[packed.image] is sequence.pixels[alone.image]
        start += len(sequence)


def test_packs_are_fair_samples():
    """Short documents do not wait behind long ones: no row is passed over for long."""
    packs = list(islice(Packer(make, 600), 30))
    newest = -1
    for pack in packs:
        rows = [int(i) for i in pack.sample_ids]
        assert newest - min(rows) < 64
        newest = max(newest, *rows)
