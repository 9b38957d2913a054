"""Budgets in numbers, and a space's costs as the chain that landing walks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from compressor.agd.cost import METRICS, CostTable, cost_table
from compressor.agd.landing import WINDOW, Chain, Moves, out_of_range
from compressor.agd.member import Limit
from compressor.agd.space import SearchSpace
from compressor.agd.teachers import NetworkTeacher, Teacher
from compressor.budget import Budget
from compressor.cost import count
from compressor.errors import UsageError


def chain_of(table: CostTable) -> Chain:
    """The costs of a table by position, state and choice.

    A state is the width that arrives, together with every earlier width that a later position is tied to.
    """
    space = table.space
    last_use: dict[int, int] = {}
    for index, position in enumerate(space.positions):
        if position.tied is not None:
            last_use[position.tied] = index
    held: tuple[int, ...] = ()  # positions whose widths the state remembers
    states: dict[tuple[int, ...], int] = {(0,): 0}  # width that arrives, then those remembered
    tables: list[Mapping[int, Moves]] = []
    for index, (position, costs) in enumerate(zip(space.positions, table.tables, strict=True)):
        owner = space.owner(index)
        keeps = tuple(p for p in (*held, index) if last_use.get(p, -1) > index)
        after: dict[tuple[int, ...], int] = {}
        moves = {}
        for state, number in states.items():
            known = dict(zip(held, state[1:], strict=True))
            widths = [known[owner]] if owner != index else list(range(len(position.widths)))
            rows = list(itertools.product(range(len(position.operators)), widths))
            ends = []
            for _, width in rows:
                now = {**known, index: width}
                end = (width, *(now[p] for p in keeps))
                ends.append(after.setdefault(end, len(after)))
            operators, chosen = (np.array(column) for column in zip(*rows, strict=True))
            spent = costs[operators, state[0], chosen]
            own = chosen if owner == index else np.zeros_like(chosen)  # nothing is chosen where it is tied
            moves[number] = Moves(operators, own, np.array(ends), spent)
        tables.append(moves)
        states, held = after, keeps
    return Chain(tuple(tables), table.constant)


def limits_of(space: SearchSpace, budgets: Sequence[Budget], teacher: Teacher | None = None) -> list[Limit]:
    """Budgets as amounts that the space can meet.

    Args:
        space: at whose usual input size costs count.
        budgets: one, or several of one metric.
        teacher: what shares refer to.

    Raises:
        UsageError: a budget has a metric that a space does not know, is a share of an unknown network, names
            several metrics, or lies outside what the space can cost.
    """
    limits = []
    for budget in budgets:
        if budget.also:
            raise UsageError("a search has one metric", got=budget.text, allowed="as macs=1G")
        if budget.metric not in METRICS:
            raise UsageError(
                f"a search cannot be held to a budget of {budget.metric}",
                got=budget.text,
                allowed="macs=1G, params=350k, bytes=1.8MB",
            )
        target = budget.limit(_whole(teacher, budget))
        least, most = cost_table(space, budget.metric).range()
        if not least <= target or most <= WINDOW * target:
            raise out_of_range(target, least, most, budget.metric)
        name = budget.text.strip().replace("=", "-").replace("%", "")
        limits.append(Limit(name, budget.text, budget.metric, target))
    return limits


def _whole(teacher: Teacher | None, budget: Budget) -> int:
    """What a share is a share of; 0 where the budget is an amount."""
    if budget.share is None:
        return 0
    if not isinstance(teacher, NetworkTeacher):
        raise refuse_share(budget)
    return int(getattr(count(teacher.module, teacher.image.input_shape), budget.metric))


def refuse_share(budget: Budget) -> UsageError:
    """The error for a share of a teacher that only answers with pictures."""
    return UsageError(
        "a share needs a teacher whose cost is known: a network of ours",
        got=budget.text,
        allowed="an amount: macs=1G, params=350k, bytes=1.8MB",
    )


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
