"""Plans INT8 for a network, once for all runtimes: how activations are bounded, and which layers stay float.

The plan is found on calibration pictures with imitated arithmetic (`exporters.simulate`), each picture
judged with ranges that it had no part in (`exporters.crossed`): the method whose pictures are nearest to
float wins; biases are corrected if that brings them nearer; if that is not near enough, layers return to
float, those first that do the most harm for the arithmetic they save, and as few as reach the asked quality.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from torch import fx

from compressor.quantisation.calibration import METHODS
from compressor.quantisation.layers import Layer, layers
from compressor.quantisation.ranges import Bounds
from exporters.bias import Shifts, correctable, mean_errors
from exporters.crossed import Crossed, Halves, Pictures
from exporters.drop import Point
from exporters.judge import Hard, Judge, Picture
from exporters.sensitivity import alone
from exporters.simulate import Simulated

GOAL = 40.0
"""Mean PSNR in dB on the hardest calibration pictures that a plan aims at."""

_FLOAT_SHARE = 0.5  # of the quantisable multiply-adds may return to float, unless the goal is demanded
_PROBED = 2  # of the hardest pictures: those that single layers are judged on

Tell = Callable[[str], None]
"""Is told how far the search has come."""


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
    pictures: Pictures,
    references: Iterable[Picture],
    output_range: tuple[float, float],
    goal: float = GOAL,
    truths: Iterable[np.ndarray] | None = None,
    demanded: bool = False,
    tell: Tell = lambda _: None,
) -> Plan:
    """Find a plan for a captured graph.

    Args:
        graph: as it will be converted (equalised).
        pictures: gives the calibration inputs; gone through up to four times.
        references: the same with PyTorch's outputs; gone through once, few held.
        output_range: values of black and white at the output.
        goal: mean PSNR in dB to aim at on the hardest of them; with `truths` the dB that they may lose.
        truths: the true pictures (H, W, C) in [0, 1] of `references`; INT8 may then be as far from float as
            it likes where that does not take it further from them. Gone through once, few held.
        demanded: every one of the hardest pictures is to reach the goal, and as many layers return to float
            as that takes, all but one if need be; else no more than half of the arithmetic does.
        tell: of the pictures gone through and the layers tried, which takes long.
    """
    chosen, kept = layers(graph)

    def watched() -> Iterator[np.ndarray]:
        for number, picture in enumerate(pictures(), 1):
            tell(f"INT8 calibration, picture {number}")
            yield picture

    halves = Halves(graph, chosen, watched)
    pairs = zip(references, itertools.repeat(None) if truths is None else truths, strict=False)
    judge = Judge.of_hardest(halves.crossed(METHODS[0]).simulated(graph, chosen), pairs, output_range)

    def point(floated: Sequence[Layer]) -> Point:
        rest = [layer for layer in chosen if layer not in floated]
        psnrs, drops = judge.scores(crossed.simulated(graph, rest))
        share = sum(layer.macs for layer in floated) / (sum(layer.macs for layer in chosen) or 1)
        reached = min(psnrs) if demanded and truths is None else np.mean(psnrs)
        return Point(len(floated), share, float(reached), None if truths is None else float(np.mean(drops)))

    tried = {method: halves.crossed(method) for method in METHODS}
    scores = {method: judge.pooled(each.simulated(graph, chosen)) for method, each in tried.items()}
    method = max(METHODS, key=lambda name: scores[name])
    crossed, bounds = tried[method], halves.bounds(method)
    notes = ["ranges by " + method + "; imitated PSNR on the hardest pictures in dB: "]
    notes[0] += ", ".join(f"{name} {score:.1f}" for name, score in scores.items())
    shifts: Shifts = {}
    if some := correctable(graph, chosen):
        better = halves.corrected(crossed, some)
        corrected = judge.pooled(better.simulated(graph, chosen))
        if corrected > scores[method]:
            crossed, shifts = better, mean_errors(graph, some, bounds, watched())
            notes.append(f"biases of {len(some)} layers corrected by their mean error: {corrected:.1f} dB")
    floated, trade = list[Layer](), [point([])]
    if not trade[0].meets(goal):
        order = _most_harmful(graph, chosen, crossed, judge, tell)
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


def _most_harmful(
    graph: fx.GraphModule, chosen: Sequence[Layer], crossed: Crossed, judge: Judge, tell: Tell
) -> list[Layer]:
    """Layers by the error that each alone brings, for each multiply-add it saves; the worst first."""
    errors = {layer.name: 0.0 for layer in chosen}
    probed = judge.hardest[:_PROBED]
    for number, hard in enumerate(probed):

        def branch(layer: Layer, half: int = hard.half) -> Simulated:
            return Simulated(graph, [layer], crossed.bounds[half], crossed.shifts[half])

        def found(layer: Layer, output: np.ndarray, hard: Hard = hard, done: int = number) -> None:
            errors[layer.name] += judge.error(hard, output)
            count = done * len(chosen) + 1 + chosen.index(layer)
            tell(f"INT8 layers tried {count}/{len(probed) * len(chosen)}")

        alone(graph, chosen, branch, hard.picture[1], found)
    return sorted(chosen, key=lambda layer: errors[layer.name] / layer.macs, reverse=True)


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


__all__ = ["GOAL", "Picture", "Plan", "Tell", "plan"]
