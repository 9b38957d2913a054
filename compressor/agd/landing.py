"""Landing: from probabilities to the one network that the budget allows.

A space is a chain: what a position costs depends on what came before it (a state, in most spaces the
channels that arrive), on its operator and on its width. Of all networks whose exact cost lies in
(`WINDOW` * target, target] we want the most probable one,

    argmax  sum over positions of log p(operator) + log p(width)   subject to   0.98 target < cost <= target

which is a shortest path with a resource, solved by dynamic programming over (position, state, cost): of
the ways that reach a state at the same cost only the most probable can be part of the answer. Exact as
long as no position is reached at more than `LABELS` different costs. Beyond, ways of nearly the same cost
are thinned to one, which carries its own exact cost; the answer then still lies within the window, only
a slightly more probable network may have been passed over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from compressor.errors import UsageError

WINDOW = 0.98  # of the target: a landing lies above it, and not over the target
LABELS = 16384  # different costs kept at a position, all states together


@dataclass(frozen=True)
class Moves:
    """What can be chosen at a position, coming from one state; arrays of equal length.

    Attributes:
        operators, widths: indices into the position's operators and widths.
        states: the state afterwards.
        costs: what each adds, exact.
        worth: what each is worth beside its log-probability; None: nothing.
    """

    operators: np.ndarray
    widths: np.ndarray
    states: np.ndarray
    costs: np.ndarray
    worth: np.ndarray | None = None


@dataclass(frozen=True)
class Chain:
    """The cost of every network of a space.

    Attributes:
        moves: for each position, by the state that arrives; the first position has one state.
        base: what every network costs beside.
    """

    moves: tuple[Mapping[int, Moves], ...]
    base: float = 0

    def range(self) -> tuple[float, float]:
        """The cheapest and the dearest network's cost."""
        least, most = self._ahead()
        (start,) = self.moves[0]
        return self.base + least[0][start], self.base + most[0][start]

    def _ahead(self) -> tuple[list[dict[int, float]], list[dict[int, float]]]:
        """For each position and state, the least and the most that the rest of the way costs."""
        least: list[dict[int, float]] = [{}]
        most: list[dict[int, float]] = [{}]
        for table in reversed(self.moves):
            found = [
                {
                    state: pick(m.costs + np.array([ahead[0].get(int(s), 0) for s in m.states])).item()
                    for state, m in table.items()
                }
                for pick, ahead in ((np.min, least), (np.max, most))
            ]
            least, most = [found[0], *least], [found[1], *most]
        return least, most


@dataclass(frozen=True)
class Landing:
    """Where a search landed.

    Attributes:
        operators, widths: an index for every position.
        cost: exact; of measured costs the prediction.
        log_probability: of this network, and what its choices are worth beside; may be -inf.
        within: whether the cost lies in the window. If not, nothing the space has lies in it, and this is
            the dearest network under the target.
    """

    operators: tuple[int, ...]
    widths: tuple[int, ...]
    cost: float
    log_probability: float
    within: bool


@dataclass
class _Labels:
    """Ways to one state: cost, log-probability, and for going back the label before and the choice made."""

    costs: np.ndarray
    values: np.ndarray
    before: np.ndarray  # (n, 2): state and index of the label before
    choice: np.ndarray  # (n, 2): operator and width

    def take(self, index: np.ndarray) -> _Labels:
        return _Labels(self.costs[index], self.values[index], self.before[index], self.choice[index])


def land(
    chain: Chain,
    operators: Sequence[np.ndarray],
    widths: Sequence[np.ndarray],
    target: int,
    *,
    window: float = WINDOW,
    kept: int = LABELS,
) -> Landing:
    """The most probable network within the window under a target.

    Args:
        chain: exact costs.
        operators, widths: log-probabilities of each position's operators and widths, (choices,) each.
        target: most that the network may cost.
        window: the part of the target that must be exceeded.
        kept: labels at a position, see above; fewer are faster and miss the most probable network more often.

    Raises:
        UsageError: the cheapest network of the space costs more than the target.
    """
    least, most = chain.range()
    if target < least:
        raise out_of_range(target, least, most)
    floor = window * target
    ceiling, least_used = target - chain.base, floor - chain.base
    reached = _forward(chain, operators, widths, ceiling, least_used, kept, dearest=False)
    ends = [labels for labels in reached[-1].values() if len(labels.costs)]
    if within := bool(ends):
        state, index = _best(reached[-1], "values")
    else:
        reached = _forward(chain, operators, widths, ceiling, -np.inf, kept, dearest=True)
        state, index = _best(reached[-1], "costs")
    last = reached[-1][state]
    cost, value = last.costs[index].item() + chain.base, float(last.values[index])
    chosen: list[tuple[int, int]] = []
    for table in reversed(reached[1:]):
        labels = table[state]
        chosen.append((int(labels.choice[index, 0]), int(labels.choice[index, 1])))
        state, index = (int(number) for number in labels.before[index])
    chosen.reverse()
    return Landing(tuple(c[0] for c in chosen), tuple(c[1] for c in chosen), cost, value, within)


def out_of_range(target: int, least: float, most: float, metric: str = "") -> UsageError:
    """The error for a budget that no network of the space can meet, or that every one would leave unused."""
    low = target < least
    return UsageError(
        f"no network of this space is {'small' if low else 'large'} enough for the budget",
        got=f"{target:,} {metric}".strip(),
        allowed=f"{round(least):,} to {round(most):,} {metric}".strip(),
        fix="ask for more, or search a space with narrower widths or an identity operator"
        if low
        else f"ask for no more than {int(most / WINDOW):,}, or search a space with larger widths",
    )


def _forward(
    chain: Chain,
    operators: Sequence[np.ndarray],
    widths: Sequence[np.ndarray],
    ceiling: float,
    floor: float,
    kept: int,
    *,
    dearest: bool,
) -> list[dict[int, _Labels]]:
    """Labels of every state after every position, without those that cannot end in (floor, ceiling]."""
    least, most = chain._ahead()
    (start,) = chain.moves[0]
    nowhere = np.full((1, 2), -1)
    nothing = np.zeros(1, chain.moves[0][start].costs.dtype)
    reached = [{start: _Labels(nothing, np.zeros(1), nowhere, nowhere)}]
    for position, table in enumerate(chain.moves):
        found: dict[int, list[_Labels]] = {}
        for state, labels in reached[-1].items():
            if not len(labels.costs):
                continue
            moves = table[state]
            worth = operators[position][moves.operators] + widths[position][moves.widths]
            if moves.worth is not None:
                worth = worth + moves.worth
            for after in np.unique(moves.states):
                which = np.flatnonzero(moves.states == after)
                costs = (labels.costs[:, None] + moves.costs[None, which]).ravel()
                values = (labels.values[:, None] + worth[None, which]).ravel()
                rest = least[position + 1].get(int(after), 0), most[position + 1].get(int(after), 0)
                alive = np.flatnonzero((costs + rest[0] <= ceiling) & (costs + rest[1] > floor))
                old, new = alive // len(which), which[alive % len(which)]
                found.setdefault(int(after), []).append(
                    _Labels(
                        costs[alive],
                        values[alive],
                        np.stack([np.full(len(old), state), old], axis=1),
                        np.stack([moves.operators[new], moves.widths[new]], axis=1),
                    )
                )
        most_each = max(64, kept // max(1, len(found)))
        reached.append({state: _thin(parts, most_each, dearest) for state, parts in found.items()})
    return reached


def _thin(parts: Sequence[_Labels], kept: int, dearest: bool) -> _Labels:
    """One label for each cost, the most probable; and at most `kept` of them."""
    every = _Labels(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in _Labels.__dataclass_fields__)
    )
    every = every.take(np.lexsort((-every.values, every.costs)))
    if len(every.costs):
        every = every.take(np.flatnonzero(np.diff(every.costs, prepend=every.costs[0] - 1)))
    if len(every.costs) <= kept:
        return every
    low, high = every.costs[0], every.costs[-1]
    bucket = ((every.costs - low) * (kept / (high - low + 1))).astype(np.int64)
    key = -every.costs if dearest else -every.values
    order = np.lexsort((key, bucket))
    first = np.flatnonzero(np.diff(bucket[order], prepend=-1))
    return every.take(np.sort(order[first]))


def _best(table: Mapping[int, _Labels], figure: str) -> tuple[int, int]:
    """State and index of the last label with the highest figure; of equal ones the most probable."""
    other = "values" if figure == "costs" else "costs"
    found = []
    for state, labels in table.items():
        if len(labels.costs):
            index = int(np.lexsort((getattr(labels, other), getattr(labels, figure)))[-1])
            found.append((getattr(labels, figure)[index], getattr(labels, other)[index], state, index))
    return max(found)[2:]
