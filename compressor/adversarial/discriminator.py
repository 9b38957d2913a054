"""The PatchGAN discriminator of Pix2Pix and CycleGAN (Isola et al. 2017, section 3.2.2).

Module names equal those of junyanz/pytorch-CycleGAN-and-pix2pix, so its `*_net_D*.pth` load as they are.
"""

from __future__ import annotations

import torch
from torch import nn

from compressor.errors import UsageError

SLOPE = 0.2  # of every LeakyReLU
NORMS = ("batch", "instance")


class PatchDiscriminator(nn.Module):
    """Scores of overlapping patches: (N, C, H, W) in [-1, 1] -> (N, 1, h, w) logits.

    With 3 layers every score sees 70x70 pixels, and 256x256 gives 30x30 scores.

    Args:
        channels: of the input: for a conditional discriminator those of both pictures together.
        width: channels after the first convolution (upstream's ndf); doubled per layer, eightfold at most.
        layers: convolutions of stride 2.
        norm: "batch" (Pix2Pix; convolutions without bias) or "instance" (CycleGAN; with bias).
    """

    def __init__(self, channels: int, width: int = 64, layers: int = 3, norm: str = "batch"):
        super().__init__()
        if layers < 1:
            raise UsageError("a discriminator has one layer or more", got=layers)
        if norm not in NORMS:
            raise UsageError("no such norm of a discriminator", got=norm, allowed=", ".join(NORMS))
        self.layers = layers
        normalised = nn.BatchNorm2d if norm == "batch" else nn.InstanceNorm2d
        parts: list[nn.Module] = [nn.Conv2d(channels, width, 4, 2, padding=1), nn.LeakyReLU(SLOPE)]
        inside = width
        for layer in range(1, layers + 1):
            outside = width * min(2**layer, 8)
            stride = 2 if layer < layers else 1
            conv = nn.Conv2d(inside, outside, 4, stride, padding=1, bias=norm == "instance")
            parts += [conv, normalised(outside), nn.LeakyReLU(SLOPE)]
            inside = outside
        parts.append(nn.Conv2d(inside, 1, 4, 1, padding=1))
        self.model = nn.Sequential(*parts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)


def receptive_field(layers: int) -> int:
    """Side of the patch that one score sees, in pixels: 70 for 3 layers."""
    side = 1
    for stride in (1, 1, *(2,) * layers):  # from the scores back to the picture
        side = (side - 1) * stride + 4
    return side


def check_size(size: tuple[int, int], layers: int) -> None:
    """Refuse pictures (H, W) too small to give a score.

    Raises:
        UsageError: the last convolutions would have less than 2x2 numbers to normalise.
    """
    smallest = 2 ** (layers + 2)
    if min(size) < smallest:
        raise UsageError(
            "the training pictures are too small for the discriminator",
            got=f"{size[0]}x{size[1]} and {layers} layers",
            allowed=f"{smallest} pixels or more",
            fix="raise crop, or lower discriminator_layers",
        )
