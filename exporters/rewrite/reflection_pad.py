"""Reflection padding as concatenated one-pixel slices.

LiteRT's MIRROR_PAD is not delegated to XNNPACK: each one would end a partition. Slices and
concatenations are, as long as a concatenation has at most four inputs.
"""

from __future__ import annotations

import torch
from torch import fx

from exporters import graph as g

_JOINED = 4  # inputs of one concatenation


def reflection_pad(x: torch.Tensor, padding: list[int]) -> torch.Tensor:
    """Equal to `F.pad(x, padding, mode="reflect")` for (N, C, H, W) and (left, right, top, bottom) >= 0."""
    left, right, top, bottom = padding
    return _reflect(_reflect(x, 2, top, bottom), 3, left, right)


def _reflect(x: torch.Tensor, axis: int, before: int, after: int) -> torch.Tensor:
    side = x.shape[axis]
    lines = [x.narrow(axis, index, 1) for index in range(before, 0, -1)]
    lines.append(x)
    lines += [x.narrow(axis, side - 2 - index, 1) for index in range(after)]
    while len(lines) > 1:
        lines = [
            torch.cat(lines[start : start + _JOINED], axis)
            if len(lines[start : start + _JOINED]) > 1
            else lines[start]
            for start in range(0, len(lines), _JOINED)
        ]
    return lines[0]


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
