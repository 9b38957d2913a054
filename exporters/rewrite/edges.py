"""Constants around a picture, and rows and columns cut off, in LiteRT's order of axes.

Between operations that are written out in that order (`instance_norm`, `interleave`) the converter would move
the axes there and back for a PAD or a SLICE in PyTorch's. It also moves axes around a PAD in LiteRT's own, so
constants are concatenated.
"""

from __future__ import annotations

import torch
from torch import fx

from exporters import graph as g


def pad(x: torch.Tensor, padding: list[int], value: float = 0.0) -> torch.Tensor:
    """Equal to `F.pad(x, padding, value=value)` for (N, C, H, W) and (left, right, top, bottom)."""
    left, right, top, bottom = padding
    last = _pad(_pad(x.permute(0, 2, 3, 1), 1, top, bottom, value), 2, left, right, value)
    return last.permute(0, 3, 1, 2)


def _pad(x: torch.Tensor, axis: int, before: int, after: int, value: float) -> torch.Tensor:
    """Constants around (N, H, W, C) along an axis; lines are cut off where there is less than none."""
    x = x.narrow(axis, max(-before, 0), x.shape[axis] + min(before, 0) + min(after, 0))
    sides = [_side(x, axis, count, value) for count in (before, after) if count > 0]
    if not sides:
        return x
    return torch.cat([*sides[: before > 0], x, *sides[before > 0 :]], axis)


def _side(x: torch.Tensor, axis: int, count: int, value: float) -> torch.Tensor:
    """Lines of a constant; computed from as many of the picture's, since a file would hold each number."""
    if count > x.shape[axis]:
        return x.new_full([*x.shape[:axis], count, *x.shape[axis + 1 :]], value)
    lines = x.narrow(axis, 0, count)
    nought = lines - lines  # the converter turns a product with 0 into numbers of the file again
    return nought + value if value else nought


def cut(x: torch.Tensor, axis: int, *bounds: int | None) -> torch.Tensor:
    """Equal to `x[:, :, slice(*bounds)]` (axis 2) or `x[:, :, :, slice(*bounds)]` (axis 3)."""
    where = [slice(None)] * 4
    where[axis - 1] = slice(*bounds)
    return x.permute(0, 2, 3, 1)[tuple(where)].permute(0, 3, 1, 2)


def rewrite(graph: fx.GraphModule) -> int:
    """Replace every padding with a constant and every cut through height or width; returns how many."""
    aten, count = torch.ops.aten, 0
    for node in g.calls(graph, aten.pad.default, aten.constant_pad_nd.default):
        x, padding = g.argument(node, 0), list(g.argument(node, 1))
        moded = node.target is aten.pad.default
        value = g.argument(node, 3 if moded else 2) or 0.0
        if (moded and g.argument(node, 2, "constant") != "constant") or len(padding) > 4:
            continue
        if len(g.shape(node)) == 4:
            g.replace(node, pad, x, padding + [0] * (4 - len(padding)), float(value))
            count += 1
    for node in g.calls(graph, aten.slice.Tensor):
        x, axis, *bounds = (g.argument(node, position) for position in range(5))
        if len(g.shape(node)) == 4 and axis in (2, 3, -1, -2):
            g.replace(node, cut, x, axis % 4, *bounds)
            count += 1
    return count
