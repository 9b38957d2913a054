"""Reflection padding as concatenated one-pixel slices.

LiteRT's MIRROR_PAD is not delegated to XNNPACK: each one would end a partition. Slices and
concatenations are, as long as a concatenation has at most five inputs. The converter merges a
concatenation of concatenations, so the edges are joined across the other axis and reshaped.
"""

from __future__ import annotations

import torch
from torch import fx

from exporters import graph as g

_JOINED = 4  # lines joined at a time; two such groups on either side of the picture make five inputs


def reflection_pad(x: torch.Tensor, padding: list[int]) -> torch.Tensor:
    """Equal to `F.pad(x, padding, mode="reflect")` for (N, C, H, W) and (left, right, top, bottom) >= 0."""
    left, right, top, bottom = padding
    last = x.permute(0, 2, 3, 1)
    return _reflect(_reflect(last, 1, top, bottom), 2, left, right).permute(0, 3, 1, 2)


def _reflect(x: torch.Tensor, axis: int, before: int, after: int) -> torch.Tensor:
    """Reflect (N, H, W, C) over both ends of axis 1 or 2."""
    side = x.shape[axis]
    first = _lines(x, axis, list(range(before, 0, -1)))
    last = _lines(x, axis, [side - 2 - index for index in range(after)])
    parts = [*first, x, *last]
    return torch.cat(parts, axis) if len(parts) > 1 else x


def _lines(x: torch.Tensor, axis: int, indices: list[int]) -> list[torch.Tensor]:
    """The lines at these indices, in order, in pieces of up to four lines."""
    pieces = []
    for start in range(0, len(indices), _JOINED):
        lines = [x.narrow(axis, index, 1) for index in indices[start : start + _JOINED]]
        shape = list(lines[0].shape)
        shape[axis] = len(lines)
        pieces.append(torch.cat(lines, axis + 1).reshape(shape) if len(lines) > 1 else lines[0])
    return pieces


def rewrite(graph: fx.GraphModule) -> int:
    """Replace every reflection padding of a picture in the graph; returns how many."""
    aten, count = torch.ops.aten, 0
    for node in g.calls(graph, aten.pad.default, aten.reflection_pad2d.default):
        padding = list(g.argument(node, 1))
        if node.target is aten.pad.default and g.argument(node, 2, "constant") != "reflect":
            continue
        if len(g.shape(node)) == 4 and len(padding) <= 4 and min(padding) >= 0:
            g.replace(node, reflection_pad, node.args[0], padding + [0] * (4 - len(padding)))
            count += 1
    return count
