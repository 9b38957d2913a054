"""Pixel shuffle in channels-last order.

Where a convolution alone gives what is shuffled, its outputs are put in another order, and no transpose is
left (`interleave`). Elsewhere it takes one transpose and two reshapes instead of four and three.
"""

from __future__ import annotations

import torch
from torch import fx

from exporters import graph as g
from exporters.rewrite.interleave import MOST_ROWS, interleave


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
            x, factor = (g.argument(node, position) for position in (0, 1))
            if factor <= MOST_ROWS and _reordered(graph, x, factor):
                g.replace(node, interleave, x, factor, factor)
            else:
                g.replace(node, pixel_shuffle, x, factor)
            count += 1
    return count


def _reordered(graph: fx.GraphModule, node: fx.Node, factor: int) -> bool:
    """Put a convolution's channels in `interleave`'s order if only the shuffle reads them; tells whether."""
    if node.target is not torch.ops.aten.conv2d.default or len(node.users) != 1:
        return False
    weight, bias = (g.argument(node, position) for position in (1, 2))
    kernel, shift = g.constant(graph, weight), g.constant(graph, bias)
    if kernel is None or (shift is None) != (bias is None) or g.argument(node, 6, 1) != 1:
        return False
    order = torch.arange(len(kernel)).reshape(-1, factor**2).T.flatten()
    g.set_weight(graph, node, kernel[order], None if shift is None else shift[order])
    return True
