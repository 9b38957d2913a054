"""RRDBNet, the generator of ESRGAN and Real-ESRGAN (Wang et al. 2018, 2021).

Our names are BasicSR's; `translate` turns the two older layouts into them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from compressor.errors import PocketganError
from compressor.generators.spec import ImageFormat

if TYPE_CHECKING:
    from torch import Tensor

SLOPE = 0.2  # of every LeakyReLU
RESIDUAL_SCALE = 0.2


class ResidualDenseBlock(nn.Module):
    """Five convolutions, each reading all before it; the last is scaled and added to the input."""

    def __init__(self, features: int, growth: int):
        super().__init__()
        self.conv1 = nn.Conv2d(features, growth, 3, padding=1)
        self.conv2 = nn.Conv2d(features + growth, growth, 3, padding=1)
        self.conv3 = nn.Conv2d(features + 2 * growth, growth, 3, padding=1)
        self.conv4 = nn.Conv2d(features + 3 * growth, growth, 3, padding=1)
        self.conv5 = nn.Conv2d(features + 4 * growth, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x1 = F.leaky_relu(self.conv1(x), SLOPE)  # (N, growth, H, W)
        x2 = F.leaky_relu(self.conv2(torch.cat([x, x1], 1)), SLOPE)
        x3 = F.leaky_relu(self.conv3(torch.cat([x, x1, x2], 1)), SLOPE)
        x4 = F.leaky_relu(self.conv4(torch.cat([x, x1, x2, x3], 1)), SLOPE)
        x5 = self.conv5(torch.cat([x, x1, x2, x3, x4], 1))  # (N, features, H, W)
        return x5 * RESIDUAL_SCALE + x


class RRDB(nn.Module):
    """Residual in residual dense block: three dense blocks, scaled and added to the input."""

    def __init__(self, features: int, growth: int):
        super().__init__()
        self.rdb1 = ResidualDenseBlock(features, growth)
        self.rdb2 = ResidualDenseBlock(features, growth)
        self.rdb3 = ResidualDenseBlock(features, growth)

    def forward(self, x: Tensor) -> Tensor:
        return self.rdb3(self.rdb2(self.rdb1(x))) * RESIDUAL_SCALE + x


class RRDBNet(nn.Module):
    """Upscaler, (N, input_channels, H, W) in [0, 1] -> (N, output_channels, scale H, scale W), not clamped.

    The scale is 2 ** upsamplings / unshuffle; H and W are multiples of unshuffle.

    Args:
        input_channels: channels of the input image.
        output_channels: channels of the output image.
        features: channels along the trunk (nf).
        blocks: residual in residual dense blocks (nb).
        growth: channels each dense convolution adds (gc).
        upsamplings: times the trunk's result is doubled in size.
        unshuffle: the input is folded by this first: 2 in Real-ESRGAN x2, 4 in x1, else 1.
    """

    def __init__(
        self,
        input_channels: int = 3,
        output_channels: int = 3,
        features: int = 64,
        blocks: int = 23,
        growth: int = 32,
        upsamplings: int = 2,
        unshuffle: int = 1,
    ):
        super().__init__()
        if 2**upsamplings % unshuffle:
            raise PocketganError(
                "an RRDBNet enlarges by a whole number", got=f"{2**upsamplings} / {unshuffle}"
            )
        self.unshuffle = unshuffle
        self.conv_first = nn.Conv2d(input_channels * unshuffle**2, features, 3, padding=1)
        self.body = nn.Sequential(*(RRDB(features, growth) for _ in range(blocks)))
        self.conv_body = nn.Conv2d(features, features, 3, padding=1)
        self.upsamplings = upsamplings
        for index in range(1, upsamplings + 1):
            self.add_module(f"conv_up{index}", nn.Conv2d(features, features, 3, padding=1))
        self.conv_hr = nn.Conv2d(features, features, 3, padding=1)
        self.conv_last = nn.Conv2d(features, output_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if self.unshuffle > 1:
            x = F.pixel_unshuffle(x, self.unshuffle)
        first = self.conv_first(x)  # (N, features, h, w)
        x = first + self.conv_body(self.body(first))
        for index in range(1, self.upsamplings + 1):
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = F.leaky_relu(self.get_submodule(f"conv_up{index}")(x), SLOPE)
        return self.conv_last(F.leaky_relu(self.conv_hr(x), SLOPE))


def translate(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict in ESRGAN's first layout (`model.1.sub.0.RDB1.conv1.0`) or its second
    (`RRDB_trunk.0.RDB1.conv1`), under our names; any other comes back as it is."""
    if "model.1.sub.0.RDB1.conv1.0.weight" in state:
        return {_from_first_layout(key, state): value for key, value in state.items()}
    if "RRDB_trunk.0.RDB1.conv1.weight" in state:
        return {_from_second_layout(key): value for key, value in state.items()}
    return dict(state)


def _from_first_layout(key: str, state: Mapping[str, Tensor]) -> str:
    if found := re.fullmatch(r"model\.1\.sub\.(\d+)\.RDB([123])\.(conv[1-5])\.0\.(weight|bias)", key):
        return f"body.{found[1]}.rdb{found[2]}.{found[3]}.{found[4]}"
    if found := re.fullmatch(r"model\.1\.sub\.\d+\.(weight|bias)", key):
        return f"conv_body.{found[1]}"
    if found := re.fullmatch(r"model\.(\d+)\.(weight|bias)", key):
        # The trunk is followed by (resize, convolution, LeakyReLU) for each doubling, then by two
        # convolutions with a LeakyReLU between.
        tail = sorted(
            int(m[1]) for k in state if (m := re.fullmatch(r"model\.(\d+)\.weight", k)) if m[1] != "0"
        )
        names = [f"conv_up{i}" for i in range(1, len(tail) - 1)] + ["conv_hr", "conv_last"]
        if found[1] == "0":
            return f"conv_first.{found[2]}"
        if int(found[1]) in tail and len(tail) >= 2:
            return f"{names[tail.index(int(found[1]))]}.{found[2]}"
    return key


def _from_second_layout(key: str) -> str:
    key = re.sub(r"^RRDB_trunk\.(\d+)\.RDB([123])\.", r"body.\1.rdb\2.", key)
    key = re.sub(r"^upconv(\d)\.", r"conv_up\1.", key)
    return re.sub(r"^trunk_conv\.", "conv_body.", re.sub(r"^HRconv\.", "conv_hr.", key))


def infer(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """Constructor arguments from a translated state dict, or None where no block is found."""
    first, dense = shapes.get("conv_first.weight", ()), shapes.get("body.0.rdb1.conv1.weight", ())
    if len(first) != 4 or len(dense) != 4:
        return None
    blocks = {int(found[1]) for key in shapes if (found := re.match(r"body\.(\d+)\.rdb\d\.", key))}
    outputs = shapes.get("conv_last.weight", (3,))[0]
    unshuffle = {4: 2, 16: 4}.get(first[1] // outputs, 1) if first[1] % outputs == 0 else 1
    return {
        "input_channels": first[1] // unshuffle**2,
        "output_channels": outputs,
        "features": first[0],
        "blocks": max(blocks) + 1,
        "growth": dense[0],
        "upsamplings": sum(bool(re.fullmatch(r"conv_up\d\.weight", key)) for key in shapes),
        "unshuffle": unshuffle,
    }


def image_format(arguments: Mapping[str, Any]) -> ImageFormat:
    """Pictures in [0, 1] both ways; a 64x64 input for costs and exports."""
    return ImageFormat(
        (0.0, 1.0),
        (0.0, 1.0),
        size=(64, 64),
        scale=2 ** arguments["upsamplings"] // arguments["unshuffle"],
        multiple=arguments["unshuffle"],
        channels=(arguments["input_channels"], arguments["output_channels"]),
    )
