"""Following channels through views, permutations and shuffles.

They are run on the identities themselves, so what they do need not be written down here. Where a view cuts a
channel axis in two (as in a channel shuffle), the channels that share a place along the one axis are tied, so
that what remains is again a table without gaps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import fx, nn

from compressor.tracing import steps
from compressor.tracing.identities import Channels, Count, Followed, Ids, Shape, Whole, Written

NOT_LINED_UP = "the channels of its operands do not line up"
MIXES = "it mixes its channels with each other"
UNKNOWN = "its channels cannot be followed"
COUNTS = "the number of channels enters its arithmetic"


class Moves(fx.Interpreter):
    """What is known of each value in a network, and how steps that only move numbers change it.

    A step's method answers with what came out, or with the reason (str) why its channels stay whole.

    Attributes:
        channels: all identities.
        splits: identities of each part of each split, by node name.
        written: steps with numbers of channels in them, by node name.
        counted: those of both whose numbers are computed from a tensor's channels.
        ties: steps that want groups equally wide, and the identities in these groups.
        ids: what is known of the value of each node.
    """

    def __init__(self, traced: fx.GraphModule):
        super().__init__(traced)
        self.channels = Channels()
        self.splits: dict[str, tuple[Ids, ...]] = {}
        self.written: dict[str, Written] = {}
        self.counted: set[str] = set()
        self.ties: list[tuple[fx.Node, Ids]] = []
        self.ids: dict[fx.Node, Any] = {}

    # -- channels and height, channels and groups -------------------------------------------------

    def shuffle(self, node: fx.Node, which: str, found: Followed, factor: int) -> Any:
        """Pixel shuffle, pixel unshuffle or channel shuffle of channels before height and width."""
        if found.axis != 1:
            return UNKNOWN
        if which == "pixel_unshuffle":
            return Followed(np.repeat(found.ids, factor**2), 1)
        if which == "pixel_shuffle":  # output channel c is made of inputs c*s^2 ... c*s^2 + s^2 - 1
            blocks = found.ids.reshape(-1, factor**2)
            self.channels.tie_rows(blocks.T)
            return Followed(blocks[:, 0].copy(), 1)
        groups = found.ids.reshape(factor, -1)  # output channel i*g + j is input channel j*(c/g) + i
        self.tie(node, groups)
        return Followed(groups.T.ravel(), 1)

    def halves(self, node: fx.Node, found: Followed, dim: list[int] | None) -> Any:
        """A gated linear unit: the first half of an axis times the sigmoid of the second."""
        if dim != [found.axis]:
            return found
        table = found.ids.reshape(2, -1)
        self.tie(node, table)
        return Followed(table[0].copy(), found.axis)

    def tie(self, node: fx.Node, table: Ids) -> None:
        """Tie the columns of `table` for a step that wants all its rows equally long."""
        self.channels.tie_rows(table)
        self.ties.append((node, table.ravel()))

    # -- moves -------------------------------------------------------------------------------------

    def move(self, node: Any, found: Followed, value: torch.Tensor, layer: nn.Module | None = None) -> Any:
        """A permutation, view, expansion or repetition, run on the identities."""
        args, kwargs = self.fetch_args_kwargs_from_env(node)
        if not args:
            return UNKNOWN
        shape = args[0].shape
        roots = self.channels.roots_of(found.ids)
        spread = torch.from_numpy(roots.astype(np.int32)).reshape(
            [-1 if axis == found.axis else 1 for axis in range(len(shape))]
        )
        spread = spread.expand(shape).contiguous()
        if len(set(roots.tolist())) == 1:
            self.channels.freeze(found.ids)  # a single class cannot go, so the shape never changes
            return Whole()
        if layer is not None:
            moved = layer(spread)
        elif node.op == "call_method":
            moved = getattr(spread, node.target)(*args[1:], **kwargs)
        else:
            moved = node.target(spread, *args[1:], **kwargs)
        varying = [axis for axis in range(moved.dim()) if not bool((moved == moved.narrow(axis, 0, 1)).all())]
        sized = layer is None and node.target in steps.SIZED_MOVES
        sizes = steps.rewritable(node, value.dim()) if sized else None
        axis = self._free_axis(varying, moved, sizes)
        if len(varying) > 1:
            table = moved[tuple(slice(None) if other in varying else 0 for other in range(moved.dim()))]
            table = table.movedim(varying.index(axis), -1).reshape(-1, moved.shape[axis])
            self.tie(node, table.numpy().astype(np.int64))
        line = moved[tuple(slice(None) if other == axis else 0 for other in range(moved.dim()))]
        made = Followed(line.numpy().astype(np.int64), axis)
        if sized:
            return self._sized(node, sizes, found, made)
        counted = any(len(count.ids) for count in self._sources(node, Count))
        return "the number of channels enters its sizes" if counted else made

    def _free_axis(self, varying: list[int], moved: torch.Tensor, sizes: Any) -> int:
        """The axis that is pruned where channels lie along several: one whose size follows from the channels'
        number, or the longest, or the first; never the batch's if another will do."""

        def fitness(axis: int) -> tuple[bool, bool, int, int]:
            size = sizes[axis] if sizes is not None and len(sizes) == moved.dim() else None
            counted = self.ids.get(size) if isinstance(size, fx.Node) else None
            follows = size == -1 or (isinstance(counted, Count) and len(counted.ids) > 0)
            return axis > 0, bool(follows), moved.shape[axis], -axis

        return max(varying, key=fitness)

    def _sized(self, node: fx.Node, sizes: Any, found: Followed, made: Followed) -> Any:
        """A view: have the size along its channels rewritten where it does not follow by itself."""
        if sizes is None:  # the whole shape of another tensor
            shape = next((shape for shape in self._sources(node, Shape)), None)
            if shape is None or shape.source.axis != made.axis or len(shape.source.ids) != len(made.ids):
                return "its sizes are those of another tensor"
            self.channels.unite(shape.source.ids, made.ids)
            return made
        for axis, size in enumerate(sizes):
            counted = self.ids.get(size) if isinstance(size, fx.Node) else None
            if axis != made.axis and isinstance(counted, Count) and len(counted.ids):
                return "the number of channels enters several of its sizes"
        size = sizes[made.axis]
        if not isinstance(size, fx.Node):
            if size != -1 and made.axis == 0:
                return "channels lie along its batch axis"
            if size != -1:
                self.written[node.name] = Written("size", made.axis, (made.ids,))
            return made
        counted = self.ids.get(size)
        if isinstance(counted, Count) and not counted.mixed and made.axis > 0:
            self.written[node.name] = Written("size", made.axis, (made.ids,))
            self._note_counts(node)
            return made
        same = isinstance(counted, Count) and np.array_equal(
            np.unique(self.channels.roots_of(counted.ids)), np.unique(self.channels.roots_of(made.ids))
        )
        return made if same else "its sizes do not follow its channels"

    def _like_another(self, node: fx.Node, key: str, found: Followed, value: torch.Tensor) -> Any:
        others = self._sources(node, Followed)
        if len(others) > 2 or len(node.all_input_nodes) != 2:
            return UNKNOWN
        other = self.ids.get(node.all_input_nodes[1])
        if key != "expand_as" or not isinstance(other, Followed):
            return UNKNOWN
        if len(found.ids) == 1:
            self.channels.freeze(found.ids)
            return other
        source = self.env[node.all_input_nodes[0]]
        if found.axis + value.dim() - source.dim() != other.axis or len(found.ids) != len(other.ids):
            return NOT_LINED_UP
        self.channels.unite(found.ids, other.ids)
        return other

    # -- helpers -----------------------------------------------------------------------------------

    def _note_counts(self, node: fx.Node) -> None:
        """Remember a step whose numbers change with the channels of whatever tensor they were counted on."""
        if any(len(count.ids) for count in self._sources(node, Count)):
            self.counted.add(node.name)

    def _arguments(self, node: fx.Node) -> list[Any]:
        """All arguments as values, those by name last."""
        args, kwargs = self.fetch_args_kwargs_from_env(node)
        return [*args, *kwargs.values()]

    def _sources(self, node: fx.Node, kind: type) -> list[Any]:
        """What is known of a step's arguments, where it is of this kind."""
        return [self.ids[source] for source in node.all_input_nodes if isinstance(self.ids.get(source), kind)]
