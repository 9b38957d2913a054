"""What a search's space takes on the device, as it is found before the search begins.

Every operator of the space is timed, and a few random networks near the budgets are exported and measured
whole: through them goes the line that turns sums of operators into predictions. These times are written down,
so that a search that was killed goes on with them.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from compressor.agd.cost import CostTable
from compressor.agd.joint import chain_of
from compressor.agd.landing import land
from compressor.agd.latency import OperatorMeter, latency_table
from compressor.agd.space import Choice, SearchSpace
from compressor.agd.supernet import spec_of
from compressor.errors import PocketganError
from compressor.generators import Generator
from compressor.progress import Progress

NETWORKS = 6  # random ones, that are measured before a search
AIM = 0.995  # of the target: what is landed on, so that small errors do not pass it
FORMAT = "pocketgan.space_times/1"
_REACH = (0.7, 1.3)  # of the budgets: where the random networks lie
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
