"""Plans INT8 for a network, once for all runtimes: how activations are bounded, and which layers stay float.

The plan is found on calibration pictures with imitated arithmetic (`exporters.simulate`): the method
whose pictures are nearest to float wins; if that is not near enough, layers return to float, those
first that do the most harm for the arithmetic they save, and as few as reach the asked quality.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import fx

from compressor.data.images import to_pixels
from compressor.metrics.fidelity import psnr
from compressor.quantisation.calibration import METHODS
from compressor.quantisation.layers import Layer, layers
from compressor.quantisation.ranges import Bounds
from exporters.runtime import Run
from exporters.simulate import Observed, Simulated, observe

GOAL = 40.0
"""Mean PSNR in dB on the hardest calibration pictures that a plan aims at."""

_FLOAT_SHARE = 0.5  # of the quantisable multiply-adds may return to float
_JUDGED = 4  # calibration pictures that plans are judged on: those that plain INT8 does worst on
_PROBED = 2  # of them, the pictures that single layers are judged on

Picture = tuple[str, np.ndarray, np.ndarray]
"""(name, input, float output)."""


@dataclass(frozen=True)
class Plan:
    """Which convolutions run on integers and how.

    Attributes:
        bounds: of every quantised layer, by its module's name.
        kept: the layers left in float.
        method: how ranges were found.
        psnr: mean dB that the plan should give on the hardest calibration pictures.
        notes: what was found, in words.
    """

    bounds: Mapping[str, Bounds]
    kept: tuple[str, ...]
    method: str
    psnr: float
    notes: tuple[str, ...]


def plan(
    graph: fx.GraphModule,
    pictures: Iterable[np.ndarray],
    references: Iterable[Picture],
    output_range: tuple[float, float],
    goal: float = GOAL,
) -> Plan:
    """Find a plan for a captured graph.

    Args:
        graph: as it will be converted (equalised).
        pictures: calibration inputs (1, C, H, W); gone through once, one held at a time.
        references: the same with PyTorch's outputs; gone through once, few held.
        output_range: values of black and white at the output.
        goal: mean PSNR in dB to aim at on the hardest of them.
    """
    chosen, kept = layers(graph)
    observed = observe(graph, chosen, pictures)
    judged = _hardest(Simulated(graph, chosen, observed.bounds(METHODS[0])), references, output_range)

    def quality(run: Run, some: Sequence[Picture] = judged) -> float:
        return float(np.mean(_psnrs(run, some, output_range)))

    scores = {method: quality(Simulated(graph, chosen, observed.bounds(method))) for method in METHODS}
    method = max(METHODS, key=lambda name: scores[name])
    bounds = observed.bounds(method)
    notes = ["ranges by " + method + "; imitated PSNR on the hardest pictures in dB: "]
    notes[0] += ", ".join(f"{name} {score:.1f}" for name, score in scores.items())
    reached, floated = scores[method], list[Layer]()
    if reached < goal:
        order = _most_harmful(graph, chosen, bounds, lambda run: quality(run, judged[:_PROBED]))
        floated, reached = _fewest(graph, order, bounds, goal, quality, reached)
        notes.append(
            f"{len(floated)} of {len(chosen)} layers returned to float for {reached:.1f} dB"
            + (
                ""
                if reached >= goal
                else f"; {goal:g} dB is out of reach with half of the arithmetic in INT8"
            )
        )
    names = {layer.name for layer in floated}
    return Plan(
        bounds={name: value for name, value in bounds.items() if name not in names},
        kept=(*kept, *(layer.name for layer in floated)),
        method=method,
        psnr=reached,
        notes=tuple(notes),
    )


def _hardest(run: Run, references: Iterable[Picture], output_range: tuple[float, float]) -> list[Picture]:
    """The pictures that a file does worst on, the worst first; of all others none is held."""
    ranked = (
        (_psnrs(run, [picture], output_range)[0], index, picture) for index, picture in enumerate(references)
    )
    return [picture for _, _, picture in heapq.nsmallest(_JUDGED, ranked)]


def _psnrs(run: Run, pictures: Sequence[Picture], output_range: tuple[float, float]) -> list[float]:
    return [
        psnr(to_pixels(run(entry), output_range), to_pixels(expected, output_range))
        for _, entry, expected in pictures
    ]


def _most_harmful(graph: fx.GraphModule, chosen: Sequence[Layer], bounds, quality) -> list[Layer]:
    """Layers by the error that each alone brings, for each multiply-add it saves; the worst first."""

    def harm(layer: Layer) -> float:
        return 10 ** (-quality(Simulated(graph, [layer], bounds)) / 10) / layer.macs

    return sorted(chosen, key=harm, reverse=True)


def _fewest(
    graph: fx.GraphModule, order: Sequence[Layer], bounds, goal: float, quality, start: float
) -> tuple[list[Layer], float]:
    """The shortest head of `order` that in float reaches the goal, by bisection, and what it reaches."""
    allowed = _FLOAT_SHARE * sum(layer.macs for layer in order)
    most = sum(np.cumsum([layer.macs for layer in order]) <= allowed)
    tried = {0: start}

    def reach(count: int) -> float:
        if count not in tried:
            tried[count] = quality(Simulated(graph, order[count:], bounds))
        return tried[count]

    low, high = 0, int(most)  # at `low` the goal is missed
    if reach(high) < goal:
        return list(order[:high]), tried[high]
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reach(middle) >= goal else (middle, high)
    return list(order[:high]), tried[high]


__all__ = ["GOAL", "Observed", "Plan", "plan"]
