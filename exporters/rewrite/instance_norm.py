"""Instance norm as mean, difference and reciprocal root.

litert_torch lowers the operation to ten others, two of them transposes; written out, it needs none.
"""

from __future__ import annotations

import torch
from torch import fx

from exporters import graph as g


def instance_norm(
    x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, eps: float
) -> torch.Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias over each picture's own H and W, for (N, C, H, W).

    The variance is the biased one, as in `F.instance_norm`; it is the mean square of the
    difference, which loses no digits to cancellation.
    """
    last = x.permute(0, 2, 3, 1)  # the axes as LiteRT has them: no transposes, whatever stands around it
    difference = last - last.mean((1, 2), keepdim=True)
    inverse = torch.rsqrt((difference * difference).mean((1, 2), keepdim=True) + eps)
    if weight is not None:
        inverse = inverse * weight
    normal = difference * inverse
    if bias is not None:
        normal = normal + bias
    return normal.permute(0, 3, 1, 2)


def rewrite(graph: fx.GraphModule) -> int:
    """Replace every instance norm that uses the picture's own statistics; returns how many."""
    count = 0
    for node in g.calls(graph, torch.ops.aten.instance_norm.default):
        x, weight, bias, _, _, own_statistics, _, eps = node.args[:8]
        if own_statistics and len(g.shape(node)) == 4:
            g.replace(node, instance_norm, x, weight, bias, eps)
            count += 1
    return count
