"""Plans INT8 for a network, once for all runtimes: how activations are bounded, and which layers stay float.

The plan is found on calibration pictures with imitated arithmetic (`exporters.simulate`): the method
whose pictures are nearest to float wins; biases are corrected if that brings them nearer; if that is
not near enough, layers return to float, those first that do the most harm for the arithmetic they save,
and as few as reach the asked quality.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from torch import fx

from compressor.data.images import to_pixels
from compressor.metrics.fidelity import psnr
from compressor.quantisation.calibration import METHODS
from compressor.quantisation.layers import Layer, layers
from compressor.quantisation.ranges import Bounds
from exporters.bias import Shifts, correctable, mean_errors
from exporters.drop import Point, decibels
from exporters.runtime import Run
from exporters.simulate import Observed, Simulated, observe

GOAL = 40.0
"""Mean PSNR in dB on the hardest calibration pictures that a plan aims at."""

_FLOAT_SHARE = 0.5  # of the quantisable multiply-adds may return to float, unless the goal is demanded
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
        trade: what was tried, from most integers to most floats.
        shifts: what is taken off the biases of quantised layers (`exporters.bias`).
    """

    bounds: Mapping[str, Bounds]
    kept: tuple[str, ...]
    method: str
    psnr: float
    notes: tuple[str, ...]
    trade: tuple[Point, ...] = ()
    shifts: Shifts = field(default_factory=dict)


def plan(
    graph: fx.GraphModule,
    pictures: Callable[[], Iterable[np.ndarray]],
    references: Iterable[Picture],
    output_range: tuple[float, float],
    goal: float = GOAL,
    truths: Iterable[np.ndarray] | None = None,
    demanded: bool = False,
) -> Plan:
    """Find a plan for a captured graph.

    Args:
        graph: as it will be converted (equalised).
        pictures: gives the calibration inputs (1, C, H, W), which are gone through twice, one held at a time.
        references: the same with PyTorch's outputs; gone through once, few held.
        output_range: values of black and white at the output.
        goal: mean PSNR in dB to aim at on the hardest of them; with `truths` the dB that they may lose.
        truths: the true pictures (H, W, C) in [0, 1] of `references`; INT8 may then be as far from float as
            it likes where that does not take it further from them. Gone through once, few held.
        demanded: every one of the hardest pictures is to reach the goal, and as many layers return to float
            as that takes, all but one if need be; else no more than half of the arithmetic does.
    """
    chosen, kept = layers(graph)
    observed = observe(graph, chosen, pictures())
    pairs = zip(references, itertools.repeat(None) if truths is None else truths, strict=False)
    hardest = _hardest(Simulated(graph, chosen, observed.bounds(METHODS[0])), pairs, output_range)
    judged = [picture for picture, _ in hardest]

    def quality(run: Run, some: Sequence[Picture] = judged) -> float:
        return float(np.mean(_psnrs(run, some, output_range)))

    def point(floated: Sequence[Layer]) -> Point:
        rest = [layer for layer in chosen if layer not in floated]
        scored = [_score(Simulated(graph, rest, bounds, shifts), *each, output_range) for each in hardest]
        psnrs, drops = zip(*scored, strict=True)
        share = sum(layer.macs for layer in floated) / (sum(layer.macs for layer in chosen) or 1)
        reached = min(psnrs) if demanded and truths is None else np.mean(psnrs)
        return Point(len(floated), share, float(reached), None if truths is None else float(np.mean(drops)))

    scores = {method: quality(Simulated(graph, chosen, observed.bounds(method))) for method in METHODS}
    method = max(METHODS, key=lambda name: scores[name])
    bounds = observed.bounds(method)
    notes = ["ranges by " + method + "; imitated PSNR on the hardest pictures in dB: "]
    notes[0] += ", ".join(f"{name} {score:.1f}" for name, score in scores.items())
    shifts: Shifts = {}
    if some := correctable(graph, chosen):
        errors = mean_errors(graph, some, bounds, pictures())
        corrected = quality(Simulated(graph, chosen, bounds, errors))
        if corrected > scores[method]:
            shifts = errors
            notes.append(f"biases of {len(some)} layers corrected by their mean error: {corrected:.1f} dB")
    floated, trade = list[Layer](), [point([])]
    if not trade[0].meets(goal):
        order = _most_harmful(graph, chosen, bounds, shifts, lambda run: quality(run, judged[:_PROBED]))
        floated, trade = _fewest(order, goal, point, trade[0], 1.0 if demanded else _FLOAT_SHARE)
    reached = next(each for each in trade if each.floated == len(floated))
    if floated:
        least = "a layer" if demanded else "half of the arithmetic"
        notes.append(
            f"{len(floated)} of {len(chosen)} layers returned to float for {reached.said}"
            + ("" if reached.meets(goal) else f"; {goal:g} dB is out of reach with {least} in INT8")
        )
    elif truths is not None:
        notes.append(f"all in INT8 for {reached.said}")
    names = {layer.name for layer in floated}
    return Plan(
        bounds={name: value for name, value in bounds.items() if name not in names},
        kept=(*kept, *(layer.name for layer in floated)),
        method=method,
        psnr=reached.psnr,
        notes=tuple(notes),
        trade=tuple(replace(each, chosen=each is reached) for each in trade),
        shifts={name: shift for name, shift in shifts.items() if name not in names},
    )


def _hardest(
    run: Run, pairs: Iterable[tuple[Picture, np.ndarray | None]], output_range: tuple[float, float]
) -> list[tuple[Picture, np.ndarray | None]]:
    """The pictures (with their truths) that a file does worst on, worst first; of all others none is held."""
    ranked = ((_psnrs(run, [pair[0]], output_range)[0], index, pair) for index, pair in enumerate(pairs))
    return [pair for _, _, pair in heapq.nsmallest(_JUDGED, ranked)]


def _score(
    run: Run, picture: Picture, truth: np.ndarray | None, output_range: tuple[float, float]
) -> tuple[float, float]:
    """PSNR to float in dB, and how many dB further from the truth than float (0 without one)."""
    made, expected = (to_pixels(values, output_range) for values in (run(picture[1]), picture[2]))
    lost = 0.0 if truth is None else decibels(expected, truth) - decibels(made, truth)
    return decibels(made, expected), lost


def _psnrs(run: Run, pictures: Sequence[Picture], output_range: tuple[float, float]) -> list[float]:
    return [
        psnr(to_pixels(run(entry), output_range), to_pixels(expected, output_range))
        for _, entry, expected in pictures
    ]


def _most_harmful(graph: fx.GraphModule, chosen: Sequence[Layer], bounds, shifts, quality) -> list[Layer]:
    """Layers by the error that each alone brings, for each multiply-add it saves; the worst first."""

    def harm(layer: Layer) -> float:
        return 10 ** (-quality(Simulated(graph, [layer], bounds, shifts)) / 10) / layer.macs

    return sorted(chosen, key=harm, reverse=True)


def _fewest(
    order: Sequence[Layer],
    goal: float,
    point: Callable[[Sequence[Layer]], Point],
    start: Point,
    share: float,
) -> tuple[list[Layer], list[Point]]:
    """The shortest head of `order` that in float meets the goal, by bisection, and all that was tried."""
    allowed = share * sum(layer.macs for layer in order)
    most = sum(np.cumsum([layer.macs for layer in order])[:-1] <= allowed)
    tried = {0: start}

    def meets(count: int) -> bool:
        if count not in tried:
            tried[count] = point(order[:count])
        return tried[count].meets(goal)

    low, high = 0, int(most)  # at `low` the goal is missed
    if meets(high):
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if meets(middle) else (middle, high)
    return list(order[:high]), [tried[count] for count in sorted(tried)]


__all__ = ["GOAL", "Observed", "Plan", "plan"]
