"""The landing of a search for a latency: the network found is exported and measured.

Where that misses, the line of predictions is moved to the measurement and the network is changed, in as few
places as will do, until it is within the budget or `ATTEMPTS` are used up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from compressor.agd.joint import JointCost
from compressor.agd.landing import WINDOW
from compressor.agd.space import Choice
from compressor.agd.timed import Times
from compressor.coronet.latency import ATTEMPTS, Checked, Measured, land_measured
from compressor.progress import Progress

_NARROW = 0.99  # of what is aimed at: must be used when landing again
_OTHERS = 6  # draws, so that another network is landed on than those that were measured
_STIR = 8.0  # nats: the scale of their noise
_STAY = 20.0  # nats: so much less probable is any change of a network that is landed on again


class _Line:
    """Predictions of networks, of which one has been measured: a `compressor.coronet.latency.Predicting`.

    A network that is landed on again differs in few places from the one that was measured last. So that
    measurement moves the whole line by its ratio: the error of two such networks is nearly the same.
    """

    def __init__(self, times: Times):
        self.times = times
        self.slope, self.base = self.start = times.line

    def __call__(self, keep: np.ndarray) -> int:
        return round(max(1.0, self.slope * self.raw(keep) + self.base))

    def raw(self, keep: np.ndarray) -> float:
        return float(self.times.table.cost(_choice(keep)))

    def fit(self, measured: Sequence[tuple[np.ndarray, float]], target: float) -> None:
        keep, taken = measured[-1]
        slope, base = self.start
        ratio = taken / (slope * self.raw(keep) + base)
        self.slope, self.base = ratio * slope, ratio * base


def land_timed(
    times: Times,
    cost: JointCost,
    place: int,
    start: Choice,
    logs: tuple[Sequence[np.ndarray], Sequence[np.ndarray]],
    measure: Callable[[Choice], Measured],
    target: int,
    whole: int | None,
) -> tuple[Choice, dict[str, Any]]:
    """Measure a network, and change it where it misses its latency.

    Args:
        times: of its space.
        cost: its budgets, of which the one at `place` is latency.
        start: the network.
        logs: log-probabilities of operators and widths, which say what to change.
        measure: exports and times a network.
        target: nanoseconds.
        whole: see `land_measured`.

    Returns:
        The network to take, and for search.json what was predicted and measured at every attempt.
    """
    model, draw = _Line(times), np.random.default_rng(len(start.operators))
    tried: list[Choice] = []
    stay = tuple(
        [np.where(np.arange(len(row)) == chosen, 0.0, row - _STAY) for row, chosen in zip(*pair, strict=True)]
        for pair in zip(logs, (start.operators, start.widths), strict=True)
    )

    def again() -> Choice:
        if not tried:
            return start
        tables = list(cost.tables)
        tables[place] = times.predicted((model.slope, model.base))
        corrected, logs = replace(cost, tables=tuple(tables)), stay
        for _ in range(_OTHERS):
            landing = corrected.land(logs[0], logs[1], window=_NARROW)
            choice = Choice(landing.operators, landing.widths)
            if choice not in tried:
                break
            logs = tuple([row + draw.gumbel(0, _STIR, len(row)) for row in part] for part in stay)
        return choice

    def keep() -> np.ndarray:
        tried.append(again())
        return _array(tried[-1])

    def timed(keep: np.ndarray) -> Measured:
        found = measure(_choice(keep))
        progress.update(progress.done + 1, ms=found.candidate / 1e6)
        return found

    with Progress("latency", ATTEMPTS) as progress:
        checked: Checked = land_measured(
            keep,
            model,
            timed,
            target,
            whole=whole,
            bound=lambda keep: cost.used(_choice(keep), place),
            near=WINDOW,
        )
    for attempt in checked.report["attempts"]:
        progress.note(
            f"latency: predicted {attempt['predicted'] / 1e6:.3f} ms, measured "
            f"{attempt['measured'] / 1e6:.3f} ms ({attempt['low'] / 1e6:.3f} to "
            f"{attempt['high'] / 1e6:.3f}) of at most {target / 1e6:.3f} ms"
        )
    return _choice(checked.keep), checked.report


def _array(choice: Choice) -> np.ndarray:
    return np.array([*choice.operators, *choice.widths])


def _choice(keep: np.ndarray) -> Choice:
    half = len(keep) // 2
    return Choice(tuple(map(int, keep[:half])), tuple(map(int, keep[half:])))
