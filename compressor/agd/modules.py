"""Layers and operators of a search space as plain modules, and the chain they stand in."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.agd.operators import Layer, Operator
from compressor.agd.space import Residual


class UnitTanh(nn.Module):
    """(tanh(x) + 1) / 2: pictures in [0, 1]."""

    def forward(self, x: Tensor) -> Tensor:
        return (torch.tanh(x) + 1) / 2


def make_layer(layer: Layer, inputs: int, outputs: int) -> nn.Module:
    """A layer of an operator that reads `inputs` and makes `outputs` channels; PyTorch's fresh weights."""
    reads, makes = layer.reads(inputs, outputs), layer.makes(inputs, outputs)
    kernel, stride, bias, margin = layer.kernel, layer.stride, layer.bias, layer.kernel // 2
    match layer.kind:
        case "conv":
            return nn.Conv2d(reads, makes, kernel, stride, margin, bias=bias)
        case "depthwise":
            return nn.Conv2d(reads, makes, kernel, stride, margin, groups=reads, bias=bias)
        case "transposed":
            return nn.ConvTranspose2d(reads, makes, kernel, stride, margin, stride - 1, bias=bias)
        case "norm":
            return nn.InstanceNorm2d(reads)
        case "relu":
            return nn.ReLU()
        case "leaky_relu":
            return nn.LeakyReLU(layer.slope)
        case "tanh":
            return nn.Tanh()
        case "unit_tanh":
            return UnitTanh()
        case "nearest":
            return nn.Upsample(scale_factor=layer.factor, mode="nearest")
        case "shuffle":
            return nn.PixelShuffle(layer.factor)
    raise AssertionError(layer.kind)


class PlainOperator(nn.Module):
    """An operator at one pair of widths: (N, inputs, H, W) -> (N, outputs, scale H, scale W).

    `bridged`: its shortcut has layers at equal widths too, which no network of a space has (see `latency`).
    """

    def __init__(self, operator: Operator, inputs: int, outputs: int, *, bridged: bool = False):
        super().__init__()
        parts = {
            name: nn.Sequential(*(make_layer(layer, inputs, outputs) for layer in layers))
            for name, layers in operator.parts(inputs, outputs, bridged=bridged).items()
        }
        self.body, self.shortcut, self.last = parts["body"], parts["shortcut"], parts["last"]
        self.has_body, self.has_shortcut = bool(operator.body), operator.shortcut is not None

    def forward(self, x: Tensor) -> Tensor:
        if not self.has_body:
            return self.last(self.shortcut(x))
        y = self.body(x)
        return self.last(y + self.shortcut(x) if self.has_shortcut else y)


def run_chain(
    image: Tensor,
    steps: Sequence[Callable[[Tensor], Tensor]],
    residuals: Sequence[Residual],
    base: str | None,
    scale: int,
) -> Tensor:
    """A picture through all positions, with the sums around them.

    Args:
        image: (N, C, H, W).
        steps: what each position does.
        residuals: sums, the outer before the inner where they begin together.
        base: how the enlarged picture is made that the result is added to; None: nothing is added.
        scale: what the whole enlarges by.
    """
    x = image
    waiting: list[tuple[Residual, Tensor]] = []
    for index, step in enumerate(steps):
        waiting += [(residual, x) for residual in residuals if residual.first == index]
        x = step(x)
        while waiting and waiting[-1][0].last == index:
            residual, before = waiting.pop()
            x = before + (x if residual.scale == 1 else residual.scale * x)
    if base == "bilinear":
        return x + F.interpolate(image, scale_factor=float(scale), mode="bilinear", align_corners=False)
    if base == "nearest":
        return x + F.interpolate(image, scale_factor=float(scale), mode="nearest")
    return x
