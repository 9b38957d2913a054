"""Transposed convolutions in a form that converts, and converts rightly.

litert_torch refuses some (kernel 3, stride 2, padding 1, output padding 1) and converts others
wrongly without a word (output padding with kernel 4). Two exact changes make all of them safe:

- output padding asks for outputs that only taps beyond the kernel could reach, so a kernel with
  that many zero taps at its end and no output padding gives the same picture;
- TFLite knows two paddings: none, and the one for which output = input * stride, where
  2 * padding = kernel - stride. Any other padding is computed without and then cut off.
"""

from __future__ import annotations

import torch
from torch import fx
from torch.nn import functional as F

from exporters import graph as g


def transposed_convolution(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: list[int],
    padding: list[int],
    output_padding: list[int],
) -> torch.Tensor:
    """Equal to `F.conv_transpose2d` with one group and no dilation.

    Args:
        x: (N, C, H, W).
        weight: (C, K, kernel height, kernel width).
        bias: (K,) or None.
        stride, padding, output_padding: (vertical, horizontal).
    """
    if any(output_padding):
        weight = extended(weight, output_padding)
    grows_by_stride = all(2 * p == k - s for p, k, s in zip(padding, weight.shape[2:], stride, strict=True))
    if grows_by_stride or not any(padding):
        return F.conv_transpose2d(x, weight, bias, stride, padding)
    full = F.conv_transpose2d(x, weight, bias, stride)
    height, width = full.shape[2] - 2 * padding[0], full.shape[3] - 2 * padding[1]
    return full.narrow(2, padding[0], height).narrow(3, padding[1], width)


def extended(weight: torch.Tensor, output_padding: list[int]) -> torch.Tensor:
    """The kernel with zero taps at its end, as many as there is output padding."""
    return F.pad(weight, (0, output_padding[1], 0, output_padding[0]))


def rewrite(graph: fx.GraphModule) -> int:
    """Replace every transposed convolution of one group in the graph; returns how many."""
    count = 0
    for node in g.calls(graph, torch.ops.aten.conv_transpose2d.input):
        x, weight, bias = (g.argument(node, position) for position in range(3))
        stride = g.pair(g.argument(node, 3, [1]))
        padding, output_padding = g.pair(g.argument(node, 4, [0])), g.pair(g.argument(node, 5, [0]))
        if g.argument(node, 6, 1) == 1 and g.pair(g.argument(node, 7, [1])) == [1, 1]:
            kernel, shift = g.constant(graph, weight), g.constant(graph, bias)
            if any(output_padding) and kernel is not None and (shift is None) == (bias is None):
                # Now rather than in the graph: the converter does not fold operations on large constants.
                g.set_weight(graph, node, extended(kernel, output_padding), shift)
                _, weight, bias = node.args[:3]
                output_padding = [0, 0]
            g.replace(node, transposed_convolution, x, weight, bias, stride, padding, output_padding)
            count += 1
    return count
