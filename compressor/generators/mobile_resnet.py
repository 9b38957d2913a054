"""GAN Compression's compressed generator (Li et al., CVPR 2020): CycleGAN's ResNet with separable blocks.

The shape of its sub_mobile_resnet_9blocks, whose every width is its own; module names equal upstream's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from compressor.errors import PocketganError
from compressor.generators.layers import BATCH_NOTE, infer_norm, norm_slot, numbered
from compressor.generators.spec import ImageFormat

if TYPE_CHECKING:
    import torch

BLOCKS_BEGIN = 10  # index of the first residual block in `model`


class SeparableConv(nn.Module):
    """Depthwise 3x3 without padding, norm, then 1x1: (N, inputs, H, W) -> (N, outputs, H-2, W-2)."""

    def __init__(self, inputs: int, outputs: int, norm: str, bias: bool, statistics: str):
        super().__init__()
        self.conv = numbered(
            [
                nn.Conv2d(inputs, inputs, 3, groups=inputs, bias=bias),
                *norm_slot(norm, inputs, statistics),
                nn.Conv2d(inputs, outputs, 1, bias=bias),
            ]
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


class MobileResnetBlock(nn.Module):
    """x + separable(relu(separable(x))), `inner` channels between the two; shape unchanged."""

    def __init__(self, width: int, inner: int, norm: str, bias: bool, statistics: str, dropout_slot: bool):
        super().__init__()
        self.conv_block = numbered(
            [
                nn.ReflectionPad2d(1),
                SeparableConv(width, inner, norm, bias, statistics),
                *norm_slot(norm, inner, statistics),
                nn.ReLU(),
                *([None] if dropout_slot else []),  # dropout is off, but upstream's names count it
                nn.ReflectionPad2d(1),
                SeparableConv(inner, width, norm, bias, statistics),
                *norm_slot(norm, width, statistics),
            ]
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv_block(x)


class MobileResnetGenerator(nn.Module):
    """Image to image, (N, input_channels, H, W) in [-1, 1] -> (N, output_channels, H, W) in [-1, 1].

    H and W are multiples of 4.

    Args:
        input_channels: channels of the input image.
        output_channels: channels of the output image.
        down: channels after each of the first three convolutions.
        inner: channels inside each residual block, one number a block.
        up: channels after each of the two transposed convolutions.
        norm: "instance", "batch" or "none".
        bias: whether the normalised convolutions have a bias.
        statistics: of batch norm: "image" (each image's own) or "running".
        dropout_slot: the blocks' second convolution is named one later, as upstream always does.
    """

    def __init__(
        self,
        input_channels: int = 3,
        output_channels: int = 3,
        down: Sequence[int] = (16, 32, 128),
        inner: Sequence[int] = (64,) * 3 + (128,) * 6,
        up: Sequence[int] = (32, 16),
        norm: str = "instance",
        bias: bool = True,
        statistics: str = "image",
        dropout_slot: bool = True,
    ):
        super().__init__()
        if len(down) != 3 or len(up) != 2:
            raise PocketganError("a mobile ResNet has 3 widths down and 2 up", got=f"{down}, {up}")

        def normalised(channels: int) -> list[nn.Module | None]:
            return [*norm_slot(norm, channels, statistics), nn.ReLU()]

        layers: list[nn.Module | None] = [
            nn.ReflectionPad2d(3),
            nn.Conv2d(input_channels, down[0], 7, bias=bias),
            *normalised(down[0]),
            nn.Conv2d(down[0], down[1], 3, stride=2, padding=1, bias=bias),
            *normalised(down[1]),
            nn.Conv2d(down[1], down[2], 3, stride=2, padding=1, bias=bias),
            *normalised(down[2]),
        ]
        for width in inner:
            layers.append(MobileResnetBlock(down[2], width, norm, bias, statistics, dropout_slot))
        for before, after in zip((down[2], up[0]), up, strict=True):
            layers.append(nn.ConvTranspose2d(before, after, 3, 2, padding=1, output_padding=1, bias=bias))
            layers += normalised(after)
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(up[1], output_channels, 7), nn.Tanh()]
        self.model = numbered(layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)


def infer(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """Constructor arguments from a state dict's {name: shape}, or None where no separable block is found."""
    blocks = sorted(
        int(found[1])
        for key in shapes
        if (found := re.fullmatch(r"model\.(\d+)\.conv_block\.1\.conv\.2\.weight", key))
    )
    stem = [shapes.get(f"model.{index}.weight", ()) for index in (1, 4, 7)]
    if not blocks or any(len(shape) != 4 for shape in stem):
        return None
    end = blocks[-1] + 1
    last = shapes.get(f"model.{end + 7}.weight", ())
    up = [shapes.get(f"model.{index}.weight", ()) for index in (end, end + 3)]
    norm, bias = infer_norm(shapes, "model.2", "model.1")
    return {
        "input_channels": stem[0][1],
        "output_channels": last[0] if last else 3,
        "down": [shape[0] for shape in stem],
        "inner": [shapes[f"model.{index}.conv_block.1.conv.2.weight"][0] for index in blocks],
        "up": [shape[1] if len(shape) == 4 else 1 for shape in up],
        "norm": norm,
        "bias": bias,
        "statistics": "image",
        "dropout_slot": f"model.{blocks[0]}.conv_block.5.conv.2.weight" not in shapes,
    }


def image_format(arguments: Mapping[str, Any]) -> ImageFormat:
    """Pictures in [-1, 1] both ways, 256x256 as upstream trains."""
    return ImageFormat(multiple=4, channels=(arguments["input_channels"], arguments["output_channels"]))


def notes(arguments: Mapping[str, Any]) -> list[str]:
    """What the checkpoint does not tell and `infer` assumed."""
    return [BATCH_NOTE] if arguments["norm"] == "batch" and arguments["statistics"] == "image" else []
