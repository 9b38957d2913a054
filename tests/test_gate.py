"""The regression gate: its rank test against SciPy, its verdicts against known shifts in real noise."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from bench_files import samples

from benchmarks.ci.gate import ASSUMED_DRIFT, BLOCK, LEVEL, _student, judge, rank_test
from benchmarks.statistics import DRIFT, drift, instability, summarise

RECORDED = Path(__file__).resolve().parent.parent / "benchmarks" / "results" / "rounding.json"


@pytest.mark.parametrize(
    ("first", "second", "digits"), [(6, 6, None), (18, 18, None), (7, 9, 0), (40, 35, 1)]
)
def test_the_rank_test_is_scipys(first: int, second: int, digits: int | None) -> None:
    stats = pytest.importorskip("scipy.stats")
    chance = np.random.default_rng(first)
    lower, upper = chance.normal(0, 1, first), chance.normal(0.6, 1, second)
    if digits is None:
        method: object = "exact"
    else:  # with ties SciPy's exact p is wrong, so every division of the small sample is tried
        lower, upper = lower.round(digits), upper.round(digits)
        method = stats.PermutationMethod(n_resamples=np.inf) if first + second <= 16 else "asymptotic"
    expected = stats.mannwhitneyu(upper, lower, alternative="greater", method=method).pvalue
    assert rank_test(lower, upper) == pytest.approx(expected, rel=1e-6)


def test_the_rank_test_counts_every_division() -> None:
    low, high = [1.0, 2.0, 2.0], [2.0, 3.0]
    every = low + high
    ranks = {1.0: 1.0, 2.0: 3.0, 3.0: 5.0}
    sums = [sum(ranks[v] for v in chosen) for chosen in itertools.combinations(every, 2)]
    assert rank_test(low, high) == sum(s >= 8.0 for s in sums) / len(sums)
    assert rank_test([1.0] * 3, [1.0] * 3) == 1.0 and rank_test([1.0] * 40, [1.0] * 40) == 1.0


def test_students_t_is_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    for freedom in range(1, 60):
        assert _student(freedom) == pytest.approx(stats.t.ppf(0.99, freedom), abs=0.011)


def test_a_known_shift_is_measured_and_named() -> None:
    before = [samples(20, seed) for seed in range(3)]
    for factor, verdict in ((1.1, "slower"), (0.9, "faster"), (1.0, "same"), (1.02, "same")):
        found = judge(before, [[factor * value for value in own] for own in before])
        assert found.verdict == verdict and found.change == pytest.approx(factor - 1, abs=1e-12)
        assert found.low is not None and found.high is not None and found.low < factor - 1 < found.high
        assert found.baseline_ms == pytest.approx(20, rel=0.005) and found.sessions == (3, 3)


def test_the_standard_error_of_quiet_sessions_is_what_was_assumed() -> None:
    # No noise within or between: (4 * drift^2 + 0) / (4 + 4) is each side's variance, a third its mean's.
    found = judge([[20.0] * 30] * 3, [[20.0] * 30] * 3)
    error = math.sqrt(2 * 4 * ASSUMED_DRIFT**2 / 8 / 3)
    assert found.high == pytest.approx(math.expm1(2.896 * error)) and found.verdict == "same"


def test_one_session_a_side_cannot_say_that_nothing_changed() -> None:
    once = judge([samples(20, 0)], [samples(20, 1)])
    assert once.verdict == "unstable" and "sessions a side" in str(once.reason)
    assert judge([samples(20, 0)], [samples(20, 1)], threshold=0.15).verdict == "same"
    assert judge([samples(20, 0)], [samples(24, 1)]).verdict == "slower"  # clear all the same


def test_unstable_sessions_give_no_verdict() -> None:
    wild = [10.0, 30.0] * 15
    calm = [samples(20, seed) for seed in range(3)]
    found = judge(calm, [wild, wild, samples(40)])
    assert found.verdict == "unstable" and str(found.reason).startswith("new: interquartile range")
    assert judge(calm, [wild, samples(20, 4), samples(20, 5)]).sessions == (3, 2)
    assert judge(calm, [samples(20, count=4)]).reason == "new: only 4 samples"


def test_unstable_sessions_may_still_be_slower_and_nothing_else() -> None:

    def scattered(factor: float, ramp: float = 1.0) -> list[list[float]]:
        rounds = factor * np.linspace(1, ramp, 30) * np.tile([18.0, 24.0, 20.0, 19.0, 22.0], 6)
        return [list(rounds)] * 5

    calm, wild = [samples(20, seed) for seed in range(5)], scattered(1)
    assert "interquartile range is 15%" in str(instability(wild[0])) and drift(wild[0]) == 0
    for before, after in ((calm, scattered(1.4)), (wild, scattered(1.4)), (wild, [samples(40)] * 5)):
        found = judge(before, after)
        assert found.verdict == "slower" and "% slower, though " in str(found.reason)
        assert found.change is not None and found.change > 0.2 and found.sessions == (5, 5)
    for before, after in ((wild, wild), (wild, scattered(0.6)), (wild, calm)):
        assert judge(before, after).verdict == "unstable"
    ramps = scattered(1.2, ramp=1.3)  # they drift too: the phone grew hot, and who knows of what
    assert all(abs(drift(own)) > DRIFT for own in ramps)
    assert judge(calm, ramps).verdict == "unstable"


def test_few_outliers_decide_nothing() -> None:
    calm = [samples(20, seed) for seed in range(3)]
    disturbed = [[*own[:26], *(60.0,) * 4] for own in calm]
    assert judge(calm, disturbed).verdict == "same"


def test_disturbances_only_add_time_and_so_the_lower_quartile_is_the_steadier() -> None:
    """A tenth of the samples is 8 % longer, in sessions that differ by nothing else: 5 % is plain to see."""
    chance = np.random.default_rng(5)
    sides = [
        [[factor * (20.0 if chance.random() > 0.1 else 21.6) for _ in range(30)] for _ in range(5)]
        for factor in (1.0, 1.05)
    ]
    found = judge(*sides)
    assert found.verdict == "slower" and found.change == pytest.approx(0.05, abs=1e-9)


def test_a_slowdown_of_the_upper_half_alone_does_not_pass() -> None:
    half = [20.0, 20.0, 21.6, 21.6, 21.6] * 6  # stable by itself, its lower quartile as before
    found = judge([[20.0] * 30] * 5, [half] * 5)
    assert found.verdict == "unstable" and found.change == pytest.approx(0)
    assert str(found.reason) == "lower quartiles are 0.0% faster, but medians 8.0% slower: measure again"


@pytest.mark.parametrize(("before", "after"), [(30, 7), (9, 30), (60, 33)])
def test_sides_of_different_lengths_compare(before: int, after: int) -> None:
    """What differs in number of rounds is no slowdown, though the noise is one-sided."""
    chance = np.random.default_rng(before)
    sides = [[list(20 + chance.exponential(0.5, count)) for _ in range(5)] for count in (before, after)]
    found = judge(*sides)
    assert found.verdict != "slower" and found.change == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("sides", [([], [[1.0] * 9]), ([[1.0] * 9], []), ([[0.0] * 9], [[1.0] * 9])])
def test_impossible_sides_are_refused(sides: tuple[list[list[float]], list[list[float]]]) -> None:
    with pytest.raises(ValueError):
        judge(*sides)


# False alarms and detection, on sessions drawn from real ones


def recorded() -> dict[str, np.ndarray]:
    """Series that `benchmarks.rounding` recorded on a virtual machine, those that are stable."""
    networks = json.loads(RECORDED.read_text(encoding="utf-8"))["networks"]
    every = {
        f"{network} {file['runtime']} {file['precision']} {kind}": np.array(values)
        for network, measured in networks.items()
        for file in measured["files"]
        for kind, values in file["samples_ms"].items()
    }
    return {name: values for name, values in every.items() if summarise(values).unstable is None}


def session(series: np.ndarray, chance: np.random.Generator, drift: float) -> list[float]:
    """30 rounds: blocks of 5 as they were recorded, drawn with replacement; the whole moved by the drift."""
    starts = chance.integers(0, len(series), 6)
    blocks = [np.take(series, range(start, start + BLOCK), mode="wrap") for start in starts]
    return list(np.concatenate(blocks) * np.exp(chance.normal(0, drift)))


def verdicts(
    factor: float, drift: float, times: int, seed: int, sessions: int = 5, noise: float = 1.0
) -> dict[str, list[str]]:
    """For each recorded series, the verdicts on `times` pairs of sides of which the new one is slowed.

    `noise` stretches a series' distances from its median, on the logarithmic scale.
    """
    chance = np.random.default_rng(seed)
    return {
        name: [
            judge(
                [session(series, chance, drift) for _ in range(sessions)],
                [session(factor * series, chance, drift) for _ in range(sessions)],
            ).verdict
            for _ in range(times)
        ]
        for name, series in ((name, stretched(own, noise)) for name, own in recorded().items())
    }


def stretched(series: np.ndarray, noise: float) -> np.ndarray:
    return np.exp(np.median(np.log(series)) * (1 - noise) + np.log(series) * noise)


def share(found: dict[str, list[str]], *names: str) -> float:
    """Verdicts of these names among all."""
    every = [verdict for own in found.values() for verdict in own]
    return sum(verdict in names for verdict in every) / len(every)


def test_false_alarms_are_rarer_than_one_in_a_hundred() -> None:
    found = verdicts(1.0, ASSUMED_DRIFT, times=40, seed=1)
    assert len(found) == 13 and share(found, "slower") < 0.01 and share(found, "faster") < 0.01
    assert share(found, "same") > 0.8  # not by saying nothing


def test_a_slowdown_of_5_percent_is_found_and_never_passes() -> None:
    found = verdicts(1.05, ASSUMED_DRIFT, times=40, seed=2)
    assert share(found, "same", "faster") < 0.01  # what is neither found nor passes has no verdict
    assert len(found) == 13 and share(found, "slower") > 0.95
    # Also where `STABILITY_RULE` refuses more than half of a side's sessions about every second time:
    assert share({"borderline": found["resnet litert fp32 odd"]}, "slower") > 0.8


def test_sessions_that_scatter_raise_no_alarms() -> None:
    """Twice the noise that was recorded: nearly half of all pairs are too unstable, and nothing is slower."""
    found = verdicts(1.0, ASSUMED_DRIFT, times=25, seed=5, noise=2.0)
    assert share(found, "unstable") > 0.4 and share(found, "slower") < 0.01


def test_twice_the_assumed_drift_raises_few_alarms() -> None:
    assert share(verdicts(1.0, 2 * ASSUMED_DRIFT, times=25, seed=3), "slower") < 0.025


def test_a_rank_test_of_all_samples_alone_would_cry_wolf() -> None:
    """Why the gate does not rely on it: the same sessions, nothing slower, and many alarms."""
    chance, alarms = np.random.default_rng(4), 0
    every = list(recorded().values())
    for number in range(200):
        before, after = (
            np.concatenate([session(every[number % 13], chance, ASSUMED_DRIFT) for _ in range(5)])
            for _ in range(2)
        )
        alarms += rank_test(before, after) < LEVEL
    assert alarms / 200 > 5 * LEVEL
