"""Latency as a budget: what a choice of channels should take, from timings of single layers, and a check.

    latency(keep) = slope * (sum of layer timings at the kept widths + rest of the kept activations) + base

Each convolution's time comes from a table of timings at a grid of widths, bilinear in between. The rest
(norms, activations, sums) is what the whole network takes beyond its convolutions, spread over activation
elements. Slope and base are fitted to whole networks that were measured: the one pruned, and each landing.

How near a landing can come is a matter of noise. On a calm machine the 95 % interval of the ratio of two
medians is about 1 % wide; on a busy one it may be 10 % wide, and then "not over" holds for the measured
median, not for certain. The interval is recorded for that reason.

Where the figures come from is the affair of a `Meter`: this package times nothing. A landing that has
been measured and missed is corrected and measured again, at most `ATTEMPTS` times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from compressor.errors import UsageError
from compressor.generators import Generator
from compressor.graph import ChannelGraph

ATTEMPTS = 6
NEAR = 0.99  # of the target: near enough
_APART = 0.01  # of the full network's time: nearer than this, noise decides the slope between two networks
AIM = {"latency": 0.995}  # of the target: what is landed on, so that small errors do not pass the target


@dataclass(frozen=True)
class LayerTable:
    """Timings of one layer at a grid of widths.

    Attributes:
        inputs, outputs: the widths that were timed, rising.
        nanoseconds: (inputs, outputs); made to rise with either width, since noise alone lets it fall.
        elements: places in the layer's result, height times width.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    nanoseconds: np.ndarray
    elements: int

    def __call__(self, inputs: float, outputs: float) -> float:
        """Nanoseconds at these widths: bilinear; beyond the grid along the line of its last interval."""
        rows = np.maximum.accumulate(np.maximum.accumulate(self.nanoseconds, axis=0), axis=1)
        column = np.array([_along(self.outputs, row, outputs) for row in rows])
        return max(0.0, _along(self.inputs, column, inputs))


def _along(grid: Sequence[int], values: np.ndarray, at: float) -> float:
    if len(grid) == 1:
        return float(values[0])
    right = int(np.clip(np.searchsorted(grid, at), 1, len(grid) - 1))
    low, high = grid[right - 1], grid[right]
    return float(values[right - 1] + (values[right] - values[right - 1]) * (at - low) / (high - low))


@dataclass(frozen=True)
class Measured:
    """A network timed in turns with the original.

    Attributes:
        original, candidate: median nanoseconds of either.
        share: candidate over original, from the same rounds; low, high: its 95 % interval.
    """

    original: float
    candidate: float
    share: float
    low: float
    high: float


class Meter(Protocol):
    """Times networks on one device with one runtime, precision and number of threads."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Device, runtime, version, precision and threads, as JSON types."""

    def tables(self, generator: Generator, graph: ChannelGraph) -> Mapping[str, LayerTable]:
        """Timings of every layer with kernels, by name, at the usual input size."""

    def whole(self, generator: Generator) -> float:
        """Median nanoseconds of the exported network; measured once for each network."""

    def compare(self, original: Generator, candidate: Generator) -> Measured:
        """Both exported and timed in turns."""


class Predicting(Protocol):
    """Nanoseconds of a choice, and a line by which measurements correct it."""

    slope: float
    base: float

    def __call__(self, keep: np.ndarray) -> int:
        """Predicted nanoseconds."""

    def raw(self, keep: np.ndarray) -> float:
        """Before slope and base."""

    def fit(self, measured: Sequence[tuple[np.ndarray, float]], target: float) -> None:
        """Set slope and base by what was measured."""


@dataclass
class LatencyModel:
    """Nanoseconds as a function of the channels kept; `slope` and `base` change as measurements come in."""

    layers: Sequence[tuple[LayerTable, np.ndarray, np.ndarray]]  # with inputs, outputs (classes,) counts
    rest: np.ndarray  # (classes,) nanoseconds of each class in what is no convolution
    slope: float = 1.0
    base: float = 0.0
    anchor: tuple[float, float] = field(default=(0.0, 0.0))  # raw and measured, of the full network

    def __call__(self, keep: np.ndarray) -> int:
        """Predicted nanoseconds of keeping the classes where `keep` (classes,) bool is true."""
        return round(max(1.0, self.slope * self.raw(keep) + self.base))

    def raw(self, keep: np.ndarray) -> float:
        """The sum of the tables and the rest, before slope and base."""
        kept = keep.astype(float)
        layers = sum(
            table(float(inputs @ kept), float(outputs @ kept)) for table, inputs, outputs in self.layers
        )
        return float(layers + self.rest @ kept)

    def marginal(self) -> np.ndarray:
        """(classes,) what removing one class alone from the full network saves, in nanoseconds."""
        full = np.ones(len(self.rest))
        saved = self.rest.copy()
        for table, inputs, outputs in self.layers:
            all_in, all_out = float(inputs @ full), float(outputs @ full)
            whole = table(all_in, all_out)
            pairs, places = np.unique(np.stack([inputs, outputs]), axis=1, return_inverse=True)
            less = [whole - table(all_in - a, all_out - b) for a, b in pairs.T]
            saved += np.array(less)[places.reshape(-1)]
        return self.slope * saved

    def fit(self, measured: Sequence[tuple[np.ndarray, float]], target: float) -> None:
        """Make slope and base pass through the two measurements that say most about the target.

        Of the choices of channels measured (with their nanoseconds) and the full network, these are the one
        nearest to the target and the next that is not almost the same network (secant method). Where noise
        lets none of them rise, the ratio alone counts. No line may say that the full network, which is over
        the target, is not: it would then be landed on.
        """
        points = [*((self.raw(keep), nanoseconds) for keep, nanoseconds in measured), self.anchor]
        near, *others = sorted(points, key=lambda point: abs(point[1] - target))
        lines = [
            (rise / apart, near[1] - rise / apart * near[0])
            for apart, rise in ((other[0] - near[0], other[1] - near[1]) for other in others)
            if abs(apart) >= _APART * self.anchor[0] and rise / apart > 0
        ]
        lines.append((near[1] / near[0], 0.0))
        if near[0] < self.anchor[0] and near[1] < self.anchor[1]:
            slope = (self.anchor[1] - near[1]) / (self.anchor[0] - near[0])
            lines.append((slope, near[1] - slope * near[0]))
        over = [line for line in lines if line[0] * self.anchor[0] + line[1] > target]
        self.slope, self.base = (over if self.anchor[1] > target and over else lines)[0]


def latency_model(graph: ChannelGraph, tables: Mapping[str, LayerTable], whole: float) -> LatencyModel:
    """The model of a network whose full latency is `whole` nanoseconds; layers without a table are rest."""
    layers, elements = [], np.zeros(graph.classes)
    for layer in graph.convolutions():
        if layer.name not in tables:
            continue
        table = tables[layer.name]
        inputs, outputs = (
            np.bincount(ids, minlength=graph.classes).astype(float) for ids in (layer.inputs, layer.outputs)
        )
        layers.append((table, inputs, outputs))
        elements += table.elements * outputs
    model = LatencyModel(layers, np.zeros(graph.classes))
    everything = np.ones(graph.classes, bool)
    left = whole - model.raw(everything)
    if left > 0:
        model.rest = elements * left / max(1.0, elements.sum())
    raw = model.raw(everything)
    model.slope, model.anchor = whole / raw, (raw, whole)
    return model


@dataclass(frozen=True)
class Checked:
    """A landing that was measured.

    Attributes:
        keep: (classes,) bool.
        report: for prune.json: what was predicted and measured, with its interval, at every attempt.
    """

    keep: np.ndarray
    report: dict[str, Any]


def land_measured(
    land: Callable[[], np.ndarray],
    model: Predicting,
    measure: Callable[[np.ndarray], Measured],
    target: float,
    *,
    whole: float | None,
    bound: Callable[[np.ndarray], bool] = lambda _: False,
    near: float = NEAR,
) -> Checked:
    """Land, measure what was landed on, correct the model where that missed, and land again.

    A landing is good when the measured median is not over the target and its 95 % interval reaches `near`
    of it: no measurement can say more than its noise lets it. Of several that miss, the largest that is not
    over is taken; if all are over, the smallest, and `met` is false.

    Args:
        land: lands by the model as it is now.
        model: is corrected in place.
        measure: exports and times a choice of channels, in turns with the original.
        target: nanoseconds.
        whole: the original's nanoseconds that the target is a share of; a landing is then judged by its
            ratio to the original, which a machine that got slower or faster does not change. None: the
            target was given as a time, and the landing's own median is judged.
        bound: whether another budget keeps a choice from growing, so that being far under is right.
        near: the part of the target that is near enough.
    """
    attempts: list[dict[str, Any]] = []
    choices: list[np.ndarray] = []
    while len(attempts) < ATTEMPTS:
        try:
            keep = land()
        except UsageError:
            if not attempts:
                raise
            # A line through few measurements may rule out what can be reached: go by the ratio instead.
            model.slope, model.base = attempts[-1]["measured"] / model.raw(choices[-1]), 0.0
            try:
                keep = land()
            except UsageError:
                break  # the best of what was tried stands
        if any(np.array_equal(keep, earlier) for earlier in choices):
            break  # measuring the same again would only wait for luck
        predicted, found = model(keep), measure(keep)
        unit = found.candidate / found.share if whole is None else whole
        now, low, high = (round(share * unit) for share in (found.share, found.low, found.high))
        good = now <= target and (high >= near * target or bound(keep))
        attempts.append({"predicted": predicted, "measured": now, "low": low, "high": high, "good": good})
        choices.append(keep)
        if good:
            break
        times = (float(attempt["measured"]) for attempt in attempts)
        model.fit(list(zip(choices, times, strict=True)), target)
    under = [index for index, attempt in enumerate(attempts) if attempt["measured"] <= target]
    best = max(under, key=lambda i: attempts[i]["measured"]) if under else None
    if best is None:
        best = min(range(len(attempts)), key=lambda i: attempts[i]["measured"])
    taken = {name: value for name, value in attempts[best].items() if name != "good"}
    return Checked(choices[best], {**taken, "met": bool(under), "attempts": attempts})
