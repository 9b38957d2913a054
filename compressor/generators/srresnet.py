"""MSRResNet: SRResNet without batch norm, as BasicSR and mmsr publish it (after Ledig et al. 2017)."""

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
    from torch import Tensor

SLOPE = 0.1  # of LeakyReLU


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x)))."""

    def __init__(self, features: int):
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(x)))


class MSRResNet(nn.Module):
    """Upscaler, (N, input_channels, H, W) in [0, 1] -> (N, output_channels, scale H, scale W), not clamped.

    The result is added to the bilinearly enlarged input.

    Args:
        input_channels: channels of the input image.
        output_channels: channels of the output image, the same number.
        features: channels along the trunk.
        blocks: residual blocks.
        scale: output side over input side: 2, 3 or 4 (two pixel shuffles by 2).
    """

    def __init__(
        self,
        input_channels: int = 3,
        output_channels: int = 3,
        features: int = 64,
        blocks: int = 16,
        scale: int = 4,
    ):
        super().__init__()
        if scale not in (2, 3, 4):
            raise PocketganError("an SRResNet enlarges by 2, 3 or 4", got=scale)
        self.scale = scale
        self.conv_first = nn.Conv2d(input_channels, features, 3, padding=1)
        self.body = nn.Sequential(*(ResidualBlock(features) for _ in range(blocks)))
        step = 2 if scale == 4 else scale
        self.upconv1 = nn.Conv2d(features, features * step**2, 3, padding=1)
        if scale == 4:
            self.upconv2 = nn.Conv2d(features, features * step**2, 3, padding=1)
        self.conv_hr = nn.Conv2d(features, features, 3, padding=1)
        self.conv_last = nn.Conv2d(features, output_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        detail = self.body(F.leaky_relu(self.conv_first(x), SLOPE))  # (N, features, H, W)
        if self.scale == 4:
            detail = F.leaky_relu(F.pixel_shuffle(self.upconv1(detail), 2), SLOPE)
            detail = F.leaky_relu(F.pixel_shuffle(self.upconv2(detail), 2), SLOPE)
        else:
            detail = F.leaky_relu(F.pixel_shuffle(self.upconv1(detail), self.scale), SLOPE)
        detail = self.conv_last(F.leaky_relu(self.conv_hr(detail), SLOPE))
        return detail + F.interpolate(x, scale_factor=self.scale, mode="bilinear", align_corners=False)


def translate(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """mmsr's names (`recon_trunk`, `HRconv`) under BasicSR's; any other state dict comes back as it is."""
    if "recon_trunk.0.conv1.weight" not in state:
        return dict(state)
    renamed = {re.sub(r"^recon_trunk\.", "body.", key): value for key, value in state.items()}
    return {re.sub(r"^HRconv\.", "conv_hr.", key): value for key, value in renamed.items()}


def infer(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """Constructor arguments from a translated state dict, or None where no block is found."""
    first, up = shapes.get("conv_first.weight", ()), shapes.get("upconv1.weight", ())
    blocks = {int(found[1]) for key in shapes if (found := re.match(r"body\.(\d+)\.conv[12]\.", key))}
    if len(first) != 4 or not blocks:
        return None
    features = first[0]
    step = math.isqrt(up[0] // features) if up and features else 2
    return {
        "input_channels": first[1],
        "output_channels": shapes.get("conv_last.weight", (3,))[0],
        "features": features,
        "blocks": max(blocks) + 1,
        "scale": 4 if "upconv2.weight" in shapes else step,
    }


def image_format(arguments: Mapping[str, Any]) -> ImageFormat:
    """Pictures in [0, 1] both ways; a 64x64 input for costs and exports."""
    channels = (arguments["input_channels"], arguments["output_channels"])
    return ImageFormat((0.0, 1.0), (0.0, 1.0), size=(64, 64), scale=arguments["scale"], channels=channels)
