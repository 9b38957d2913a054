"""Landing on widths that are multiples of 8 (or another number), which phones run faster than odd ones.

Every latent vector is cut into steps of `multiple` entries, the best first. Steps are chosen as single
entries are in `landing.land`. Steps are coarse, so three things follow, until the cost lies within 1 %
of the target: smaller steps are let in; steps are exchanged between two vectors; and, where no multiples
come near enough, single entries of as few vectors as possible are let in after all.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from compressor.coronet.landing import MINIMUM, land
from compressor.graph import ChannelGraph

_NEAR = 0.99  # of the target: near enough


@dataclass(frozen=True)
class _Vector:
    """One latent vector: its classes by falling score, and the widths it may have by rising number."""

    members: np.ndarray
    widths: tuple[int, ...]

    @classmethod
    def of(cls, members: np.ndarray, scores: np.ndarray, multiple: int, each: int) -> _Vector:
        """`each` channels are tied in every entry, so fewer entries make a multiple."""
        step = multiple // math.gcd(multiple, each)
        least = min(len(members), -(-MINIMUM // (each * step)) * step)
        widths = {*range(least, len(members) + 1, step), len(members)}
        return cls(members[np.argsort(-scores[members], kind="stable")], tuple(sorted(widths)))


def land_rounded(
    scores: np.ndarray,
    graph: ChannelGraph,
    cost: Callable[[np.ndarray], int],
    target: int,
    multiple: int,
) -> np.ndarray:
    """`compressor.coronet.landing.land` with rounded widths; arguments, result and errors as there.

    A target below the smallest network of such widths, or too far from all that can be made of them, is
    landed on with half the multiple, and so on.
    """
    groups = np.unique(graph.groups[graph.prunable])
    vectors = [
        _Vector.of(members, scores, multiple, int(graph.channels_each[members].min()))
        for members in (np.flatnonzero(graph.prunable & (graph.groups == group)) for group in groups)
    ]

    def keep(levels: list[int]) -> np.ndarray:
        """(classes,) for the width of each vector, as an index of its `widths`."""
        kept = ~graph.prunable
        for vector, level in zip(vectors, levels, strict=True):
            kept[vector.members[: vector.widths[level]]] = True
        return kept

    def spent(levels: list[int]) -> int:
        return cost(keep(levels))

    levels = [0] * len(vectors)
    if spent(levels) > target:
        return land(scores, graph, cost, target, max(1, multiple // 2))
    worth = [_worth(vector, scores) for vector in vectors]
    levels = _by_worth(levels, worth, spent, target)
    while spent(levels) < _NEAR * target:
        better = _exchange(levels, worth, spent, target)
        if better is None:
            kept = _single_entries(keep(levels), scores, vectors, levels, cost, target)
            if cost(kept) >= _NEAR * target:
                return kept
            finer = land(scores, graph, cost, target, max(1, multiple // 2))
            return max(kept, finer, key=cost)
        levels = better
    return keep(levels)


def _worth(vector: _Vector, scores: np.ndarray) -> list[float]:
    """Mean score of what each step after the first brings; falls from step to step."""
    return [float(scores[vector.members[a:b]].mean()) for a, b in itertools.pairwise(vector.widths)]


def _by_worth(
    levels: list[int], worth: list[list[float]], spent: Callable[[list[int]], int], target: int
) -> list[int]:
    """The steps of most worth that fit together, then any that still fit, in the order of worth."""
    steps = [(-value, index) for index, values in enumerate(worth) for value in values]
    order = [index for _, index in sorted(steps, key=lambda step: step[0])]

    def taken(count: int) -> list[int]:
        found = list(levels)
        for index in order[:count]:
            found[index] += 1
        return found

    low, high = 0, len(order)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if spent(taken(middle)) <= target else (low, middle - 1)
    found = taken(low)
    full: set[int] = set()
    for index in order[low:]:
        if index in full:  # a step of this vector did not fit: neither does the next
            continue
        found[index] += 1
        if spent(found) > target:
            found[index] -= 1
            full.add(index)
    return found


def _exchange(
    levels: list[int], worth: list[list[float]], spent: Callable[[list[int]], int], target: int
) -> list[int] | None:
    """One step less of a vector for some more of another, so that the cost comes nearer to the target.

    Of all exchanges that come near enough the one that loses least worth; else the nearest.
    """
    now, found, best = spent(levels), None, (False, -np.inf)
    for gives in range(len(levels)):
        if levels[gives] == 0:
            continue
        for takes in range(len(levels)):
            if takes == gives:
                continue
            tried = list(levels)
            tried[gives] -= 1
            loss = worth[gives][tried[gives]]
            while tried[takes] < len(worth[takes]):
                loss -= worth[takes][tried[takes]]
                tried[takes] += 1
                reached = spent(tried)
                if reached > target:
                    break
                near = reached >= _NEAR * target
                rank = (near, -loss if near else float(reached))
                if reached > now and rank > best:
                    found, best = list(tried), rank
    return found


def _single_entries(
    kept: np.ndarray,
    scores: np.ndarray,
    vectors: list[_Vector],
    levels: list[int],
    cost: Callable[[np.ndarray], int],
    target: int,
) -> np.ndarray:
    """Let single entries in, vector by vector, the vector with the best next entry first."""
    rest = [vector.members[vector.widths[level] :] for vector, level in zip(vectors, levels, strict=True)]
    for entries in sorted((r for r in rest if len(r)), key=lambda entries: -scores[entries[0]]):
        for entry in entries:
            kept[entry] = True
            if cost(kept) > target:
                kept[entry] = False
                break
        if cost(kept) >= _NEAR * target:
            break
    return kept
