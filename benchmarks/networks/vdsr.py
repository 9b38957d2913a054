"""VDSR (Kim et al., CVPR 2016): twenty convolutions add detail to a bicubic-upscaled luma plane."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from torch.nn import functional as F

from compressor.generators.spec import ImageFormat

if TYPE_CHECKING:
    from torch import Tensor

WIDTH = 64
INNER = 18  # convolutions between the first and the last


class VDSR(nn.Module):
    """(N, 1, H, W) upscaled luma in [0, 1] -> (N, 1, H, W) with detail added, not clamped."""

    def __init__(self) -> None:
        super().__init__()
        self.input = nn.Conv2d(1, WIDTH, 3, padding=1, bias=False)
        self.residual = nn.ModuleList(nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False) for _ in range(INNER))
        self.output = nn.Conv2d(WIDTH, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        detail = F.relu(self.input(x))
        for conv in self.residual:
            detail = F.relu(conv(detail))
        return x + self.output(detail)


class _Factory:
    """Makes the network; `image` tells pocketgan how its pictures go in and come out."""

    image = ImageFormat((0.0, 1.0), (0.0, 1.0), channels=(1, 1))

    def __call__(self) -> VDSR:
        return VDSR()


vdsr = _Factory()
