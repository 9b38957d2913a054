"""The ResNet generator of CycleGAN and Pix2Pix (Johnson et al. 2016; Zhu et al. 2017).

Module names equal those of junyanz/pytorch-CycleGAN-and-pix2pix, so its state dicts load as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from compressor.errors import PocketganError
from compressor.generators.layers import BATCH_NOTE, infer_norm, norm_slot, numbered, padded_conv
from compressor.generators.spec import ImageFormat

if TYPE_CHECKING:
    import torch

BLOCKS_BEGIN = 10  # index of the first residual block in `model`


class ResnetBlock(nn.Module):
    """x + conv3(relu(norm(conv3(x)))), each convolution normalised; shape and range unchanged."""

    def __init__(self, width: int, norm: str, bias: bool, statistics: str, padding: str, dropout_slot: bool):
        super().__init__()
        layers: list[nn.Module | None] = [
            *padded_conv(width, width, 3, padding, bias),
            *norm_slot(norm, width, statistics),
            nn.ReLU(),
            # Dropout has no parameters and is off in a trained generator, but it moves later names by one.
            *([None] if dropout_slot else []),
            *padded_conv(width, width, 3, padding, bias),
            *norm_slot(norm, width, statistics),
        ]
        self.conv_block = numbered(layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv_block(x)


class ResnetGenerator(nn.Module):
    """Image to image, (N, input_channels, H, W) in [-1, 1] -> (N, output_channels, H, W) in [-1, 1].

    H and W are multiples of 4. Dropout is off in every mode.

    Args:
        input_channels: channels of the input image.
        output_channels: channels of the output image.
        width: channels after the first convolution (upstream's ngf); twice and four times that below.
        blocks: residual blocks.
        norm: "instance", "batch" or "none".
        bias: whether the normalised convolutions have a bias (upstream: under instance norm).
        statistics: of batch norm: "image" (batch statistics at batch 1, as upstream tests) or "running".
        padding: of the residual blocks: "reflect", "replicate" or "zero".
        dropout_slot: the blocks' second convolution is named one later, as when trained with dropout.
        upsampling: "transposed", or the fork that resizes and convolves: "resize-pad" (resize, reflect,
            convolve) or "resize" (resize, convolve with zero padding).
        resize_mode: of the fork: "bilinear" or "nearest".
    """

    def __init__(
        self,
        input_channels: int = 3,
        output_channels: int = 3,
        width: int = 64,
        blocks: int = 9,
        norm: str = "instance",
        bias: bool = True,
        statistics: str = "image",
        padding: str = "reflect",
        dropout_slot: bool = False,
        upsampling: str = "transposed",
        resize_mode: str = "bilinear",
    ):
        super().__init__()

        def normalised(channels: int) -> list[nn.Module | None]:
            return [*norm_slot(norm, channels, statistics), nn.ReLU()]

        layers: list[nn.Module | None] = [
            nn.ReflectionPad2d(3),
            nn.Conv2d(input_channels, width, 7, bias=bias),
            *normalised(width),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=bias),
            *normalised(2 * width),
            nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1, bias=bias),
            *normalised(4 * width),
        ]
        for _ in range(blocks):
            layers.append(ResnetBlock(4 * width, norm, bias, statistics, padding, dropout_slot))
        for channels in (4 * width, 2 * width):
            layers += _upsampling(upsampling, resize_mode, channels, channels // 2, bias)
            layers += normalised(channels // 2)
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(width, output_channels, 7), nn.Tanh()]
        self.model = numbered(layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)


def _upsampling(kind: str, mode: str, inputs: int, outputs: int, bias: bool) -> list[nn.Module]:
    """Layers that double height and width."""
    resize = nn.Upsample(scale_factor=2, mode=mode)
    match kind:
        case "transposed":
            return [nn.ConvTranspose2d(inputs, outputs, 3, 2, padding=1, output_padding=1, bias=bias)]
        case "resize-pad":
            return [resize, *padded_conv(inputs, outputs, 3, "reflect", bias)]
        case "resize":
            return [resize, *padded_conv(inputs, outputs, 3, "zero", bias)]
    raise PocketganError("no such upsampling", got=kind, allowed="transposed, resize-pad, resize")


def infer(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """Constructor arguments from a state dict's {name: shape}, or None where the first layer is missing.

    Where the keys are not those of this family, the arguments are the nearest guess: the caller compares.
    Reflect or replicate padding, and the fork's resize mode, leave no trace: see `notes`.
    """
    first = shapes.get("model.1.weight")
    if first is None or len(first) != 4:
        return None
    blocks = {int(found[1]) for key in shapes if (found := re.match(r"model\.(\d+)\.conv_block\.\d", key))}
    end = max(blocks, default=BLOCKS_BEGIN - 1) + 1
    block = re.escape(f"model.{end - 1}.conv_block.")
    convs = {
        int(found[1])
        for key, shape in shapes.items()
        if len(shape) == 4 and (found := re.fullmatch(rf"{block}(\d+)\.weight", key))
    }
    norm, bias = infer_norm(shapes, "model.2", "model.1")
    if f"model.{end + 2}.weight" in shapes and f"model.{end}.weight" not in shapes:
        upsampling, last = "resize-pad", end + 11
    elif f"model.{end + 1}.weight" in shapes and f"model.{end}.weight" not in shapes:
        upsampling, last = "resize", end + 9
    else:
        upsampling, last = "transposed", end + 7
    return {
        "input_channels": first[1],
        "output_channels": shapes.get(f"model.{last}.weight", (3,))[0],
        "width": first[0],
        "blocks": max(0, end - BLOCKS_BEGIN),
        "norm": norm,
        "bias": bias,
        "statistics": "image",
        "padding": "zero" if 0 in convs else "reflect",
        "dropout_slot": convs in ({1, 6}, {0, 4}),
        "upsampling": upsampling,
        "resize_mode": "bilinear",
    }


def image_format(arguments: Mapping[str, Any]) -> ImageFormat:
    """Pictures in [-1, 1] both ways, 256x256 as upstream trains."""
    return ImageFormat(multiple=4, channels=(arguments["input_channels"], arguments["output_channels"]))


def notes(arguments: Mapping[str, Any]) -> list[str]:
    """What the checkpoint does not tell and `infer` assumed."""
    assumed = []
    if arguments["norm"] == "batch" and arguments["statistics"] == "image":
        assumed.append(BATCH_NOTE)
    if arguments["upsampling"] != "transposed":
        assumed.append(
            f"resizing before convolutions leaves no trace in a checkpoint: {arguments['resize_mode']} is "
            "assumed; the other is resize_mode nearest"
        )
    return assumed
