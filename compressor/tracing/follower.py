"""Following channels through steps without weights: functions and methods of tensors, cuts, joins, sums."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx

from compressor.tracing import steps
from compressor.tracing.identities import Count, Followed, Whole, Written
from compressor.tracing.moves import COUNTS, MIXES, NOT_LINED_UP, UNKNOWN, Moves


class Follower(Moves):
    """How each kind of step changes what is known of its operands; answers as those of `Moves`."""

    def step(self, node: Any, value: Any) -> Any:
        """Follow a function or a method of a tensor."""
        key = node.target
        if key is operator.getitem:
            return self._getitem(node, value)
        if key in steps.CONCATENATIONS or key is torch.stack:
            return self._join(node, value, stack=key is torch.stack)
        cuts = key in steps.SPLITS or key in steps.SIZED_MOVES or key in ("narrow", torch.narrow)
        if not cuts and any(len(count.ids) for count in self._sources(node, Count)):
            return COUNTS
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
        if key is F.glu:
            dim = steps.axes(steps.argument(node, 1, "dim", -1), value.dim())
            return self.halves(node, found, dim)
        if key in steps.ALONG_ONE_AXIS:
            position = 2 if getattr(key, "__name__", key) in ("roll", "normalize") else 1
            named = steps.argument(node, position, "dims", None)
            dims = steps.axes(steps.argument(node, position, "dim", named), value.dim())
            apart = dims is not None and found.axis not in dims and value.shape == self.env[source].shape
            return found if apart else MIXES
        if key in steps.SPATIAL or key is F.instance_norm:
            plain = len(node.all_input_nodes) == 1 or key is not F.instance_norm
            return found if found.axis == value.dim() - 3 and plain else UNKNOWN
        if key is F.pad:
            padded = len(steps.argument(node, 1, "pad", ())) // 2
            return found if found.axis < value.dim() - padded else "it pads channels"
        if key in (torch.pixel_shuffle, torch.pixel_unshuffle, torch.channel_shuffle):
            return self.shuffle(node, str(getattr(key, "__name__", "")), found, int(self._arguments(node)[1]))
        if key in steps.SIZED_MOVES or key in steps.MOVES:
            return self.move(node, found, value)
        return UNKNOWN

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
        names = ("dim", "start", "length")
        numbers = [kwargs[name] if name in kwargs else args[i] for i, name in enumerate(names, start=1)]
        if not all(isinstance(number, int) for number in numbers):
            return UNKNOWN
        dim, start, length = (int(number) for number in numbers)
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
        tensors = [
            source for source in node.all_input_nodes if isinstance(self.env.get(source), torch.Tensor)
        ]
        placed = []  # (what is known, its axis counted from the result's front, how far the operand is moved)
        for source in tensors:
            found, moved = self.ids.get(source), rank - self.env[source].dim()
            if not isinstance(found, (Followed, Whole, type(None))):
                return UNKNOWN
            placed.append((found, found.axis + moved if isinstance(found, Followed) else None, moved))
        single = [
            f for f, axis, _ in placed if isinstance(f, Followed) and value.shape[axis or 0] != len(f.ids)
        ]
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
                return "one of its operands keeps all its channels"
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
