"""Transposed convolutions as convolutions that compute all pixels of a stride's cell at once.

A transposed convolution of stride s gives s pixels for each of its input, in every direction, and each sees
few of the input's pixels. So a convolution of s * s * K channels over the small picture gives the same; its
channels are then put in their places. `benchmarks.exports` times the files beside those with transposed ones.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import fx
from torch.nn import functional as F

from exporters import graph as g
from exporters.rewrite.edges import cut, pad
from exporters.rewrite.interleave import MOST_ROWS, interleave


@dataclass(frozen=True)
class Axis:
    """One direction of a transposed convolution as a convolution over cells of `stride` outputs.

    With u the outputs before any are cropped, u[f] = sum of x[q] w[f - s q], cell i holds u[s i + phase] to
    u[s i + phase + s - 1], which read x[i + first] to x[i + first + taps - 1].

    Attributes:
        stride: s.
        phase: where a cell begins.
        first, taps: what a cell reads.
        pads: pixels that the input needs before and after it (less than none: that it has too many).
        crop: outputs of the first cell that are not wanted.
        size: outputs that are.
    """

    stride: int
    phase: int
    first: int
    taps: int
    pads: tuple[int, int]
    crop: int
    size: int

    @classmethod
    def of(cls, size: int, kernel: int, stride: int, padding: int, extra: int) -> Axis:
        """With cells that begin at the first output wanted, unless cropped ones read less.

        Args:
            size: of the input.
            kernel, stride, padding: of the transposed convolution.
            extra: its output padding.
        """
        found = [
            cls._at(phase, size, kernel, stride, padding, extra)
            for phase in dict.fromkeys([padding % stride, 0])
        ]
        return min(found, key=lambda axis: axis.taps)

    @classmethod
    def _at(cls, phase: int, size: int, kernel: int, stride: int, padding: int, extra: int) -> Axis:
        wanted = (size - 1) * stride - 2 * padding + kernel + extra
        first, last = -((kernel - 1 - phase) // stride), (phase + stride - 1) // stride
        begin, crop = divmod(padding - phase, stride)
        cells = -(-(crop + wanted) // stride)
        taps = last - first + 1
        before = -(begin + first)
        return cls(stride, phase, first, taps, (before, cells + taps - 1 - size - before), crop, wanted)

    def tap(self, output: int, entry: int) -> int:
        """The kernel's tap for the output and the input at these places of a cell."""
        return self.phase + output - self.stride * (self.first + entry)


def kernel_of(weight: torch.Tensor, rows: Axis, columns: Axis) -> torch.Tensor:
    """The kernel (s * s * K, C, taps, taps) for a weight (C, K, h, w), in `interleave`'s order."""
    inputs, outputs, height, width = weight.shape
    made = weight.new_zeros(rows.stride, columns.stride, outputs, inputs, rows.taps, columns.taps)
    for row, down in itertools.product(range(rows.stride), range(rows.taps)):
        for column, across in itertools.product(range(columns.stride), range(columns.taps)):
            i, j = rows.tap(row, down), columns.tap(column, across)
            if 0 <= i < height and 0 <= j < width:
                made[row, column, :, :, down, across] = weight[:, :, i, j].T
    return made.flatten(0, 2)


def convolve(
    x: torch.Tensor,
    kernel: torch.Tensor,
    bias: torch.Tensor | None,
    pads: list[int],
    stride: list[int],
    crop: list[int],
    size: list[int],
) -> torch.Tensor:
    """Equal to `F.conv_transpose2d` with the weight that `kernel_of` was made of.

    Args:
        x: (N, C, H, W).
        kernel: as `kernel_of` gives it.
        bias: (s * s * K,) or None.
        pads: left, right, top, bottom.
        stride, crop, size: of the rows and of the columns, as `Axis` has them.
    """
    left, right, top, bottom = pads
    if left == right >= 0 and top == bottom >= 0:
        found = F.conv2d(x, kernel, bias, padding=[top, left])
    else:
        found = F.conv2d(pad(x, pads), kernel, bias)
    found = interleave(found, *stride)
    for axis, first, count in zip((2, 3), crop, size, strict=True):
        if found.shape[axis] != count:
            found = cut(found, axis, first, first + count)
    return found


def rewrite(graph: fx.GraphModule) -> int:
    """Replace every transposed convolution of one group and constant weight; returns how many."""
    count = 0
    for node in g.calls(graph, torch.ops.aten.conv_transpose2d.input):
        x, weight, bias = (g.argument(node, position) for position in range(3))
        kernel, shift = g.constant(graph, weight), g.constant(graph, bias)
        stride, padding, extra, dilation = (
            g.pair(g.argument(node, position, [default]))
            for position, default in ((3, 1), (4, 0), (5, 0), (7, 1))
        )
        plain = g.argument(node, 6, 1) == 1 and dilation == [1, 1] and stride[0] <= MOST_ROWS
        if kernel is None or (shift is None) != (bias is None) or not plain:
            continue
        rows, columns = map(Axis.of, g.shape(x)[2:], kernel.shape[2:], stride, padding, extra)
        repeated = None if shift is None else shift.repeat(stride[0] * stride[1])
        g.set_weight(graph, node, kernel_of(kernel, rows, columns), repeated)
        crop, size = [rows.crop, columns.crop], [rows.size, columns.size]
        g.replace(node, convolve, *node.args[:3], [*columns.pads, *rows.pads], stride, crop, size)
        count += 1
    return count
