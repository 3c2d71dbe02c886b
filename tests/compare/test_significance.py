"""Paired tests and pooling against enumeration and against figures worked out by hand."""

from itertools import product

import numpy as np
import pytest

from unimodal.compare.significance import difference, holm, mcnemar, of_task, pooled
from unimodal.evaluation.scores import share


@pytest.mark.parametrize(("only_one", "only_other"), [(0, 0), (3, 0), (5, 1), (2, 6), (4, 4)])
def test_mcnemar_counts_all_ways_the_disagreements_could_fall(only_one, only_other):
    one = np.array([True] * only_one + [False] * only_other + [True, False, True])
    other = np.array([False] * only_one + [True] * only_other + [True, False, True])
    n = only_one + only_other
    as_far = [
        ways for ways in product((0, 1), repeat=n) if abs(2 * sum(ways) - n) >= abs(only_one - only_other)
    ]
    assert mcnemar(one, other) == pytest.approx(len(as_far) / 2**n)


def test_difference_is_of_the_same_prompts():
    one, other = np.array([1, 1, 0, 1], bool), np.array([1, 0, 0, 0], bool)
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
            "cases": {"t2i/single": rights, "t2i/two": [True, True]},
            "scores": {
                "t2i/single": None,
                "t2i/two": None,
                "t2i/mean": None,
                "codec/psnr": {"value": psnr, "low": psnr - 1, "high": psnr + 1, "n": 5},
            },
        }

    scores = pooled([result([True, False], 30.0), result([False, False], 34.0)])
    assert scores["t2i/single"] == share([True, False, False, False])
    assert scores["t2i/mean"].value == pytest.approx((0.25 + 1) / 2)
    assert scores["codec/psnr"].value == 32
    assert scores["codec/psnr"].high - 32 == pytest.approx(2**0.5 / 2)
    assert of_task(result([True, False], 1.0)["cases"], "t2i").tolist() == [True, False, True, True]
    assert len(of_task({}, "edit")) == 0
