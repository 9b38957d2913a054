"""Budgets in numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from compressor.agd.cost import METRICS, CostTable, cost_table
from compressor.agd.joint import JointCost
from compressor.agd.landing import WINDOW, out_of_range
from compressor.agd.latency import OperatorMeter
from compressor.agd.member import Limit
from compressor.agd.space import SearchSpace
from compressor.agd.teachers import NetworkTeacher, Teacher
from compressor.agd.timed import AIM, Times, take_times
from compressor.budget import Budget
from compressor.cost import count
from compressor.errors import UsageError

_ALLOWED = "macs=1G, params=350k, bytes=1.8MB, latency=12ms"


def limits_of(
    space: SearchSpace,
    budgets: Sequence[Budget],
    teacher: Teacher | None = None,
    times: Times | None = None,
) -> list[Limit]:
    """Budgets as amounts that the space can meet.

    Args:
        space: at whose usual input size costs count.
        budgets: one, or several of one metric; each may name a second metric that holds beside.
        teacher: what shares refer to.
        times: what the space takes on a device, for budgets of latency.

    Raises:
        UsageError: a budget has a metric that a space does not know, is a share of an unknown network, names
            more than two metrics, or lies outside what the space can cost.
    """
    limits = []
    for budget in budgets:
        check_metrics(budget)
        tables, targets = [], []
        for part in budget.parts():
            table = _table(space, part, times)
            target = part.limit(_whole(teacher, part, times))
            least, most = table.range()
            if target < least or (part.metric == budget.metric and most <= WINDOW * target):
                raise out_of_range(
                    target, least, most, "nanoseconds" if part.metric == "latency" else part.metric
                )
            tables.append(table)
            targets.append(target)
        pairs = dict(zip((part.metric for part in budget.parts()), targets, strict=True))
        aims = [int(AIM * most) if metric == "latency" else most for metric, most in pairs.items()]
        cost = JointCost(tuple(tables), tuple(aims))
        if len(tables) > 1:  # fails now if no network is within both
            cost.land(
                [np.zeros(len(position.operators)) for position in space.positions],
                [np.zeros(len(position.widths)) for position in space.positions],
            )
        also = {metric: most for metric, most in pairs.items() if metric != budget.metric}
        timed = _latency(budget)
        whole = times.originals.get(timed.text) if times and timed else None
        limits.append(Limit(name_of(budget), budget.text, budget.metric, targets[0], cost, also, whole))
    return limits


def check_metrics(budget: Budget) -> None:
    """Refuse a budget that a search does not know.

    Raises:
        UsageError: as said.
    """
    if len(budget.also) > 1:
        raise UsageError(
            "a search is held to two metrics at most", got=budget.text, allowed="latency=12ms,params=350k"
        )
    for part in budget.parts():
        if part.metric not in (*METRICS, "latency"):
            raise UsageError(
                f"a search cannot be held to a budget of {part.metric}", got=budget.text, allowed=_ALLOWED
            )


def name_of(budget: Budget) -> str:
    """What the network that meets a budget is called: "macs-1G"."""
    return budget.text.strip().replace("=", "-").replace("%", "").replace(",", "-").replace(" ", "")


def times_for(
    space: SearchSpace,
    budgets: Sequence[Budget],
    teacher: Teacher,
    meter: OperatorMeter | None,
    seed: int,
) -> Times | None:
    """What a space takes on a device, measured about the budgets of latency; None where none asks for it.

    Raises:
        UsageError: there is nothing to measure with, or a share of a teacher that cannot be exported.
    """
    parts = [part for budget in budgets if (part := _latency(budget)) is not None]
    if not parts:
        return None
    if meter is None:
        raise UsageError("a budget of latency needs something to measure with", fix="pocketgan search")
    originals = {
        part.text: round(meter.whole(_network(teacher, part).generator))
        for part in parts
        if part.share is not None
    }
    targets = [part.limit(originals.get(part.text, 0)) for part in parts]
    return take_times(space, meter, targets, originals, seed)


def _latency(budget: Budget) -> Budget | None:
    """The part of a budget that asks for a latency."""
    return next((part for part in budget.parts() if part.metric == "latency"), None)


def _table(space: SearchSpace, part: Budget, times: Times | None) -> CostTable:
    if part.metric != "latency":
        return cost_table(space, part.metric)
    if times is None:
        raise UsageError("a budget of latency needs something to measure with", fix="pocketgan search")
    return times.predicted()


def _whole(teacher: Teacher | None, budget: Budget, times: Times | None) -> int:
    """What a share is a share of; 0 where the budget is an amount."""
    if budget.share is None:
        return 0
    network = _network(teacher, budget)
    if budget.metric == "latency":
        return times.originals[budget.text] if times else 0
    return int(getattr(count(network.module, network.image.input_shape), budget.metric))


def _network(teacher: Teacher | None, budget: Budget) -> NetworkTeacher:
    if not isinstance(teacher, NetworkTeacher):
        raise UsageError(
            "a share needs a teacher whose cost is known: a network of ours",
            got=budget.text,
            allowed=f"an amount: {_ALLOWED}",
        )
    return teacher


def spread(budgets: Sequence[Budget], count: int) -> list[Budget]:
    """`count` budgets from the first to the last of two, each the same part of the one before.

    Raises:
        UsageError: there are not two budgets in amounts, or `count` is less than 2.
    """
    if len(budgets) != 2 or any(budget.amount is None for budget in budgets) or count < 2:
        raise UsageError(
            "budgets are spread between two amounts",
            got=f"{', '.join(budget.text for budget in budgets)}, {count} of them",
            allowed="--budget macs=4G,1G --pareto 2 or more",
        )
    high, low = (int(budget.amount or 0) for budget in budgets)
    found = []
    for index in range(count):
        exact = high * math.pow(low / high, index / (count - 1))
        amount = round(exact) if index not in (0, count - 1) else (high, low)[index > 0]
        found.append(replace(budgets[0], text=_said(budgets[0].text, amount), amount=amount))
    return found


def _said(text: str, amount: int) -> str:
    """ "macs=2.52G" for an amount, in the unit that reads well; names only: the amount itself is exact."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if amount >= size:
            return f"{text.partition('=')[0].strip()}={amount / size:.4g}{unit}"
    return f"{text.partition('=')[0].strip()}={amount}"
