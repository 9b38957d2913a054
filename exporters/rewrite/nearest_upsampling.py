"""Nearest-neighbour upsampling by whole factors as concatenations and reshapes.

LiteRT's RESIZE_NEAREST_NEIGHBOR is not delegated to XNNPACK.
"""

from __future__ import annotations

import torch
from torch import fx

from exporters import graph as g


def upsample_nearest(x: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Repeat every pixel of (N, C, H, W) `rows` times downwards and `columns` times across."""
    count, channels, height, width = x.shape
    last = x.permute(0, 2, 3, 1)
    if columns > 1:
        last = torch.cat([last] * columns, 3).reshape(count, height, width * columns, channels)
    if rows > 1:
        flat = last.reshape(count, height, width * columns * channels)
        last = torch.cat([flat] * rows, 2).reshape(count, height * rows, width * columns, channels)
    return last.permute(0, 3, 1, 2)


def rewrite(graph: fx.GraphModule) -> int:
    """Replace every nearest upsampling by whole factors in the graph; returns how many."""
    aten, count = torch.ops.aten, 0
    for node in g.calls(graph, aten.upsample_nearest2d.vec, aten.upsample_nearest2d.default):
        before = node.args[0]
        assert isinstance(before, fx.Node)
        (_, _, height, width), (_, _, grown_height, grown_width) = g.shape(before), g.shape(node)
        if grown_height % height == 0 and grown_width % width == 0:
            g.replace(node, upsample_nearest, before, grown_height // height, grown_width // width)
            count += 1
    return count
