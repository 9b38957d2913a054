"""A last convolution of few output channels, computed for several neighbouring columns at once.

Kernels on CPUs compute 8 or 16 output channels at a time whether there are so many or not, so the three
channels of a picture cost as much as sixteen. Here the channels of r neighbouring pixels are computed
together: a convolution of r * K channels and stride r, its kernel r - 1 columns wider, with zeros where a
column's own kernel does not reach; then a reshape. Of a kernel w columns wide (w + r - 1) / (w r) of the
kernel's turns are left: 0.36 for the last layer of CycleGAN's ResNet.
"""

from __future__ import annotations

import torch
from torch import fx
from torch.nn import functional as F

from compressor.quantisation.layers import CONVOLUTIONS, leads_to
from exporters import graph as g
from exporters.rewrite.interleave import interleave

_LANES = 16  # output channels that AVX-512 kernels compute at a time; those of NEON 8
_GAIN = 0.75  # of the turns left at the most, to be worth a reshape


def columns_at_once(outputs: int, kernel: int, width: int) -> int:
    """How many columns to compute together: 1 where nothing is gained.

    Args:
        outputs: the convolution's output channels.
        kernel: its width.
        width: of its output.
    """
    fitting = [count for count in range(1, _LANES // outputs + 1) if width % count == 0]
    best = min(fitting, key=lambda count: (kernel + count - 1) / count, default=1)
    return best if (kernel + best - 1) / (kernel * best) <= _GAIN else 1


def widened(weight: torch.Tensor, columns: int) -> torch.Tensor:
    """The kernel (K, C, h, w) for so many columns at once: (columns * K, C, h, w + columns - 1)."""
    return torch.cat([F.pad(weight, (column, columns - 1 - column)) for column in range(columns)])


def convolve(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: int,
    padding: list[int],
    columns: int,
) -> torch.Tensor:
    """Equal to `F.conv2d` with the kernel that was `widened`, one group and a stride of one across.

    Args:
        x: (N, C, H, W).
        weight: (columns * K, C, kernel height, kernel width + columns - 1).
        bias: (columns * K,) or None.
        stride: downwards.
        padding: (vertical, horizontal).
        columns: divide the output's width.
    """
    return interleave(F.conv2d(x, weight, bias, [stride, columns], padding), 1, columns)


def rewrite(graph: fx.GraphModule) -> int:
    """Replace every last convolution of fixed width and few channels that gains by it; returns how many.

    One in the middle stays: where another tensor meets its own, the reshape can cost transposes.
    """
    count = 0
    for node in g.calls(graph, torch.ops.aten.conv2d.default):
        weight, bias = (g.argument(node, position) for position in (1, 2))
        kernel, shift = g.constant(graph, weight), g.constant(graph, bias)
        stride, padding, dilation = (
            g.pair(g.argument(node, position, [default])) for position, default in ((3, 1), (4, 0), (5, 1))
        )
        width = node.meta["val"].shape[3]
        plain = g.argument(node, 6, 1) == 1 and stride[1] == 1 and dilation == [1, 1]
        if kernel is None or (shift is None) != (bias is None) or not plain or not isinstance(width, int):
            continue
        if leads_to(node, "users", CONVOLUTIONS):
            continue
        columns = columns_at_once(len(kernel), kernel.shape[3], width)
        if columns > 1:
            repeated = None if shift is None else shift.repeat(columns)
            g.set_weight(graph, node, widened(kernel, columns), repeated)
            x, weight, bias = node.args[:3]
            g.replace(node, convolve, x, weight, bias, stride[0], padding, columns)
            count += 1
    return count
