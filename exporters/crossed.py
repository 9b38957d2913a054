"""Plans judged on pictures that did not give their ranges: two-fold cross-validation.

Ranges are what calibration pictures show, so the same pictures always fit them; a picture to come may go
beyond, and is clipped. So ranges are gathered over the pictures at even places and over those at odd places
apart, and a picture is computed with those of the other half. Files get the ranges of both.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import fx

from compressor.quantisation.calibration import Method
from compressor.quantisation.layers import Layer
from compressor.quantisation.ranges import Bounds
from exporters.bias import Shifts, mean_errors
from exporters.simulate import Observed, Simulated

Pictures = Callable[[], Iterable[np.ndarray]]
"""Gives the calibration inputs (1, C, H, W), always in the same order, one held at a time."""

HALVES = (0, 1)


@dataclass(frozen=True)
class Crossed:
    """Bounds, and shifts of biases, that judge the pictures of either half: those of the other half.

    Attributes:
        bounds: of every layer, by the half of the picture that is computed with them.
        shifts: likewise.
    """

    bounds: tuple[Mapping[str, Bounds], Mapping[str, Bounds]]
    shifts: tuple[Shifts, Shifts] = ({}, {})

    def simulated(self, graph: fx.GraphModule, chosen: Sequence[Layer]) -> tuple[Simulated, Simulated]:
        """The graph with these layers rounded, by the half of the picture that it is to be called on."""
        even, odd = (Simulated(graph, chosen, self.bounds[half], self.shifts[half]) for half in HALVES)
        return even, odd


class Halves:
    """Ranges of a graph's layers over the two halves of the calibration pictures, gathered in one pass.

    Args:
        graph: in float.
        chosen: its layers.
        pictures: to observe; of a single one both halves are that one.
    """

    def __init__(self, graph: fx.GraphModule, chosen: Sequence[Layer], pictures: Pictures):
        self._graph, self._chosen, self._pictures = graph, chosen, pictures
        self._observed = [Observed(graph, chosen), Observed(graph, chosen)]
        count = 0
        for picture in pictures():
            self._observed[count % 2].see(picture)
            count += 1
        self._single = count == 1
        if self._single:
            self._observed[1] = self._observed[0]

    def crossed(self, method: Method) -> Crossed:
        """Bounds by one method to judge with."""
        even, odd = (observed.bounds(method) for observed in self._observed)
        return Crossed((odd, even))

    def bounds(self, method: Method) -> dict[str, Bounds]:
        """Bounds of all pictures by one method, for files."""
        return self._observed[0].bounds(method, None if self._single else self._observed[1])

    def corrected(self, crossed: Crossed, some: Sequence[Layer]) -> Crossed:
        """With the mean errors of these layers, each half's by its own bounds."""

        def errors(half: int) -> Shifts:
            inputs = self._pictures() if self._single else itertools.islice(self._pictures(), half, None, 2)
            return mean_errors(self._graph, some, crossed.bounds[1 - half], inputs)

        return Crossed(crossed.bounds, (errors(1), errors(0)))
