"""A factor behind a convolution (ESRGAN scales its residuals by 0.2) as part of the convolution.

Converters do this too, and leave the weight without its name: INT8 would not find the layer again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from exporters import graph as g


def rewrite(graph: fx.GraphModule) -> int:
    """Fold every number that alone a convolution of constant weight is multiplied by; returns how many."""
    aten, count = torch.ops.aten, 0
    for node in g.calls(graph, aten.mul.Tensor, aten.mul.Scalar):
        before, factor = node.args
        if not isinstance(before, fx.Node):
            before, factor = factor, before
        if isinstance(factor, (int, float)) and isinstance(before, fx.Node):
            count += _fold(graph, node, before, float(factor))
    if count:
        graph.graph.eliminate_dead_code()
        graph.recompile()
    return count


def _fold(graph: fx.GraphModule, node: fx.Node, convolution: fx.Node, factor: float) -> bool:
    aten = torch.ops.aten
    if convolution.target not in (aten.conv2d.default, aten.conv_transpose2d.input):
        return False
    weight, bias = (g.argument(convolution, position) for position in (1, 2))
    values, shift = g.constant(graph, weight), g.constant(graph, bias)
    if len(convolution.users) > 1 or values is None or (shift is None) != (bias is None):
        return False
    scaled: Any = None if shift is None else shift * factor
    g.set_weight(graph, convolution, values * factor, scaled)
    node.replace_all_uses_with(convolution)
    graph.graph.erase_node(node)
    return True
