"""Mixtures: exact shares, whole epochs, no state but the next number, and ranks that share out the rows."""

from collections import Counter

import pytest

from unimodal.data.mixture import Mixture, quotas
from unimodal.data.source import FileSource, live_source
from unimodal.errors import UserError


class Numbered:
    """A source whose row says its own number."""

    def __init__(self, name: str, length: int | None):
        self.name, self.length, self.asked = name, length, []

    def row(self, i):
        assert 0 <= i < (self.length or 10**18)
        self.asked.append(i)
        return f"{self.name}:{i}", {"text": f"{self.name} {i}"}


def mixture(seed=0, rank=0, world=1, lengths=(7, 1300, None), weights=(1, 2, 5)):
    sources = [Numbered(name, length) for name, length in zip("abc", lengths)]
    return Mixture(sources, weights, seed, rank, world)


def ids(mixed, numbers):
    return [mixed.document(i).id for i in numbers]


@pytest.mark.parametrize("weights", [(1, 2, 5), (1, 1, 1), (0.001, 3, 0.7), (1e-9, 1, 1), (1,), (0.1,) * 30])
def test_quotas_are_the_weights(weights):
    rows = quotas(weights)
    block = rows.sum()
    assert rows.min() >= 1
    for row, weight in zip(rows, weights):
        assert row == 1 or abs(row - block * weight / sum(weights)) <= 1.0
    assert block in (1000, 1001)


def test_shares_are_exact_in_every_block():
    mixed = mixture()
    for block in range(3):
        names = Counter(name[0] for name in ids(mixed, range(1000 * block, 1000 * block + 1000)))
        assert names == {"a": 125, "b": 250, "c": 625}


def test_every_epoch_is_a_fresh_permutation():
    mixed = mixture()
    ids(mixed, range(11_000))
    small, large, endless = (source.asked for source in mixed.sources)
    for asked, length in ((small, 7), (large, 1300)):
        epochs = [asked[i : i + length] for i in range(0, len(asked) - length, length)]
        assert len(epochs) >= 2
        assert all(sorted(epoch) == list(range(length)) for epoch in epochs)
        assert len({tuple(epoch) for epoch in epochs[:5]}) > 1
    assert endless == list(range(len(endless)))


def test_a_document_depends_on_its_number_alone():
    straight = ids(mixture(seed=3), range(5000))
    again = mixture(seed=3)
    assert ids(again, reversed(range(0, 5000, 37))) == straight[0:5000:37][::-1]
    assert ids(mixture(seed=3), range(4321, 4400)) == straight[4321:4400]
    assert ids(mixture(seed=4), range(100)) != straight[:100]


def test_far_numbers_cost_nothing():
    assert mixture().document(10**12).id == mixture().document(10**12).id


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_out_the_rows(world):
    straight = ids(mixture(), range(600))
    for rank in range(world):
        assert ids(mixture(rank=rank, world=world), range(600 // world)) == straight[rank::world]


def test_the_order_is_shuffled():
    names = "".join(name[0] for name in ids(mixture(), range(1000)))
    assert "c" * 200 not in names
    assert names != "".join(name[0] for name in ids(mixture(), range(1000, 2000)))


def test_bad_mixtures_are_told():
    source = Numbered("a", 3)
    with pytest.raises(UserError, match="1 sources and 2 weights"):
        Mixture([source], [1, 2], 0)
    with pytest.raises(UserError, match="positive"):
        Mixture([source, source], [1, 0], 0)
    with pytest.raises(UserError, match="rank"):
        Mixture([source], [1], 0, rank=2, world=2)


def test_live_sources_are_found_by_name(monkeypatch):
    import data_tools

    def build(split, seed, **options):
        source = Numbered(f"{split} {seed} {options}", None)
        return source

    monkeypatch.setattr(data_tools, "LIVE", {"numbers": build}, raising=False)
    source = live_source("numbers", split="val", seed=3, tasks=["t2i"])
    assert source.name == "val 3 {'tasks': ['t2i']}"
    with pytest.raises(UserError, match=r"no live source 'number' \(did you mean 'numbers'\?\)"):
        live_source("number")


def test_files_and_generators_mix(tmp_path):
    (tmp_path / "a.jsonl").write_text("".join(f'{{"text": "line {i}"}}\n' for i in range(10)))
    mixed = Mixture([FileSource(tmp_path / "a.jsonl"), Numbered("live", None)], [1, 1], seed=0)
    names = ids(mixed, range(1000))
    from_file = [name for name in names if "a.jsonl" in name]
    assert Counter(from_file) == {f"{tmp_path}/a.jsonl:{n}": 50 for n in range(1, 11)}
    assert sorted(set(names) - set(from_file)) == sorted(f"live:{i}" for i in range(500))


def test_a_mixture_that_begins_later_reads_on():
    sources = [Numbered(name, length) for name, length in zip("abc", (7, 1300, None))]
    later = Mixture(sources, (1, 2, 5), 0, first=4000)
    assert ids(later, range(50)) == ids(mixture(), range(4000, 4050))
