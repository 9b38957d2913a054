"""Ranges of activations for INT8, gathered from a stream of values: nothing is kept but figures.

One pass serves every method. Each tensor's range is known as its extremes, as the mean of each
picture's extremes, and as a histogram whose bins double in width whenever a value falls outside.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

Method = Literal["minmax", "average", "percentile", "mse", "widened"]
METHODS: tuple[Method, ...] = ("average", "percentile", "mse", "minmax", "widened")

_BINS = 8192
_SAMPLES = 1 << 18  # values of one tensor of one picture that enter the histogram
_PERCENTILE = 99.99  # of all values kept; half of the rest is cut from either end
_WIDER = 1.25  # times all that was seen: pictures to come go beyond
_SHRINK = np.linspace(1.0, 0.3, 36)  # shares of the range that the "mse" method tries


@dataclass
class TensorRange:
    """The range of one tensor over all pictures seen so far."""

    low: float = np.inf
    high: float = -np.inf
    pictures: int = 0
    low_sum: float = 0.0
    high_sum: float = 0.0
    reach: float = 0.0
    histogram: np.ndarray = field(default_factory=lambda: np.zeros(_BINS, np.int64))

    def update(self, values: np.ndarray) -> None:
        """Take in one picture's values of this tensor."""
        values = values.ravel()
        low, high = float(values.min()), float(values.max())
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.low_sum, self.high_sum = self.low_sum + low, self.high_sum + high
        self.pictures += 1
        self._widen(max(abs(low), abs(high)))
        step = -(-values.size // _SAMPLES)
        bins = (values[::step] * np.float32(_BINS / 2 / self.reach) + np.float32(_BINS / 2)).astype(np.int32)
        self.histogram += np.bincount(np.clip(bins, 0, _BINS - 1), minlength=_BINS)

    def _widen(self, largest: float) -> None:
        """Make the histogram reach `largest`, merging bins in pairs around zero."""
        if self.reach == 0.0:
            self.reach = 2.0 ** np.ceil(np.log2(max(largest, 1e-12)))
        while self.reach < largest:
            pairs = self.histogram.reshape(-1, 2).sum(1)
            self.histogram = np.zeros(_BINS, np.int64)
            self.histogram[_BINS // 4 : _BINS // 4 + _BINS // 2] = pairs
            self.reach *= 2

    def merged(self, other: TensorRange) -> TensorRange:
        """The range over the pictures of both."""
        found = TensorRange(
            min(self.low, other.low),
            max(self.high, other.high),
            self.pictures + other.pictures,
            self.low_sum + other.low_sum,
            self.high_sum + other.high_sum,
        )
        for part in (self, other):
            found._widen(part.reach)
        for part in (self, other):
            wide = TensorRange(reach=part.reach, histogram=part.histogram)
            wide._widen(found.reach)
            found.histogram = found.histogram + wide.histogram
        return found

    def bounds(self, method: Method) -> tuple[float, float]:
        """The (low, high) that 8 bits should span; zero is always inside.

        minmax: every value seen. widened: a quarter more than that. average: the mean over
        pictures of their extremes. percentile: all but 0.005 % at either end. mse: the range,
        shrunk evenly, of the least squared error of rounding and clipping together.
        """
        low, high = self.low, self.high
        if method == "average":
            low, high = self.low_sum / self.pictures, self.high_sum / self.pictures
        elif method == "percentile":
            cut = (100 - _PERCENTILE) / 200
            share = np.cumsum(self.histogram) / self.histogram.sum()
            edges = np.linspace(-self.reach, self.reach, _BINS + 1)
            low = max(low, edges[np.searchsorted(share, cut)])
            high = min(high, edges[np.searchsorted(share, 1 - cut) + 1])
        elif method == "mse":
            low, high = self._least_error()
        elif method == "widened":
            low, high = low * _WIDER, high * _WIDER
        return min(float(low), 0.0), max(float(high), 0.0)

    def _least_error(self) -> tuple[float, float]:
        width = 2 * self.reach / _BINS
        values = np.linspace(-self.reach + width / 2, self.reach - width / 2, _BINS)
        errors = []
        for share in _SHRINK:
            low, high = min(self.low * share, 0.0), max(self.high * share, 0.0)
            clipped = values - np.clip(values, low, high)
            rounding = ((high - low) / 255) ** 2 / 12
            errors.append(float(self.histogram @ (clipped**2)) + rounding * float(self.histogram.sum()))
        best = _SHRINK[int(np.argmin(errors))]
        return self.low * best, self.high * best
