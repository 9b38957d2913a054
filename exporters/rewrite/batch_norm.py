"""Batch norm with running statistics folded into the convolution before it.

Every converter does this in its own way; done here, a layer has the same weights and the same name
in all files, and INT8 is planned on the weights that are really stored.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from exporters import graph as g


def fold(
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    figures: tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None],
    eps: float,
    transposed: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias of the convolution that does both.

    They are w * s and (b - mean) * s + shift, with s = scale / sqrt(variance + eps).

    Args:
        weight: (K, C, kh, kw), or (C, K, kh, kw) of a transposed convolution.
        bias: (K,) or None.
        figures: the norm's running mean and variance, its scale and its shift, all (K,).
        eps: as in the norm.
        transposed: whose weight it is.
    """
    mean, variance, scale, shift = figures
    factor = torch.rsqrt(variance + eps)
    factor = factor if scale is None else factor * scale
    start = torch.zeros_like(mean) if bias is None else bias
    new_bias = (start - mean) * factor + (0 if shift is None else shift)
    return weight * factor.reshape((1, -1, 1, 1) if transposed else (-1, 1, 1, 1)), new_bias


def rewrite(graph: fx.GraphModule) -> int:
    """Fold every norm that alone reads a convolution of constant weight; returns how many."""
    aten, count = torch.ops.aten, 0
    for node in g.calls(graph, aten.batch_norm.default):
        before, scale, shift, mean, variance, own_statistics, _, eps = node.args[:8]
        if own_statistics or not isinstance(before, fx.Node) or set(before.users) != {node}:
            continue
        transposed = before.target is aten.conv_transpose2d.input
        if not (transposed or before.target is aten.conv2d.default):
            continue
        if transposed and g.argument(before, 6, 1) != 1:
            continue
        weight = g.constant(graph, g.argument(before, 1))
        if weight is None:
            continue
        bias = g.constant(graph, g.argument(before, 2))
        if bias is None and g.argument(before, 2) is not None:
            continue
        figures: Any = [g.constant(graph, part) for part in (mean, variance, scale, shift)]  # type: ignore[arg-type]
        new_weight, new_bias = fold(weight, bias, figures, float(eps), transposed)  # type: ignore[arg-type]
        g.set_weight(graph, before, new_weight, new_bias)
        node.replace_all_uses_with(before)
        graph.graph.erase_node(node)
        count += 1
    return count
