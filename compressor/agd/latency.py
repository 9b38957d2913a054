"""What the networks of a space take on a device: the sum of their operators, each timed alone, and a line.

    latency(choice) = slope * (sum of operator timings) + base

An operator alone is not what it is within a network: the runtime turns its input into a layout of its own and
back, starts and ends a call, and in INT8 rounds and widens where the network stays on integers; nor can it be
fused with its neighbours. So the sum is not what a network takes. Slope and base are fitted to random
networks of the space that were exported and measured whole, and the error of the prediction is recorded.

Where the figures come from is the affair of an `OperatorMeter`: this package times nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from compressor.agd.cost import CostTable, Place, tables_of
from compressor.agd.modules import PlainOperator
from compressor.agd.space import SearchSpace
from compressor.coronet.latency import LayerTable, Measured
from compressor.generators import Generator

MOST = 500  # timings of a table; in larger spaces widths are thinned to a grid, with bilinear times between


@dataclass(frozen=True)
class Alone:
    """An operator as it is timed.

    Attributes:
        place: where it stands, which decides what an INT8 file rounds.
        inputs, outputs: channels.
        bridged: see `PlainOperator`.
    """

    place: Place
    inputs: int
    outputs: int
    bridged: bool = False

    @property
    def signature(self) -> str:
        """All that its time depends on, but for device and precision."""
        place = self.place
        ends = f"{' first' if place.first else ''}{' last' if place.last else ''}"
        what = place.operator.signature(self.inputs, self.outputs, bridged=self.bridged)
        return f"{what} of {self.inputs} at {place.size[0]}x{place.size[1]}{ends}"

    @property
    def structure(self) -> tuple[Place, bool]:
        """All but the widths: its place, and whether its shortcut has layers."""
        shortcut = self.place.operator.parts(self.inputs, self.outputs, bridged=self.bridged)["shortcut"]
        return self.place, bool(shortcut)

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        return (1, self.inputs, *self.place.size)

    def build(self) -> PlainOperator:
        """The operator with fresh weights, in eval mode."""
        return PlainOperator(self.place.operator, self.inputs, self.outputs, bridged=self.bridged).eval()


Time = Callable[[Alone], float]
"""Nanoseconds of an operator, measured on the device that counts."""


class OperatorMeter(Protocol):
    """Times a space's operators and networks on one device with one runtime, precision and threads."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Device, runtime, version, precision and threads, as JSON types."""

    @property
    def most(self) -> int:
        """Operators that are worth timing for one table; see `latency_table`."""

    def operators(self, wanted: Sequence[Alone]) -> list[float]:
        """Nanoseconds of each; those known from earlier are not timed again."""

    def alone(self, generator: Generator) -> Measured:
        """The exported network, timed by itself: its share is 1, with the interval of its median."""

    def whole(self, generator: Generator) -> float:
        """Median nanoseconds of the exported network; measured once for each network."""

    def compare(self, original: Generator, candidate: Generator) -> Measured:
        """Both exported and timed in turns."""


def latency_table(
    space: SearchSpace,
    times: Callable[[Sequence[Alone]], Sequence[float]],
    input_shape: Sequence[int] | None = None,
    constant: float = 0.0,
    *,
    most: int = MOST,
) -> CostTable:
    """Nanoseconds of a space: the sum of its operators, each timed alone.

    Equal operators between equal widths at equal size are timed once. Where the space has more than `most` of
    them, the widths that are timed are thinned evenly, both ends kept, and times between are bilinear;
    operators with a shortcut then have one grid with its bridge and a row of equal widths without.

    Args:
        space: whose operators.
        times: nanoseconds of each of them.
        input_shape: (1, C, H, W); the space's usual input if not given.
        constant: what every network takes beside.
        most: timings at most, as far as two widths a side allow.
    """
    needed: dict[Place, set[tuple[int, int]]] = {}

    def note(place: Place, inputs: int, outputs: int) -> float:
        if any(place.operator.parts(inputs, outputs).values()):  # an identity is no step at all
            needed.setdefault(place, set()).add((inputs, outputs))
        return 0.0

    tables_of(space, note, np.float64, input_shape)
    plans = [{place: _Plan.all(place, pairs) for place, pairs in needed.items()}]
    widest = max((len({a for a, _ in pairs}) for pairs in needed.values()), default=0)
    widest = max(widest, *(len({b for _, b in pairs}) for pairs in needed.values()), 2)
    for kept in range(widest - 1, 1, -1):
        if len(_wanted(plans[-1])) <= most:
            break
        plans.append({place: _Plan.thinned(place, pairs, kept) for place, pairs in needed.items()})
    plan = plans[-1]
    wanted = _wanted(plan)
    known = dict(zip((one.signature for one in wanted), map(float, times(wanted)), strict=True))
    made = {place: one.function(known) for place, one in plan.items()}

    def entry(place: Place, inputs: int, outputs: int) -> float:
        if (inputs, outputs) not in needed.get(place, ()):
            return 0.0
        return made[place](inputs, outputs)

    return CostTable(space, "latency", tables_of(space, entry, np.float64, input_shape), float(constant))


@dataclass(frozen=True)
class _Plan:
    """What is timed of one place: every pair as it is, or a grid and (with a shortcut) equal widths."""

    place: Place
    pairs: tuple[tuple[int, int], ...] = ()
    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()
    equal: tuple[int, ...] = ()

    @classmethod
    def all(cls, place: Place, pairs: set[tuple[int, int]]) -> _Plan:
        return cls(place, tuple(sorted(pairs)))

    @classmethod
    def thinned(cls, place: Place, pairs: set[tuple[int, int]], kept: int) -> _Plan:
        """A grid of at most `kept` widths a side, unless the pairs themselves are no more than that."""
        equal = {a for a, b in pairs if a == b} if place.operator.shortcut is not None else set()
        others = {(a, b) for a, b in pairs if not (a == b and a in equal)}
        sides = [_spread({pair[side] for pair in others}, kept) for side in (0, 1)]
        grid = cls(place, (), sides[0], sides[1], _spread(equal, kept))
        return grid if len(grid.wanted()) < len(pairs) else cls.all(place, pairs)

    def wanted(self) -> list[Alone]:
        if self.pairs:
            return [Alone(self.place, a, b) for a, b in self.pairs]
        bridged = self.place.operator.shortcut is not None
        grid = [Alone(self.place, a, b, bridged) for a in self.inputs for b in self.outputs]
        return [*grid, *(Alone(self.place, a, a) for a in self.equal)]

    def function(self, known: Mapping[str, float]) -> Callable[[int, int], float]:
        """Nanoseconds between two widths."""
        times = {(one.inputs, one.outputs, one.bridged): known[one.signature] for one in self.wanted()}
        if self.pairs:
            return lambda a, b: times[a, b, False]
        bridged = self.place.operator.shortcut is not None
        row = np.array([[times[a, a, False] for a in self.equal]])
        alike = LayerTable((1,), self.equal, row, 1) if self.equal else None
        if not self.inputs:
            assert alike is not None
            return lambda a, b: alike(1, b)
        grid = np.array([[times[a, b, bridged] for b in self.outputs] for a in self.inputs])
        table = LayerTable(self.inputs, self.outputs, grid, 1)
        return lambda a, b: alike(1, b) if alike is not None and a == b else table(a, b)


def _wanted(plan: Mapping[Place, _Plan]) -> list[Alone]:
    """What all plans time, each once."""
    return list({one.signature: one for part in plan.values() for one in part.wanted()}.values())


def _spread(widths: set[int], kept: int) -> tuple[int, ...]:
    """At most `kept` of some widths, both ends among them, as evenly as they lie."""
    rising = sorted(widths)
    if len(rising) <= kept:
        return tuple(rising)
    return tuple(rising[round(i * (len(rising) - 1) / (kept - 1))] for i in range(kept))
