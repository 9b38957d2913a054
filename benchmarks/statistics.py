"""Statistics of latency samples. Everything is computed from raw samples; nothing here is stored."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

FEWEST = 5  # samples below which a series says nothing
SPREAD = 0.10  # interquartile range over median above which a series is unstable
DRIFT = 0.07  # difference of the two halves' medians above which it is unstable
STABILITY_RULE = (
    f"A series is called unstable when it has fewer than {FEWEST} samples, when its interquartile range is "
    f"more than {SPREAD:.0%} of its median, or when the medians of its first and second half differ by more "
    f"than {DRIFT:.0%}."
)
RELEVANT = 0.05  # a smaller difference of medians is not called a speed-up
RATIO_RULE = (
    "A speed-up is the ratio of two medians measured in turns in the same session, with a 95 % interval from "
    f"2,000 bootstrap resamples of whole rounds. It counts when the interval excludes 1 and the ratio is at "
    f"least {1 + RELEVANT:.2f}."
)


@dataclass(frozen=True)
class Summary:
    """One series of samples, in the samples' unit (milliseconds).

    Percentiles interpolate linearly between order statistics (Hyndman and Fan's type 7).

    Attributes:
        count: samples.
        low, high: distribution-free interval of at least 95 % for the median (binomial ranks).
        iqr: p75 - p25.
        cv: standard deviation (n - 1) over mean.
        unstable: why the series says little, or None.
    """

    count: int
    minimum: float
    p25: float
    median: float
    p75: float
    p90: float
    p99: float
    maximum: float
    low: float
    high: float
    iqr: float
    cv: float
    unstable: str | None

    def as_json(self) -> dict[str, float | int | str | None]:
        """The figures as one JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class Ratio:
    """A ratio of medians with its 95 % interval; above 1 the candidate is faster.

    Attributes:
        paired: the samples were taken in the same rounds, and rounds were resampled whole.
    """

    value: float
    low: float
    high: float
    paired: bool

    @property
    def said(self) -> str:
        """In words: "2.00x [1.90, 2.10]"."""
        return f"{self.value:.2f}x [{self.low:.2f}, {self.high:.2f}]"

    @property
    def verdict(self) -> str:
        """ "faster", "slower" or "same", by `RATIO_RULE`."""
        if self.low > 1 and self.value >= 1 + RELEVANT:
            return "faster"
        return "slower" if self.high < 1 and self.value <= 1 / (1 + RELEVANT) else "same"

    def as_json(self) -> dict[str, float | bool | str]:
        """The figures and the verdict as one JSON object."""
        return {**asdict(self), "verdict": self.verdict}


def summarise(samples: Sequence[float]) -> Summary:
    """Median, spread and stability of one series, in the order it was measured.

    Raises:
        ValueError: there are no samples, or one is negative or not finite.
    """
    values = _checked(samples)
    minimum, p25, middle, p75, p90, p99, maximum = (
        float(v) for v in np.percentile(values, [0, 25, 50, 75, 90, 99, 100])
    )
    low, high = median_interval(samples)
    mean = float(values.mean())
    deviation = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return Summary(
        count=len(values),
        minimum=minimum,
        p25=p25,
        median=middle,
        p75=p75,
        p90=p90,
        p99=p99,
        maximum=maximum,
        low=low,
        high=high,
        iqr=p75 - p25,
        cv=deviation / mean if mean else 0.0,
        unstable=_instability(values, middle, p75 - p25),
    )


def instability(samples: Sequence[float]) -> str | None:
    """Why a series says little by `STABILITY_RULE`, or None; `summarise` tells it too.

    Raises:
        ValueError: as `summarise`.
    """
    values = _checked(samples)
    p25, middle, p75 = (float(v) for v in np.percentile(values, [25, 50, 75]))
    return _instability(values, middle, p75 - p25)


def drift(samples: Sequence[float]) -> float:
    """How much slower the second half of a series is than the first: difference of medians over the median.

    Raises:
        ValueError: as `summarise`.
    """
    values = _checked(samples)
    return _drift(values, float(np.median(values)))


def median_interval(samples: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """A distribution-free interval for the median: order statistics (k, n + 1 - k).

    k is the largest rank with 2 P(Binomial(n, 1/2) < k) <= 1 - confidence; with too few samples for
    that, the extremes are returned. (Conover, Practical Nonparametric Statistics, section 3.2.)
    """
    values = np.sort(_checked(samples))
    count, rank, below = len(values), 0, 0.0
    while rank < count // 2:
        below += math.comb(count, rank) / 2.0**count
        if 2 * below > 1 - confidence:
            break
        rank += 1
    rank = max(rank, 1)
    return float(values[rank - 1]), float(values[count - rank])


def speed_up(
    baseline: Sequence[float],
    candidate: Sequence[float],
    *,
    paired: bool = True,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Ratio:
    """median(baseline) / median(candidate) with a percentile bootstrap interval.

    Args:
        baseline, candidate: samples; where `paired`, entry i of both comes from round i.
        paired: resample whole rounds, which keeps what disturbed both alike out of the interval.
            Taken as False when the lengths differ.

    Raises:
        ValueError: a series is empty, or holds negative or infinite values.
    """
    first, second = _checked(baseline), _checked(candidate)
    paired = paired and len(first) == len(second)
    chance = np.random.default_rng(seed)
    rows = chance.integers(0, len(first), (resamples, len(first)))
    columns = rows if paired else chance.integers(0, len(second), (resamples, len(second)))
    ratios = _medians(first[rows]) / _medians(second[columns])
    tail = 50 * (1 - confidence)
    low, high = np.percentile(ratios, [tail, 100 - tail])
    return Ratio(float(np.median(first) / np.median(second)), float(low), float(high), paired)


def _medians(rows: np.ndarray) -> np.ndarray:
    """np.median of each row; to sort short rows takes less than half as long as its partitions."""
    ordered, middle = np.sort(rows, axis=1), rows.shape[1] // 2
    return ordered[:, middle] if rows.shape[1] % 2 else (ordered[:, middle - 1] + ordered[:, middle]) / 2


def _instability(values: np.ndarray, middle: float, iqr: float) -> str | None:
    if len(values) < FEWEST:
        return f"only {len(values)} samples"
    if iqr > SPREAD * middle:
        return f"interquartile range is {iqr / middle:.0%} of the median"
    change = _drift(values, middle)
    if abs(change) > DRIFT:
        return f"{'slowed' if change > 0 else 'sped'} {'down' if change > 0 else 'up'} by {abs(change):.0%}"
    return None


def _drift(values: np.ndarray, middle: float) -> float:
    half = len(values) // 2
    return float(np.median(values[half:]) - np.median(values[:half])) / middle if half else 0.0


def _checked(samples: Sequence[float]) -> np.ndarray:
    values = np.asarray(samples, np.float64)
    if values.size == 0 or not np.all(np.isfinite(values)) or np.any(values <= 0):
        raise ValueError("latency samples must be a non-empty list of positive numbers")
    return values
