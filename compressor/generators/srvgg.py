"""SRVGGNetCompact, the small upscaler of Real-ESRGAN (realesr-animevideov3, realesr-general-x4v3)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.nn import functional as F

from compressor.errors import PocketganError
from compressor.generators.spec import ImageFormat

if TYPE_CHECKING:
    import torch

SLOPE = 0.1  # of LeakyReLU


class SRVGGNetCompact(nn.Module):
    """Upscaler, (N, input_channels, H, W) in [0, 1] -> (N, output_channels, scale H, scale W), not clamped.

    Convolutions at low resolution, pixel shuffle, and the nearest-neighbour enlarged input on top.

    Args:
        input_channels: channels of the input image.
        output_channels: channels of the output image, the same number (or the input has 1).
        features: channels of every inner convolution.
        convolutions: inner convolutions, without the first and the last.
        scale: output side over input side.
        activation: "prelu", "relu" or "leaky_relu".
    """

    def __init__(
        self,
        input_channels: int = 3,
        output_channels: int = 3,
        features: int = 64,
        convolutions: int = 16,
        scale: int = 4,
        activation: str = "prelu",
    ):
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(input_channels, features, 3, padding=1)]
        layers.append(_activation(activation, features))
        for _ in range(convolutions):
            layers.append(nn.Conv2d(features, features, 3, padding=1))
            layers.append(_activation(activation, features))
        layers.append(nn.Conv2d(features, output_channels * scale**2, 3, padding=1))
        self.body = nn.ModuleList(layers)
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        detail = x
        for layer in self.body:
            detail = layer(detail)
        detail = F.pixel_shuffle(detail, self.scale)
        return detail + F.interpolate(x, scale_factor=self.scale, mode="nearest")


def _activation(name: str, features: int) -> nn.Module:
    match name:
        case "prelu":
            return nn.PReLU(features)
        case "relu":
            return nn.ReLU()
        case "leaky_relu":
            return nn.LeakyReLU(SLOPE)
    raise PocketganError("no such activation", got=name, allowed="prelu, relu, leaky_relu")


def infer(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """Constructor arguments from a state dict's {name: shape}, or None where the first layer is missing."""
    first = shapes.get("body.0.weight", ())
    indices = [int(found[1]) for key in shapes if (found := re.fullmatch(r"body\.(\d+)\.weight", key))]
    if len(first) != 4 or not indices:
        return None
    last = max(indices)
    outputs = shapes[f"body.{last}.weight"][0]
    channels = first[1]  # as many out as in
    return {
        "input_channels": channels,
        "output_channels": channels,
        "features": first[0],
        "convolutions": max(0, last // 2 - 1),
        "scale": max(1, math.isqrt(outputs // max(1, channels))),
        "activation": "prelu" if "body.1.weight" in shapes else "relu",
    }


def image_format(arguments: Mapping[str, Any]) -> ImageFormat:
    """Pictures in [0, 1] both ways; a 64x64 input for costs and exports."""
    channels = (arguments["input_channels"], arguments["output_channels"])
    return ImageFormat((0.0, 1.0), (0.0, 1.0), size=(64, 64), scale=arguments["scale"], channels=channels)


def notes(arguments: Mapping[str, Any]) -> list[str]:
    """What the checkpoint does not tell and `infer` assumed."""
    if arguments["activation"] == "prelu":
        return []
    return [
        f"activations without weights leave no trace in a checkpoint: {arguments['activation']} is assumed; "
        "the other is activation leaky_relu"
    ]
