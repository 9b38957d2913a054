"""Following channels through steps that move values about: views, cuts, joins, sums.

Views, permutations and the like are run on the identities themselves, so what they do need not be written
down here. Where a view cuts a channel axis in two (as in a channel shuffle), the channels that share a place
along the one axis are tied, so that what remains is again a table without gaps.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from compressor import steps
from compressor.identities import Channels, Count, Followed, Ids, Shape, Whole, Written

NOT_LINED_UP = "the channels of its operands do not line up"
MIXES = "it mixes its channels with each other"
UNKNOWN = "its channels cannot be followed"


class Follower(fx.Interpreter):
    """What is known of each value in a network, and how steps without weights change it.

    A step's method answers with what came out, or with the reason (str) why its channels stay whole.
    """

    def __init__(self, traced: fx.GraphModule):
        super().__init__(traced)
        self.channels = Channels()
        self.splits: dict[str, tuple[Ids, ...]] = {}
        self.written: dict[str, Written] = {}
        self.counted: set[str] = set()
        self.ties: list[tuple[fx.Node, Ids]] = []
        self.ids: dict[fx.Node, Any] = {}

    def step(self, node: Any, value: Any) -> Any:
        """Follow a function or a method of a tensor."""
        key = steps.key(node)
        if key is operator.getitem:
            return self._getitem(node, value)
        if key in steps.CONCATENATIONS or key is torch.stack:
            return self._join(node, value, stack=key is torch.stack)
        cuts = key in steps.SPLITS or key in steps.SIZED_MOVES or key in ("narrow", torch.narrow)
        if not cuts and any(len(count.ids) for count in self._sources(node, Count)):
            return "the number of channels enters its arithmetic"
        if key in steps.ELEMENTWISE:
            return self._elementwise(node, value)
        source = steps.argument(node, 0, "input", None)
        found = self.ids.get(source) if isinstance(source, fx.Node) else None
        if not isinstance(found, Followed):
            return UNKNOWN
        if key in ("expand_as", "view_as", "reshape_as"):
            return self._like_another(node, key, found, value)
        if len(self._sources(node, Followed)) > 1 and not steps.only_a_type(node):
            return UNKNOWN
        if key in steps.SPLITS:
            return self._split(node, found, value)
        if key in ("narrow", torch.narrow):
            return self._narrow(node, found)
        if key in ("unbind", torch.unbind):
            return self._unbind(node, found, value)
        if key in steps.POINTWISE:
            return found
        if key in steps.REDUCTIONS:
            return self._reduce(node, found, value)
        if key in steps.ALONG_ONE_AXIS:
            position = 2 if getattr(key, "__name__", key) in ("roll", "normalize") else 1
            dim = steps.axes(steps.argument(node, position, "dim", steps.argument(node, position, "dims", None)),
                             value.dim())  # fmt: skip
            return MIXES if dim is None or found.axis in dim or value.shape != self.env[source].shape else found
        if key in steps.SPATIAL or key is torch.nn.functional.instance_norm:
            plain = len(node.all_input_nodes) == 1 or key is not torch.nn.functional.instance_norm
            return found if found.axis == value.dim() - 3 and plain else UNKNOWN
        if key is torch.nn.functional.pad:
            padded = len(steps.argument(node, 1, "pad", ())) // 2
            return found if found.axis < value.dim() - padded else "it pads channels"
        if key in (torch.pixel_shuffle, torch.pixel_unshuffle, torch.channel_shuffle):
            return self.shuffle(node, str(getattr(key, "__name__", "")), found, int(self._arguments(node)[1]))
        if key in steps.SIZED_MOVES or key in steps.MOVES:
            return self.move(node, found, value)
        return UNKNOWN

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
        sized = layer is None and steps.key(node) in steps.SIZED_MOVES
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
            counted = isinstance(size, fx.Node) and isinstance(self.ids.get(size), Count)
            follows = size == -1 or (counted and len(self.ids[size].ids) > 0)
            return axis > 0, bool(follows), moved.shape[axis], -axis

        return max(varying, key=fitness)

    def _sized(self, node: fx.Node, sizes: Any, found: Followed, made: Followed) -> Any:
        """A view: have the size along its channels rewritten where it does not follow by itself."""
        if sizes is None:  # the whole shape of another tensor
            shape = next((shape for shape in self._sources(node, Shape)), None)
            fits = shape is not None and shape.source.axis == made.axis
            if not fits or len(shape.source.ids) != len(made.ids):
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

    # -- cuts --------------------------------------------------------------------------------------

    def _split(self, node: fx.Node, found: Followed, value: Any) -> Any:
        dim = steps.axes(steps.argument(node, 2, "dim", 0), value[0].dim())
        if dim != [found.axis]:
            return tuple(found for _ in value)
        bounds = np.cumsum([part.shape[found.axis] for part in value])[:-1]
        parts = tuple(np.split(found.ids, bounds))
        self.splits[node.name] = parts
        self._note_counts(node)
        return tuple(Followed(part, found.axis) for part in parts)

    def _narrow(self, node: fx.Node, found: Followed) -> Any:
        args, kwargs = self.fetch_args_kwargs_from_env(node)
        dim, start, length = (kwargs.get(n, args[i] if len(args) > i else None)
                              for i, n in ((1, "dim"), (2, "start"), (3, "length")))  # fmt: skip
        if not all(isinstance(number, int) for number in (dim, start, length)):
            return UNKNOWN
        if dim % args[0].dim() != found.axis:
            return found
        start %= len(found.ids)
        return self._cut(node, found, 0, start, start + length, found.axis)

    def _cut(self, node: fx.Node, found: Followed, position: int, start: int, stop: int, axis: int) -> Any:
        before, part, after = np.split(found.ids, [start, stop])
        self.written[node.name] = Written("slice", position, (before, part, after))
        self._note_counts(node)
        return Followed(part, axis) if len(part) else UNKNOWN

    def _unbind(self, node: fx.Node, found: Followed, value: Any) -> Any:
        dim = steps.axes(steps.argument(node, 1, "dim", 0), value[0].dim() + 1)
        if dim is None or dim[0] == found.axis:
            return "it takes its channels apart one by one"
        return tuple(Followed(found.ids, found.axis - (dim[0] < found.axis)) for _ in value)

    def _getitem(self, node: Any, value: Any) -> Any:
        source, index = self._arguments(node)[:2]
        found = self.ids.get(node.args[0])
        if isinstance(found, tuple):
            return found[index] if isinstance(index, (int, slice)) else UNKNOWN
        if not isinstance(found, Followed) or not isinstance(source, torch.Tensor):
            return UNKNOWN
        items = index if isinstance(index, tuple) else (index,)
        if not all(item is None or item is Ellipsis or type(item) in (int, slice) for item in items):
            return UNKNOWN
        used = sum(item is not None and item is not Ellipsis for item in items)
        axis, made, cut = 0, 0, None
        lands = None
        for position, item in enumerate(items):
            span = source.dim() - used if item is Ellipsis else 0 if item is None else 1
            here = axis <= found.axis < axis + span
            if here and isinstance(item, int):
                return "it picks one channel"
            if here:
                lands = made + found.axis - axis
                cut = (position, item) if isinstance(item, slice) and item != slice(None) else None
            axis += span
            made += 1 if item is None else 0 if isinstance(item, int) else span
        lands = made + found.axis - axis if lands is None else lands
        if cut is None:
            return Followed(found.ids, lands)
        start, stop, stride = cut[1].indices(len(found.ids))
        if stride != 1:
            return "it takes every so-manieth channel"
        return self._cut(node, found, cut[0], start, max(start, stop), lands)

    # -- joins -------------------------------------------------------------------------------------

    def _join(self, node: Any, value: torch.Tensor, *, stack: bool) -> Any:
        listed = steps.argument(node, 0, "tensors", ())
        whole = isinstance(listed, fx.Node)
        parts: Any = self.ids.get(listed) if whole else [self.ids.get(part) for part in listed]
        shapes = self.env[listed] if whole else [self.env[part] for part in listed]
        dim = steps.axes(steps.argument(node, 1, "dim", 0), value.dim())
        known = [part for part in parts or () if isinstance(part, Followed)]
        if dim is None or not known or len({part.axis for part in known}) != 1:
            return NOT_LINED_UP
        if any(not isinstance(part, (Followed, Whole)) for part in parts):
            return UNKNOWN
        axis = known[0].axis
        pieces = [
            part.ids if isinstance(part, Followed) else self.channels.new(shape.shape[axis], frozen=True)
            for part, shape in zip(parts, shapes, strict=True)
        ]
        if not stack and dim[0] == axis:
            return Followed(np.concatenate(pieces), axis)
        for piece in pieces[1:]:
            self.channels.unite(piece, pieces[0])
        return Followed(pieces[0], axis + (stack and dim[0] <= axis))

    def _elementwise(self, node: fx.Node, value: Any) -> Any:
        """Tie the operands' channels; a single channel is spread over the others'."""
        if not isinstance(value, torch.Tensor):
            return UNKNOWN
        rank = value.dim()
        tensors = [source for source in node.all_input_nodes if isinstance(self.env.get(source), torch.Tensor)]
        placed = []  # (what is known, its axis counted from the result's front, how far the operand is moved)
        for source in tensors:
            found, moved = self.ids.get(source), rank - self.env[source].dim()
            if not isinstance(found, (Followed, Whole, type(None))):
                return UNKNOWN
            placed.append((found, found.axis + moved if isinstance(found, Followed) else None, moved))
        single = [f for f, axis, _ in placed if isinstance(f, Followed) and value.shape[axis or 0] != len(f.ids)]
        for found in single:  # a single channel that is spread over many
            self.channels.freeze(found.ids)
        full = [(f, axis) for f, axis, _ in placed if isinstance(f, Followed) and f not in single]
        if not full:
            return Whole()
        axis = full[0][1]
        if len({place for _, place in full}) != 1 or axis is None:
            return NOT_LINED_UP
        for (found, _, moved), source in zip(placed, tensors, strict=True):
            shape = self.env[source].shape
            if isinstance(found, Whole) and axis >= moved and shape[axis - moved] != 1:
                self.channels.freeze(full[0][0].ids)
        for found, _ in full[1:]:
            self.channels.unite(found.ids, full[0][0].ids)
        return Followed(full[0][0].ids, axis)

    def _reduce(self, node: fx.Node, found: Followed, value: Any) -> Any:
        source = self._arguments(node)[0]
        dims = steps.axes(steps.argument(node, 1, "dim", None), source.dim())
        if dims is None or not isinstance(value, torch.Tensor) or found.axis in dims:
            return MIXES
        dropped = sum(dim < found.axis for dim in dims) if value.dim() < source.dim() else 0
        return Followed(found.ids, found.axis - dropped)

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
