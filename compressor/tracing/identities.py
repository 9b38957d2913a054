"""Channel identities: who must live and die together, and what is known of each value in a network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Ids = np.ndarray
KERNEL_KINDS = ("conv", "transposed", "linear")  # layers that mix channels, with a weight for each pair


class Channels:
    """Channel identities with union-find: equal roots must live and die together."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self.frozen: set[int] = set()

    def new(self, count: int, *, frozen: bool = False) -> Ids:
        """Make `count` fresh identities."""
        start = len(self._parent)
        self._parent.extend(range(start, start + count))
        if frozen:
            self.frozen.update(range(start, start + count))
        return np.arange(start, start + count)

    def freeze(self, ids: Ids) -> None:
        """Never remove these."""
        self.frozen.update(ids.tolist())

    def unite(self, left: Ids, right: Ids) -> None:
        """Tie the i-th of `left` to the i-th of `right`."""
        for a, b in zip(left.tolist(), right.tolist(), strict=True):
            self._parent[self._root(a)] = self._root(b)

    def tie_rows(self, table: Ids) -> None:
        """Tie all entries of each column of `table` (rows, columns)."""
        for row in table[1:]:
            self.unite(row, table[0])

    def roots(self) -> np.ndarray:
        """The root of every identity, (count,) int64."""
        return np.array([self._root(index) for index in range(len(self._parent))], np.int64)

    def roots_of(self, ids: Ids) -> Ids:
        """The root of each of `ids`, of the same shape."""
        return np.array([self._root(index) for index in ids.ravel().tolist()], np.int64).reshape(ids.shape)

    def all_frozen(self, ids: Ids) -> bool:
        """Whether none of these can be removed, as far as is known by now."""
        frozen = {self._root(index) for index in self.frozen}
        return all(self._root(index) in frozen for index in ids.tolist())

    def _root(self, index: int) -> int:
        while self._parent[index] != index:
            self._parent[index] = self._parent[self._parent[index]]
            index = self._parent[index]
        return index


@dataclass(frozen=True, eq=False)
class Followed:
    """A tensor whose channels are known: `ids` (channels,) along `axis`, the same at all other places."""

    ids: Ids
    axis: int


@dataclass(frozen=True)
class Whole:
    """A tensor that keeps its shape, whatever is pruned."""


@dataclass(frozen=True, eq=False)
class Count:
    """A number computed from tensors' sizes.

    Attributes:
        ids: the channels that were counted for it; (0,) where only batch, height or width were.
        mixed: whether batch, height or width entered too.
    """

    ids: Ids
    mixed: bool


@dataclass(frozen=True, eq=False)
class Shape:
    """The whole shape of a followed tensor of `dims` dimensions."""

    source: Followed
    dims: int


@dataclass
class LayerUse:
    """The identities a layer reads and makes; several uses of a shared layer are tied together."""

    inputs: Ids
    outputs: Ids
    kind: str
    pair_macs: int
    groups: int = 1


@dataclass(frozen=True, eq=False)
class Written:
    """A step in which channel counts are written as numbers; they must change with the channels.

    Attributes:
        kind: "slice" (start and end of a cut) or "size" (a size in a view, or a parameter's own).
        position: of a slice, its place in the index; of a size, its axis.
        parts: of a slice, the identities before, in and after it; of a size, those along the axis.
    """

    kind: str
    position: int
    parts: tuple[Ids, ...]
