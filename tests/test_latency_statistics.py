"""Statistics of latency samples against closed forms and scipy's distributions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.statistics import FEWEST, Ratio, median_interval, speed_up, summarise


def test_percentiles_of_one_to_hundred_and_one():
    summary = summarise(range(1, 102))
    assert (summary.median, summary.p25, summary.p75, summary.iqr) == (51, 26, 76, 50)
    assert (summary.p90, summary.p99) == pytest.approx((91, 100))
    assert (summary.minimum, summary.maximum, summary.count) == (1, 101, 101)


def test_coefficient_of_variation_uses_the_sample_deviation():
    # 2, 4, 4, 4, 5, 5, 7, 9: mean 5, sum of squares about it 32, so s = sqrt(32 / 7).
    assert summarise([2, 4, 4, 4, 5, 5, 7, 9]).cv == pytest.approx(math.sqrt(32 / 7) / 5)


@pytest.mark.parametrize(("count", "rank"), [(6, 1), (10, 2), (20, 6), (30, 10), (100, 40)])
def test_median_interval_has_the_textbook_ranks(count, rank):
    assert median_interval(list(range(count, 0, -1))) == (rank, count + 1 - rank)


def test_median_interval_ranks_agree_with_the_binomial_quantile():
    from scipy.stats import binom

    for count in range(6, 200):
        low, high = median_interval(list(range(1, count + 1)))
        outside = 2 * binom.cdf(low - 1, count, 0.5)
        assert outside <= 0.05 < 2 * binom.cdf(low, count, 0.5)
        assert low + high == count + 1


def test_median_interval_of_few_samples_is_their_range():
    assert median_interval([3, 1, 2]) == (1, 3)
    assert median_interval([7.0]) == (7, 7)


def test_median_interval_covers_the_median_as_often_as_it_says():
    chance = np.random.default_rng(1)
    inside = sum(
        low <= math.log(2) <= high
        for low, high in (median_interval(chance.exponential(size=30)) for _ in range(600))
    )
    assert inside / 600 > 0.93  # exact coverage of ranks 10 and 21 of 30 is 0.957


def test_speed_up_of_a_scaled_series_is_exact_when_paired():
    noise = np.random.default_rng(2).lognormal(sigma=0.5, size=31)
    ratio = speed_up(list(3 * noise), list(noise))
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((3, 3, 3))
    assert ratio.paired and ratio.verdict == "faster"


def test_pairing_keeps_a_common_disturbance_out_of_the_interval():
    chance = np.random.default_rng(3)
    common = np.where(np.arange(30) < 12, 1.0, 5.0) * chance.normal(1, 0.01, 30)
    slow, fast = 2 * common * chance.normal(1, 0.01, 30), common
    paired, apart = speed_up(slow, fast), speed_up(slow, fast, paired=False)
    assert paired.high - paired.low < 0.1 * (apart.high - apart.low)


def test_speed_up_interval_covers_the_truth():
    chance = np.random.default_rng(4)
    covered = 0
    for number in range(200):
        slow, fast = chance.normal(20, 1, 30), chance.normal(10, 0.5, 30)
        ratio = speed_up(slow, fast, seed=number, resamples=500)
        covered += ratio.low <= 2 <= ratio.high
    assert covered >= 182  # 95 % of 200 is 190


def test_unequal_lengths_are_not_paired():
    assert not speed_up([2.0] * 9, [1.0] * 7).paired


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [
        ((2.0, 1.9, 2.1), "faster"),
        ((1.2, 0.99, 1.4), "same"),
        ((1.03, 1.02, 1.04), "same"),
        ((0.5, 0.4, 0.6), "slower"),
        ((0.98, 0.97, 0.99), "same"),
    ],
)
def test_verdict_needs_significance_and_relevance(ratio, verdict):
    assert Ratio(*ratio, paired=True).verdict == verdict


def test_instability_names_its_reason():
    assert summarise([10.0] * 20).unstable is None
    assert summarise([10.0] * (FEWEST - 1)).unstable == "only 4 samples"
    assert summarise([8, 9, 10, 11, 12] * 4).unstable == "interquartile range is 20% of the median"
    assert summarise([9.6, 10, 10.4] * 4).unstable is None


@pytest.mark.parametrize(("late", "word"), [(10.8, "slowed down by 8%"), (9.2, "sped up by 8%")])
def test_drift_is_seen_though_the_spread_is_within_bounds(late, word):
    samples = [10.0] * 16 + [late] * 15 + [10.0]
    summary = summarise(samples)
    assert summary.iqr <= 0.1 * summary.median
    assert summary.unstable == word


@pytest.mark.parametrize("samples", [[], [1.0, float("nan")], [1.0, -2.0], [float("inf")]])
def test_impossible_samples_are_refused(samples):
    with pytest.raises(ValueError, match="positive"):
        summarise(samples)
