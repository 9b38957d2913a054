"""What the networks of a space cost under one budget or two at once, expected and landed on."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from compressor.agd.cost import CostTable
from compressor.agd.landing import LABELS, WINDOW, Chain, Landing, Moves, land
from compressor.agd.space import Choice
from compressor.errors import UsageError

_PULL = (-1.0, 6.0)  # log10 of how much the second budget may weigh against log-probabilities
_HALVINGS = 10  # of that range


@dataclass(frozen=True, eq=False)
class JointCost:
    """Costs under a budget that names one metric or two, in units of the first.

    Of two, a network must be within both; it has used its budget when one of them is used.

    Attributes:
        tables: the cost by each metric.
        targets: what each may be.
    """

    tables: tuple[CostTable, ...]
    targets: tuple[int, ...]

    @cached_property
    def chains(self) -> tuple[Chain, ...]:
        """The tables as landing walks them; alike but for what moves cost."""
        return tuple(map(chain_of, self.tables))

    def range(self) -> tuple[float, float]:
        """What the cheapest and the dearest network cost by the first metric."""
        return self.chains[0].range()

    def expected(self, operators: torch.Tensor, widths: torch.Tensor) -> torch.Tensor:
        """The expected cost (see `CostTable.expected`) by the metric that strains its target most."""
        first = self.targets[0]
        costs = [
            table.expected(operators, widths) * (first / target)
            for table, target in zip(self.tables, self.targets, strict=True)
        ]
        return costs[0] if len(costs) == 1 else torch.stack(costs).max()

    def used(self, choice: Choice, beside: int = 0) -> bool:
        """Whether a choice has used its budget by a metric other than that at `beside`, to `WINDOW`."""
        return any(
            table.cost(choice) > WINDOW * target
            for index, (table, target) in enumerate(zip(self.tables, self.targets, strict=True))
            if index != beside
        )

    def land(
        self,
        operators: Sequence[np.ndarray],
        widths: Sequence[np.ndarray],
        *,
        window: float = WINDOW,
        kept: int = LABELS,
    ) -> Landing:
        """The most probable network that the budget allows; see `compressor.agd.landing.land`.

        Of two metrics the first is brought into its window, the second only held under its target, by a pull
        that is as weak as will do (Lagrangian relaxation: the answer is within both, and almost the most
        probable). Where that cannot be, the second is brought into its window and the first held.

        Raises:
            UsageError: no network is cheap enough by the first metric.
        """
        if len(self.tables) == 1:
            return land(self.chains[0], operators, widths, self.targets[0], window=window, kept=kept)
        logs = (operators, widths)
        found = self._held(0, 1, logs, window) or self._held(1, 0, logs, window)
        if found is not None:
            return found
        found = self._held(0, 1, logs, -math.inf)
        if found is None:
            raise self._neither()
        return replace(found, within=False)

    def _held(
        self, main: int, side: int, logs: tuple[Sequence[np.ndarray], Sequence[np.ndarray]], window: float
    ) -> Landing | None:
        """The most probable network with one metric in its window and the other held under its target."""

        def tried(pull: float) -> tuple[Landing, bool] | None:
            chain = _pulled(self.chains[main], self.chains[side], pull / self.targets[side])
            found = land(chain, *logs, self.targets[main], window=window)
            if not found.within:
                return None
            choice = Choice(found.operators, found.widths)
            fits = self.tables[side].cost(choice) <= self.targets[side]
            value = sum(
                float(rows[index][chosen])
                for rows, picks in zip(logs, (found.operators, found.widths), strict=True)
                for index, chosen in enumerate(picks)
            )
            first = float(self.tables[0].cost(choice))
            return replace(found, cost=first, log_probability=value), fits

        free = tried(0.0)
        if free is None or free[1]:
            return None if free is None else free[0]
        low, high = _PULL
        held = tried(10**high)
        if held is None or not held[1]:
            return None
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            now = tried(10**middle)
            if now is not None and now[1]:
                held, high = now, middle
            else:
                low = middle
        return held[0]

    def _neither(self) -> UsageError:
        asked = [f"{t.metric} {target:,}" for t, target in zip(self.tables, self.targets, strict=True)]
        return UsageError(
            "no network of this space is within both budgets",
            got=" and ".join(asked),
            fix="ask for more of one of them, or search a space with other operators",
        )


def _pulled(chain: Chain, other: Chain, pull: float) -> Chain:
    """A chain whose moves are worth the less, the more they cost in another chain of the same space."""
    if not pull:
        return chain
    moves = tuple(
        {state: replace(m, worth=-pull * theirs[state].costs) for state, m in table.items()}
        for table, theirs in zip(chain.moves, other.moves, strict=True)
    )
    return Chain(moves, chain.base)


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
