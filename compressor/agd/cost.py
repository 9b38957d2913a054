"""What the networks of a space cost: exactly for each choice, expected with gradients, and the range.

A network costs the sum of its positions, and a position costs what its operator costs between the width
before it and its own. So one table for each position, (operators, widths in, widths out), holds everything.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from compressor.agd.operators import KERNELS, Layer, Operator
from compressor.agd.space import Choice, SearchSpace
from compressor.errors import UsageError

METRICS = ("macs", "parameters", "bytes", "literature_macs")
_ALIASES = {"params": "parameters"}
_BYTES = 4  # of a parameter, FP32
_MOST = 200_000  # combinations of tied widths that are tried for the range


@dataclass(frozen=True, eq=False)
class CostTable:
    """One cost of every network of a space.

    Attributes:
        space: the space.
        metric: "macs" (true), "literature_macs" (see `compressor.cost.Cost`), "parameters", "bytes" (FP32),
            or "latency" (nanoseconds).
        tables: for each position (operators, widths in, widths out); widths in are those of the position
            before it, or the picture's channels.
        constant: what every network costs beside its positions.
    """

    space: SearchSpace
    metric: str
    tables: tuple[np.ndarray, ...]
    constant: float = 0

    def cost(self, choice: Choice) -> int:
        """What a choice costs: of what is counted exactly, of what is timed the prediction.

        Raises:
            UsageError: it is no choice of the space.
        """
        choice.check(self.space)
        total, before = self.constant, 0
        for index, table in enumerate(self.tables):
            width = choice.widths[self.space.owner(index)]
            total += table[choice.operators[index], before, width]
            before = width
        return round(float(total)) if isinstance(total, float) else int(total)

    def expected(self, operators: Tensor, widths: Tensor) -> Tensor:
        """The cost that networks drawn from these probabilities have on average; float64, with gradients.

        Positions draw independently; tied positions have the width of the one they are tied to.

        Args:
            operators: (positions, most operators) probabilities; entries beyond a position's own are 0.
            widths: (positions, most widths) the same. Rows where nothing is chosen do not count.
        """
        table, before, after, fixed = self._stacked
        device = operators.device
        table, fixed = table.to(device), fixed.to(device)
        # The last row of widths stands for every row where nothing is chosen.
        rows = torch.cat([_fitted(widths, table.shape[3]), _first(table.shape[3], device)])
        chances = torch.where(
            fixed[:, None], _first(table.shape[1], device), _fitted(operators, table.shape[1])
        )
        return torch.einsum("poab,po,pa,pb->", table, chances, rows[before], rows[after]) + self.constant

    @cached_property
    def _stacked(self) -> tuple[Tensor, list[int], list[int], Tensor]:
        """All tables as one (positions, operators, in, out), and the row of widths either side reads."""
        space, nothing = self.space, len(self.space.positions)
        most = max(len(space.options(i)) for i in range(len(space.positions)))
        stacked = np.zeros((nothing, max(len(t) for t in self.tables), most, most))
        before, after = [], []
        for index, table in enumerate(self.tables):
            source = space.owner(index - 1) if index else -1
            if source == space.owner(index):  # both sides are one draw: only equal widths meet
                table = np.diagonal(table, axis1=1, axis2=2)[:, None, :]
                source = -1
            stacked[index, : table.shape[0], : table.shape[1], : table.shape[2]] = table
            before.append(source if source >= 0 and len(space.options(source)) > 1 else nothing)
            after.append(space.owner(index) if len(space.options(index)) > 1 else nothing)
        fixed = torch.tensor([len(position.operators) == 1 for position in space.positions])
        return torch.from_numpy(stacked), before, after, fixed

    def range(self) -> tuple[int, int]:
        """What the cheapest and the costliest network of the space cost, exactly."""
        low, high = self.extremes()
        return self.cost(low), self.cost(high)

    def extremes(self) -> tuple[Choice, Choice]:
        """The cheapest and the costliest choice, found by dynamic programming along the chain.

        Widths that several positions share are tried one by one.

        Raises:
            UsageError: too many widths are shared to try all.
        """
        return self._best(1), self._best(-1)

    def _best(self, sign: int) -> Choice:
        space = self.space
        shared = sorted({p.tied for p in space.positions if p.tied is not None})
        counts = [len(space.options(owner)) for owner in shared]
        if math.prod(counts) > _MOST:
            raise UsageError(
                f"the space {space.name} ties too many widths", got=math.prod(counts), allowed=_MOST
            )
        best: tuple[float, Choice] | None = None
        for drawn in itertools.product(*(range(count) for count in counts)):
            found = self._path(dict(zip(shared, drawn, strict=True)), sign)
            if best is None or found[0] < best[0]:
                best = found
        assert best is not None
        return best[1]

    def _path(self, given: dict[int, int], sign: int) -> tuple[float, Choice]:
        """The cheapest choice (sign 1; -1: the costliest) where some positions' widths are given."""
        space, reached, trail = self.space, np.zeros(1), []
        for index, table in enumerate(self.tables):
            signed = sign * table.astype(np.float64)
            steps = reached[:, None] + signed.min(axis=0)  # (in, out)
            trail.append((steps.argmin(axis=0), signed.argmin(axis=0)))
            reached = steps.min(axis=0)
            if (owner := space.owner(index)) in given:
                others = np.arange(len(reached)) != given[owner]
                reached = np.where(others, np.inf, reached)
        width = int(reached.argmin())
        total, operators, widths = float(reached[width]), [], []
        for index in reversed(range(len(self.tables))):
            sources, chosen = trail[index]
            source = int(sources[width])
            operators.append(int(chosen[source, width]))
            widths.append(width if space.owner(index) == index else 0)
            width = source
        return total, Choice(tuple(reversed(operators)), tuple(reversed(widths)))


def _first(columns: int, device: torch.device) -> Tensor:
    """(1, columns): one, then zeros."""
    return torch.eye(1, columns, dtype=torch.float64, device=device)


def _fitted(rows: Tensor, columns: int) -> Tensor:
    """Rows as float64 with this many columns: beyond them, and beyond their own, all is zero."""
    return nn.functional.pad(rows.double(), (0, columns - rows.shape[1]))


def cost_table(space: SearchSpace, metric: str, input_shape: Sequence[int] | None = None) -> CostTable:
    """The exact costs of a space, equal to `compressor.cost.count` on every derived network.

    Args:
        space: the space.
        metric: one of `METRICS`, or "params".
        input_shape: (1, C, H, W); the space's usual input if not given.

    Raises:
        UsageError: no such metric, or the input does not suit the space.
    """
    metric = _ALIASES.get(metric, metric)
    if metric not in METRICS:
        allowed = f"{', '.join(METRICS)}; latency comes from `compressor.agd.latency`"
        raise UsageError("a space has no such cost", got=metric, allowed=allowed)

    def entry(place: Place, inputs: int, outputs: int) -> int:
        parts = place.operator.parts(inputs, outputs)
        return sum(_layers_cost(layers, inputs, outputs, place.size, metric) for layers in parts.values())

    return CostTable(space, metric, tables_of(space, entry, np.int64, input_shape))


@dataclass(frozen=True)
class Place:
    """Where an operator stands; at equal places it costs the same.

    Attributes:
        operator: the operator.
        size: height and width of its input.
        first, last: of the chain.
    """

    operator: Operator
    size: tuple[int, int]
    first: bool
    last: bool


def tables_of(
    space: SearchSpace,
    entry: Callable[[Place, int, int], float],
    dtype: type,
    input_shape: Sequence[int] | None = None,
) -> tuple[np.ndarray, ...]:
    """The tables of a `CostTable`; `entry` costs a place between two widths, and is asked once for each.

    What no network has (two tied neighbours of different widths) is 0.
    """
    shape = tuple(input_shape or space.image.input_shape)
    if len(shape) != 4 or shape[:2] != (1, space.image.channels[0]):
        raise UsageError("costs are for one picture", got=shape, allowed=f"as {space.image.input_shape}")
    known: dict[tuple[str, tuple[int, int], bool, bool, int, int], float] = {}
    tables, end = [], len(space.positions) - 1
    for index, (position, size) in enumerate(
        zip(space.positions, space.sizes((shape[2], shape[3])), strict=False)
    ):
        before, after = space.options(index - 1), space.options(index)
        one_draw = index > 0 and space.owner(index - 1) == space.owner(index)
        table: np.ndarray = np.zeros((len(position.operators), len(before), len(after)), dtype)
        for row, name in enumerate(position.operators):
            place = Place(space.operators[name], size, index == 0, index == end)
            for column, inputs in enumerate(before):
                for depth, outputs in enumerate(after):
                    if one_draw and column != depth:
                        continue
                    key = (name, size, place.first, place.last, inputs, outputs)
                    if key not in known:
                        known[key] = entry(place, inputs, outputs)
                    table[row, column, depth] = known[key]
        tables.append(table)
    return tuple(tables)


def _layers_cost(
    layers: Sequence[Layer], inputs: int, outputs: int, size: tuple[int, int], metric: str
) -> int:
    """The cost of layers in a row, the first of which reads a picture of `size`."""
    places, total = size[0] * size[1], 0
    for index, layer in enumerate(layers):
        before, places = places, int(places * layer.scale**2)
        makes = layer.makes(inputs, outputs)
        if layer.kind == "leaky_relu" and metric == "literature_macs":
            total += places * makes
        if layer.kind not in KERNELS:
            continue
        reads = 1 if layer.kind == "depthwise" else layer.reads(inputs, outputs)
        weights, biases = reads * makes * layer.kernel**2, makes * layer.bias
        absorbed = index + 1 < len(layers) and layers[index + 1].kind == "norm"
        match metric:
            case "parameters":
                total += weights + biases
            case "bytes":
                total += _BYTES * (weights + biases)
            case "macs":
                total += weights * (before if layer.kind == "transposed" else places)
            case "literature_macs":
                total += places * (weights + (0 if absorbed else biases))
    return total
