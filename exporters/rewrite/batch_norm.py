"""Batch norm with running statistics folded into the convolution before it.

Every converter does this in its own way; done here, a layer has the same weights and the same name
in all files, and INT8 is planned on the weights that are really stored.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from compressor.quantisation.layers import folding_norm
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
    for before in g.calls(graph, aten.conv2d.default, aten.conv_transpose2d.input):
        node = folding_norm(graph, before)
        if node is None:
            continue
        _, scale, shift, mean, variance, _, _, eps = node.args[:8]
        weight, bias = (g.constant(graph, g.argument(before, position)) for position in (1, 2))
        assert weight is not None
        figures: Any = [g.constant(graph, part) for part in (mean, variance, scale, shift)]  # type: ignore[arg-type]
        transposed = before.target is aten.conv_transpose2d.input
        new_weight, new_bias = fold(weight, bias, figures, float(eps), transposed)  # type: ignore[arg-type]
        g.set_weight(graph, before, new_weight, new_bias)
        node.replace_all_uses_with(before)
        graph.graph.erase_node(node)
        count += 1
    return count
