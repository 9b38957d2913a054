"""Layers and operators of a search space as plain modules, and the chain they stand in."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.agd.operators import KERNELS, Layer, Operator
from compressor.agd.space import Residual

_BRANCH = 0.02  # of fresh weights before a sum; of 0.3, 0.1 and 0.02 the last trained best (EDSR-like, x4)
_PICTURE = 0.1  # of fresh weights of a network's last convolution


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


@torch.no_grad()
def initialise(
    operator: Operator, body: Iterable[nn.Module], shortcut: Iterable[nn.Module], *, last: bool
) -> None:
    """Fresh weights that a network without norms can be trained from, however deep it is.

    PyTorch's own make every convolution's output about a sixth of its input (in variance, with a ReLU),
    which a norm undoes and nothing else: after ten of them nothing is left. So: He's (He et al., ICCV 2015,
    arXiv 1502.01852), no biases, and what is added to a shortcut begins small. Operators with norms stay as
    they are.

    Args:
        operator: what it is.
        body, shortcut: its modules, one for each layer.
        last: whether it makes a network's picture, which then begins near its base, or grey.
    """
    if any(layer.kind == "norm" for layer in operator.body):
        return
    kernels = [
        *((layer, module, 2.0) for layer, module in zip(operator.body, body, strict=True)),
        # At equal widths a shortcut has no modules.
        *((layer, module, 1.0) for layer, module in zip(operator.shortcut or (), shortcut, strict=False)),
    ]
    end: Tensor | None = None
    for layer, module, gain in kernels:
        if layer.kind not in KERNELS:
            continue
        weight = module.get_parameter("weight")
        sums = weight[:, 0] if layer.kind == "transposed" else weight[0]
        nn.init.normal_(weight, std=math.sqrt(gain * layer.stride**2 / sums.numel()))
        if layer.bias:
            nn.init.zeros_(module.get_parameter("bias"))
        end = weight if gain == 2.0 else end
    if end is not None:
        end.mul_((_PICTURE if last else 1.0) * (1.0 if operator.shortcut is None else _BRANCH))


class PlainOperator(nn.Module):
    """An operator at one pair of widths: (N, inputs, H, W) -> (N, outputs, scale H, scale W).

    Args:
        last: whether it makes a network's picture.
        bridged: its shortcut has layers at equal widths too, which no network of a space has (see `latency`).
    """

    def __init__(
        self, operator: Operator, inputs: int, outputs: int, *, last: bool = False, bridged: bool = False
    ):
        super().__init__()
        parts = {
            name: nn.Sequential(*(make_layer(layer, inputs, outputs) for layer in layers))
            for name, layers in operator.parts(inputs, outputs, bridged=bridged).items()
        }
        self.body, self.shortcut, self.last = parts["body"], parts["shortcut"], parts["last"]
        self.has_body, self.has_shortcut = bool(operator.body), operator.shortcut is not None
        initialise(operator, self.body, self.shortcut, last=last)

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
        base: how the enlarged picture is made that the result is added to ("input": it is not enlarged);
            None: nothing is added.
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
    if base == "input":
        return x + image
    if base == "bilinear":
        return x + F.interpolate(image, scale_factor=float(scale), mode="bilinear", align_corners=False)
    if base == "nearest":
        return x + F.interpolate(image, scale_factor=float(scale), mode="nearest")
    return x
