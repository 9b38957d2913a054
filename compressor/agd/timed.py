"""A search's budget of latency: what its space takes on the device, and a landing that is measured.

Before the search, every operator of the space is timed, and a few random networks near the budgets are
exported and measured whole: through them goes the line that turns sums of operators into predictions. These
times are written down, so that a search that was killed goes on with them. When the search has ended, the
network it found is exported and measured. Where that misses, the line is moved to the measurement and the
network is changed, in as few places as will do, until it is within the budget or `ATTEMPTS` are used up.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from compressor.agd.cost import CostTable
from compressor.agd.joint import JointCost, chain_of
from compressor.agd.landing import WINDOW, land
from compressor.agd.latency import OperatorMeter, latency_table
from compressor.agd.space import Choice, SearchSpace
from compressor.agd.supernet import spec_of
from compressor.coronet.latency import ATTEMPTS, Checked, Measured, land_measured
from compressor.errors import PocketganError
from compressor.generators import Generator
from compressor.progress import Progress

NETWORKS = 6  # random ones, that are measured before a search
AIM = 0.995  # of the target: what is landed on, so that small errors do not pass it
FORMAT = "pocketgan.space_times/1"
_NARROW = 0.99  # of what is aimed at: must be used when landing again
_REACH = (0.7, 1.3)  # of the budgets: where the random networks lie
_STAY = 20.0  # nats: so much less probable is any change of a network that is landed on again
_OTHERS = 6  # draws, so that another network is landed on than those that were measured
_STIR = 8.0  # nats: the scale of their noise
_APART = 1.15  # the largest sum of operators over the smallest: nearer, networks tell no line


@dataclass(frozen=True)
class Probe:
    """A random network that was measured.

    Attributes:
        choice: the network.
        sum: of its operators, each timed alone; nanoseconds.
        measured, low, high: of the whole exported network, with its 95 % interval.
    """

    choice: Choice
    sum: int
    measured: int
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class Times:
    """What a space takes on a device.

    Attributes:
        table: sums of operators, each timed alone.
        probes: networks measured whole.
        originals: nanoseconds of the teacher by what was asked of it ("latency=50%"), where a share was.
        device: what was measured on.
    """

    table: CostTable
    probes: tuple[Probe, ...]
    originals: Mapping[str, int]
    device: Mapping[str, Any]

    @property
    def line(self) -> tuple[float, float]:
        """(slope, base) through all probes."""
        return line(self.probes, self.table.range()[0])

    def predicted(self, along: tuple[float, float] | None = None) -> CostTable:
        """The table of predictions, by the probes' line or another."""
        slope, base = along or self.line
        tables = tuple(slope * part for part in self.table.tables)
        return replace(self.table, tables=tables, constant=slope * self.table.constant + base)

    def errors(self) -> dict[str, Any]:
        """How far predictions are from measurements: of sums as they are, and of lines through the others.

        Returns:
            "sum_over_measured": least, median and most of that ratio; "corrected": mean and largest absolute
            error, as a share of the measurement, of each probe by the line through all others.
        """
        ratios = [probe.sum / probe.measured for probe in self.probes]
        least, wrong = self.table.range()[0], []
        for index, probe in enumerate(self.probes):
            slope, base = line([*self.probes[:index], *self.probes[index + 1 :]], least)
            wrong.append(abs(slope * probe.sum + base - probe.measured) / probe.measured)
        return {
            "sum_over_measured": {"least": min(ratios), "median": median(ratios), "most": max(ratios)},
            "corrected": {"mean": float(np.mean(wrong)), "most": max(wrong)},
        }

    def as_json(self) -> dict[str, Any]:
        """All of it as JSON types."""
        return {
            "format": FORMAT,
            "device": dict(self.device),
            "tables": [table.tolist() for table in self.table.tables],
            "originals": dict(self.originals),
            "probes": [{**vars(probe), "choice": probe.choice.as_json()} for probe in self.probes],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any], space: SearchSpace, where: Path) -> Times:
        """What `as_json` gave, for the same space.

        Raises:
            PocketganError: it is something else, or of another space.
        """
        try:
            tables = tuple(np.array(table, np.float64) for table in document["tables"])
            shapes = [(len(p.operators), len(space.options(i - 1)), len(space.options(i)))
                      for i, p in enumerate(space.positions)]  # fmt: skip
            if document["format"] != FORMAT or [table.shape for table in tables] != shapes:
                raise ValueError("times of another space")
            probes = [Probe(**{**p, "choice": Choice.from_json(p["choice"])}) for p in document["probes"]]
            table = CostTable(space, "latency", tables, 0.0)
            return cls(table, tuple(probes), dict(document["originals"]), dict(document["device"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise PocketganError(
                f"{where} does not hold the times of this search", got=error, fix="choose a new --output-dir"
            ) from error

    def told(self) -> dict[str, Any]:
        """What search.json says of the table: line, errors and probes."""
        slope, base = self.line
        probes = [{**vars(probe), "choice": probe.choice.as_json()} for probe in self.probes]
        return {"slope": slope, "base": base, **self.errors(), "networks": probes}


def line(probes: Sequence[Probe], least: float) -> tuple[float, float]:
    """(slope, base) through probes, least squares of the relative error.

    Where they lie too near to each other to tell a line, or it would make the network whose operators sum up
    to `least` take no time, the median ratio alone.
    """
    sums = np.array([probe.sum for probe in probes], np.float64)
    measured = np.array([probe.measured for probe in probes], np.float64)
    ratio = float(np.median(measured / sums))
    if len(probes) < 3 or sums.max() < _APART * sums.min():
        return ratio, 0.0
    columns = np.stack([sums / measured, 1 / measured], axis=1)
    (slope, base), *_ = np.linalg.lstsq(columns, np.ones(len(probes)), rcond=None)
    return (float(slope), float(base)) if slope > 0 and slope * least + base > 0 else (ratio, 0.0)


def take_times(
    space: SearchSpace,
    meter: OperatorMeter,
    targets: Sequence[int],
    originals: Mapping[str, int],
    seed: int,
    *,
    networks: int = NETWORKS,
) -> Times:
    """Time a space's operators, and random networks of it about some targets.

    Args:
        space: at whose usual input size things are timed.
        meter: measures.
        targets: nanoseconds.
        originals: see `Times`.
        seed: of the networks.
        networks: how many.
    """
    table = latency_table(space, meter.operators, most=meter.most)
    chain, draw = chain_of(table), np.random.default_rng([seed, 71])
    low, high = table.range()
    aims = np.geomspace(_REACH[0] * min(targets), _REACH[1] * max(targets), networks)
    probes: list[Probe] = []
    with Progress("random networks", networks) as progress:
        for aim in draw.permutation(aims):
            ratio = median(probe.sum / probe.measured for probe in probes) if probes else 1.0
            operators = [draw.gumbel(size=len(position.operators)) for position in space.positions]
            widths = [draw.gumbel(size=len(position.widths)) for position in space.positions]
            landing = land(chain, operators, widths, math.ceil(min(max(aim * ratio, low), high)))
            choice = Choice(landing.operators, landing.widths)
            found = meter.alone(fresh(space, choice, seed))
            middle = found.candidate
            interval = (round(found.low * middle), round(found.high * middle))
            probes.append(Probe(choice, table.cost(choice), round(middle), *interval))
            progress.update(len(probes), ms=middle / 1e6)
    times = Times(table, tuple(probes), originals, dict(meter.identity))
    progress.note(say(times.errors()))
    return times


def say(errors: Mapping[str, Any]) -> str:
    """Prediction errors in a sentence."""
    ratio, corrected = errors["sum_over_measured"], errors["corrected"]
    return (
        f"latency table: sums of operators are {ratio['least']:.2f} to {ratio['most']:.2f} of what random "
        f"networks take; by a line through the others, {corrected['mean']:.1%} off, at most "
        f"{corrected['most']:.1%}"
    )


def fresh(space: SearchSpace, choice: Choice, seed: int) -> Generator:
    """A network of a space with fresh weights."""
    spec = spec_of(space, choice)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = spec.build().eval()
    digest = hashlib.sha256(json.dumps([choice.as_json(), seed]).encode()).hexdigest()
    return Generator(spec, module, Path(space.name), digest)


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
