"""Paired tests and pooling against enumeration and against figures worked out by hand."""

from itertools import product

import numpy as np
import pytest

from unimodal.compare.significance import clustered, difference, holm, of_task, paired_p, pooled
from unimodal.evaluation.scores import Score, share, wilson


@pytest.mark.parametrize(("only_one", "only_other"), [(0, 0), (3, 0), (5, 1), (2, 6), (4, 4)])
def test_mcnemar_counts_all_ways_the_disagreements_could_fall(only_one, only_other):
    one = np.array([True] * only_one + [False] * only_other + [True, False, True])
    other = np.array([False] * only_one + [True] * only_other + [True, False, True])
    n = only_one + only_other
    as_far = [
        ways for ways in product((0, 1), repeat=n) if abs(2 * sum(ways) - n) >= abs(only_one - only_other)
    ]
    assert paired_p(one[None], other[None]) == pytest.approx(len(as_far) / 2**n)


@pytest.mark.parametrize("seeds", [(2, 2), (2, 3), (3, 1)])
def test_with_several_seeds_prompts_are_turned_round_whole(seeds):
    """Against all 2^n ways, of prompts whose seeds always agree and of those that do not."""
    rng = np.random.default_rng(sum(seeds))
    one, other = (rng.random((s, 7)) < chance for s, chance in zip(seeds, (0.8, 0.4)))
    gaps = one.mean(0) - other.mean(0)
    sums = [abs(np.dot(signs, gaps)) for signs in product((-1, 1), repeat=7)]
    as_far = [found for found in sums if found >= abs(gaps.sum()) - 1e-12]
    assert paired_p(one, other) == pytest.approx(len(as_far) / 2**7)
    once = paired_p(one[:1], other[:1])
    copied = paired_p(np.repeat(one[:1], 5, axis=0), np.repeat(other[:1], 5, axis=0))
    assert copied == pytest.approx(once), "the same answer five times is one answer"


def test_seeds_that_agree_are_no_further_prompts():
    """The intervals of a share and of a difference do not shrink with copies, and do with fresh chance."""
    rng = np.random.default_rng(1)
    one, other = rng.random((2, 1, 40)) < 0.5
    copies = [np.repeat(rights, 4, axis=0) for rights in (one, other)]
    assert difference(*copies) == difference(one, other)
    assert clustered(copies[0]) == Score(one.mean(), *wilson(one.mean(), 40), 160)
    fresh = rng.random((4, 4000)) < 0.5
    low, high = wilson(fresh.mean(), fresh.size)
    assert clustered(fresh).high - clustered(fresh).low == pytest.approx(high - low, rel=0.05)
    assert clustered(np.ones((3, 5), bool)) == Score(1.0, *wilson(1.0, 5), 15)


def test_difference_is_of_the_same_prompts():
    one, other = np.array([[1, 1, 0, 1]], bool), np.array([[1, 0, 0, 0]], bool)
    found = difference(one, other)
    assert (found.value, found.n) == (0.5, 4)
    assert found.low < 0.5 < found.high
    same = difference(one, one)
    assert same.value == same.low == same.high == 0


def test_holm_by_hand():
    assert holm({"a": 0.04, "b": 0.01, "c": 0.03}) == pytest.approx({"a": 0.06, "b": 0.03, "c": 0.06})
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert list(holm({"z": 0.5, "a": 0.1})) == ["z", "a"]


def test_pooled_takes_shares_over_all_seeds():
    def result(rights, psnr):
        return {
            "cases": {"t2i/single": rights, "t2i/two": [True, True], "codec/read": [True] * 5},
            "scores": {
                "t2i/single": None,
                "t2i/two": None,
                "t2i/mean": None,
                "codec/read": None,
                "codec/psnr": {"value": psnr, "low": psnr - 1, "high": psnr + 1, "n": 5},
            },
        }

    scores = pooled([result([True, False], 30.0), result([False, False], 34.0)])
    # Means of the prompts 0.5 and 0: worth p (1 - p) / (0.125 / 2) = 3 judgements of the 4.
    assert scores["t2i/single"] == Score(0.25, *wilson(0.25, 3.0), 4)
    assert wilson(0.25, 4) == (share([True, False, False, False]).low, share([True] + [False] * 3).high)
    assert scores["t2i/mean"].value == pytest.approx((0.25 + 1) / 2)
    assert scores["codec/psnr"] == Score(32, 31, 33, 5)  # of the same five pictures
    assert scores["codec/read"].value == 1 and "codec/mean" not in scores
    assert of_task(result([True, False], 1.0)["cases"], "t2i").tolist() == [True, False, True, True]
    assert len(of_task({}, "edit")) == 0
