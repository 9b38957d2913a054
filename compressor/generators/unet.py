"""The U-Net generator of Pix2Pix (Isola et al. 2017).

Module names equal those of junyanz/pytorch-CycleGAN-and-pix2pix, so its state dicts load as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from compressor.errors import PocketganError
from compressor.generators.layers import BATCH_NOTE, infer_norm, norm_slot, numbered
from compressor.generators.spec import ImageFormat

if TYPE_CHECKING:
    from torch import Tensor

SLOPE = 0.2  # of the encoder's LeakyReLU


class UnetBlock(nn.Module):
    """One level and all levels inside it.

    Halves height and width, runs the inner level, doubles them again, and (but for the outermost)
    puts its input before its result: (N, C, H, W) -> (N, 2C, H, W).

    Args:
        outside: channels on the outside, of input (but for the outermost) and result.
        inside: channels after the convolution down.
        inner: the next level, or None for the innermost.
        image_channels: of the outermost level: channels of the input image.
        norm, bias, statistics: see `UnetGenerator`.
    """

    def __init__(
        self,
        outside: int,
        inside: int,
        inner: UnetBlock | None,
        image_channels: int | None,
        norm: str,
        bias: bool,
        statistics: str,
    ):
        super().__init__()
        self.outermost = image_channels is not None
        down = nn.Conv2d(image_channels or outside, inside, 4, 2, padding=1, bias=bias)
        up = nn.ConvTranspose2d(
            inside if inner is None else 2 * inside, outside, 4, 2, padding=1, bias=bias or self.outermost
        )
        after_up = norm_slot(norm, outside, statistics)
        layers: list[nn.Module | None]
        if self.outermost:
            layers = [down, inner, nn.ReLU(), up, nn.Tanh()]
        elif inner is None:
            layers = [nn.LeakyReLU(SLOPE), down, nn.ReLU(), up, *after_up]
        else:
            after_down = norm_slot(norm, inside, statistics)
            layers = [nn.LeakyReLU(SLOPE), down, *after_down, inner, nn.ReLU(), up, *after_up]
        self.model = numbered(layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x) if self.outermost else torch.cat([x, self.model(x)], 1)


class UnetGenerator(nn.Module):
    """Image to image, (N, input_channels, H, W) in [-1, 1] -> (N, output_channels, H, W) in [-1, 1].

    H and W are multiples of 2 ** depth. Upstream's test code leaves dropout on, which makes its results
    random; here it is off, so the same image gives the same result.

    Args:
        input_channels: channels of the input image.
        output_channels: channels of the output image.
        width: channels after the first convolution (upstream's ngf); doubled thrice on the way down.
        depth: times the image is halved: 8 for unet_256, 7 for unet_128.
        norm: "instance", "batch" or "none".
        bias: whether the normalised convolutions have a bias (upstream: under instance norm).
        statistics: of batch norm: "image" (batch statistics at batch 1, as upstream tests) or "running".
    """

    def __init__(
        self,
        input_channels: int = 3,
        output_channels: int = 3,
        width: int = 64,
        depth: int = 8,
        norm: str = "batch",
        bias: bool = False,
        statistics: str = "image",
    ):
        super().__init__()
        if depth < 2:
            raise PocketganError("a U-Net has two levels or more", got=depth)
        channels = [width * min(2**level, 8) for level in range(depth)]
        block: UnetBlock | None = None
        for level in range(depth - 1, 0, -1):
            block = UnetBlock(channels[level - 1], channels[level], block, None, norm, bias, statistics)
        self.model = UnetBlock(output_channels, width, block, input_channels, norm, bias, statistics)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def infer(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """Constructor arguments from a state dict's {name: shape}, or None where the first layer is missing."""
    first, last = shapes.get("model.model.0.weight"), shapes.get("model.model.3.weight")
    if first is None or len(first) != 4:
        return None
    second = prefix = "model.model.1.model."
    depth = 2
    while f"{prefix}3.model.1.weight" in shapes:
        prefix, depth = f"{prefix}3.model.", depth + 1
    norm, bias = infer_norm(shapes, f"{second}2", f"{second}1")
    return {
        "input_channels": first[1],
        "output_channels": last[1] if last and len(last) == 4 else 3,
        "width": first[0],
        "depth": depth,
        "norm": norm,
        "bias": bias,
        "statistics": "image",
    }


def image_format(arguments: Mapping[str, Any]) -> ImageFormat:
    """Pictures in [-1, 1] both ways, of the smallest size the depth allows, as upstream trains."""
    side = 2 ** arguments["depth"]
    channels = (arguments["input_channels"], arguments["output_channels"])
    return ImageFormat(size=(side, side), multiple=side, channels=channels)


def notes(arguments: Mapping[str, Any]) -> list[str]:
    """What the checkpoint does not tell and `infer` assumed."""
    assumed = ["upstream's test code leaves dropout on; here it is off"]
    if arguments["norm"] == "batch" and arguments["statistics"] == "image":
        assumed.append(BATCH_NOTE)
    return assumed
