"""IMDN, the information multi-distillation network for x4 super-resolution (Hui et al., ACM MM 2019)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from compressor.generators.spec import ImageFormat

if TYPE_CHECKING:
    from torch import Tensor

WIDTH = 64
DISTILLED = WIDTH // 4  # channels each step keeps; the others go on to the next step
REMAINING = WIDTH - DISTILLED
BLOCKS = 6
SCALE = 4
SLOPE = 0.05  # of LeakyReLU


class ContrastAttention(nn.Module):
    """Contrast-aware channel attention (section 3.2): scales channels by their standard deviation + mean."""

    def __init__(self, width: int = WIDTH, squeezed: int = WIDTH // 16):
        super().__init__()
        self.conv_du = nn.Sequential(
            nn.Conv2d(width, squeezed, 1), nn.ReLU(), nn.Conv2d(squeezed, width, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3), keepdim=True)  # (N, width, 1, 1)
        deviation = ((x - mean) * (x - mean)).mean((2, 3), keepdim=True).sqrt()
        return x * self.conv_du(deviation + mean)


class Distillation(nn.Module):
    """IMD block (figure 3): three times a quarter of the channels is set aside and the rest refined."""

    def __init__(self) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.c2 = nn.Conv2d(REMAINING, WIDTH, 3, padding=1)
        self.c3 = nn.Conv2d(REMAINING, WIDTH, 3, padding=1)
        self.c4 = nn.Conv2d(REMAINING, DISTILLED, 3, padding=1)
        self.cca = ContrastAttention()
        self.c5 = nn.Conv2d(DISTILLED * 4, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept1, rest = torch.split(F.leaky_relu(self.c1(x), SLOPE), [DISTILLED, REMAINING], dim=1)
        kept2, rest = torch.split(F.leaky_relu(self.c2(rest), SLOPE), [DISTILLED, REMAINING], dim=1)
        kept3, rest = torch.split(F.leaky_relu(self.c3(rest), SLOPE), [DISTILLED, REMAINING], dim=1)
        kept = torch.cat([kept1, kept2, kept3, self.c4(rest)], dim=1)
        return x + self.c5(self.cca(kept))


class IMDN(nn.Module):
    """(N, 3, H, W) in [0, 1] -> (N, 3, 4H, 4W), nominally in [0, 1] and not clamped."""

    def __init__(self) -> None:
        super().__init__()
        self.fea_conv = nn.Conv2d(3, WIDTH, 3, padding=1)
        self.IMDB1 = Distillation()
        self.IMDB2 = Distillation()
        self.IMDB3 = Distillation()
        self.IMDB4 = Distillation()
        self.IMDB5 = Distillation()
        self.IMDB6 = Distillation()
        self.c = nn.Sequential(nn.Conv2d(WIDTH * BLOCKS, WIDTH, 1), nn.LeakyReLU(SLOPE))
        self.LR_conv = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.upsampler = nn.Sequential(nn.Conv2d(WIDTH, 3 * SCALE**2, 3, padding=1), nn.PixelShuffle(SCALE))

    def forward(self, x: Tensor) -> Tensor:
        first = self.fea_conv(x)
        out1 = self.IMDB1(first)
        out2 = self.IMDB2(out1)
        out3 = self.IMDB3(out2)
        out4 = self.IMDB4(out3)
        out5 = self.IMDB5(out4)
        out6 = self.IMDB6(out5)
        fused = self.c(torch.cat([out1, out2, out3, out4, out5, out6], dim=1))
        return self.upsampler(self.LR_conv(fused) + first)


class _Factory:
    """Makes the network; `image` tells pocketgan how its pictures go in and come out."""

    image = ImageFormat((0.0, 1.0), (0.0, 1.0), size=(64, 64), scale=SCALE)

    def __call__(self) -> IMDN:
        return IMDN()


imdn_x4 = _Factory()
