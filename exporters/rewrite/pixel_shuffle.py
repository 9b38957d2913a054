"""Pixel shuffle in channels-last order: one transpose and two reshapes instead of four and three."""

from __future__ import annotations

import torch
from torch import fx

from exporters import graph as g


def pixel_shuffle(x: torch.Tensor, factor: int) -> torch.Tensor:
    """Equal to `F.pixel_shuffle(x, factor)` for (N, C * factor^2, H, W)."""
    count, channels, height, width = x.shape
    rest = channels // factor**2
    split = x.permute(0, 2, 3, 1).reshape(count, height, width, rest, factor, factor)
    grown = split.permute(0, 1, 4, 2, 5, 3).reshape(count, height * factor, width * factor, rest)
    return grown.permute(0, 3, 1, 2)


def rewrite(graph: fx.GraphModule) -> int:
    """Replace every pixel shuffle of (N, C, H, W) in the graph; returns how many."""
    count = 0
    for node in g.calls(graph, torch.ops.aten.pixel_shuffle.default):
        if len(g.shape(node)) == 4:
            g.replace(node, pixel_shuffle, *node.args[:2])
            count += 1
    return count
