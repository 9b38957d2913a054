"""Batch norm on the batch's own statistics, as Pix2Pix runs it at test time, as an instance norm.

For one picture the batch's mean and variance are the picture's own, so the two are the same
operation; no runtime has a kernel for the first.
"""

from __future__ import annotations

import torch
from torch import fx

from exporters import graph as g


def rewrite(graph: fx.GraphModule) -> int:
    """Replace every batch norm that normalises a single picture by its own statistics; returns how many."""
    aten, count = torch.ops.aten, 0
    for node in g.calls(graph, aten.batch_norm.default):
        x, weight, bias, _, _, own_statistics, momentum, eps = node.args[:8]
        if own_statistics and len(g.shape(node)) == 4 and g.shape(node)[0] == 1:
            g.replace(
                node, aten.instance_norm.default, x, weight, bias, None, None, True, momentum, eps, False
            )
            count += 1
    return count
