"""Intervals against tabled values and against simulation."""

import numpy as np
import pytest

from unimodal.evaluation.scores import Score, average, mean_of, share, share_of_groups


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    # Newcombe 1998, Statistics in Medicine 17, table I, score method without continuity correction.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_against_newcombe(right, n, low, high):
    score = share([True] * right + [False] * (n - right))
    assert score.value == right / n
    assert (score.low, score.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))
    assert score.n == n


def test_all_right_is_not_certain():
    score = share([True] * 64)
    assert score.value == score.high == 1
    assert 0.93 < score.low < 0.95


def test_a_share_of_two_groups_by_hand():
    """Both drawn alike: 1/4 the first twice (3 of 3), 1/4 the second twice (0 of 1), else 3 of 4."""
    score = share_of_groups([True, False, True, True], "abaa")
    assert (score.value, score.low, score.high, score.n) == (0.75, 0, 1, 4)


def test_judgements_that_agree_within_groups_count_once():
    """40 groups of 4, each right or wrong as a whole: as sure as 40 judgements, not as 160."""
    right = [group % 2 == 0 for group in range(40) for _ in range(4)]
    score = share_of_groups(right, [group for group in range(40) for _ in range(4)])
    half = 1.96 * np.sqrt(0.25 / 40)
    assert (score.low, score.high) == (
        pytest.approx(0.5 - half, abs=0.01),
        pytest.approx(0.5 + half, abs=0.01),
    )
    alone = share_of_groups(right, range(160))
    assert alone.high - alone.low == pytest.approx(half, abs=0.01)


def test_groups_that_are_all_right_are_not_certain():
    score = share_of_groups([True] * 60, [number // 6 for number in range(60)])
    assert (score.value, score.n) == (1, 60)
    assert score.low == share([True] * 10).low


def test_average_covers_the_truth_about_as_often_as_it_says():
    numbers = np.random.default_rng(0)
    covered = [s.low <= 5 <= s.high for s in (average(numbers.normal(5, 3, 60)) for _ in range(1000))]
    assert 0.92 < np.mean(covered) < 0.97


def test_mean_of_kinds_covers_the_truth():
    numbers = np.random.default_rng(1)
    truth = np.array([0.5, 0.9, 0.97])
    covered = []
    for _ in range(1000):
        score = mean_of([share(numbers.random(64) < p) for p in truth])
        covered.append(score.low <= truth.mean() <= score.high)
    assert 0.92 < np.mean(covered) < 0.99


def test_mean_of_one_kind_is_that_kind():
    one = share([True] * 30 + [False] * 3)
    mean = mean_of([one])
    assert (mean.value, mean.n) == (one.value, one.n)
    assert (mean.low, mean.high) == (pytest.approx(one.low), pytest.approx(one.high))


def test_no_judgement_is_no_score():
    for function in (share, average, mean_of, lambda none: share_of_groups(none, none)):
        with pytest.raises(ValueError, match="no "):
            function([])


def test_what_is_counted_is_told_without_an_interval():
    assert Score(4388580, 4388580, 4388580, 1).told("cost/parameters") == ("4,388,580", "")
    assert Score(5.1834, 5.1834, 5.1834, 1).told("cost/gflop") == ("5.183", "")
    assert Score(40.22, 39.3, 41.07, 64).told("codec/psnr") == ("40.2", "39.3 to 41.1")
    assert Score(0.0, 0.0, 0.0073, 512).told("edit/copy_baseline") == ("0.000", "0.000 to 0.007")
