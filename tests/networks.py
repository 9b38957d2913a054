"""Small networks with everything that makes pruning hard, for tests."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    """A residual block with a norm, a depthwise convolution, a split and a concatenation."""

    def __init__(self, channels: int, norm: str):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=norm == "none")
        self.norm: nn.Module = {
            "instance": lambda: nn.InstanceNorm2d(channels),
            "batch": lambda: nn.BatchNorm2d(channels),
            "none": nn.Identity,
        }[norm]()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.last = nn.Conv2d(channels, channels, 1)
        self.part = channels // 3

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.leaky_relu(self.norm(self.first(x)), 0.1)
        left, right = torch.split(y, (self.part, y.shape[1] - self.part), dim=1)
        return x + self.last(self.depthwise(torch.cat([right, left], dim=1)))


class Attention(nn.Module):
    """Squeeze and excitation with contrast (IMDN's), multiplied onto its input."""

    def __init__(self, channels: int):
        super().__init__()
        self.down = nn.Conv2d(channels, 4, 1)
        self.up = nn.Conv2d(4, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.mean(dim=(2, 3), keepdim=True)
        contrast = ((x - mean) ** 2).mean(dim=(2, 3), keepdim=True).sqrt() + mean
        return x * torch.sigmoid(self.up(F.relu(self.down(contrast))))


class Small(nn.Module):
    """Down, two blocks, attention, up by transposed convolution and pixel shuffle, skip, tanh."""

    def __init__(self, channels: int = 12, norm: str = "instance"):
        super().__init__()
        self.head = nn.Conv2d(3, channels, 3, stride=2, padding=1)
        self.body = nn.Sequential(Block(channels, norm), Block(channels, norm))
        self.attention = Attention(channels)
        self.up = nn.ConvTranspose2d(channels, 8, 4, stride=2, padding=1)
        self.act = nn.PReLU(8)
        self.skip = nn.Conv2d(3, 6, 3, padding=1)
        self.fuse = nn.Conv2d(14, 32, 3, padding=1)
        self.shuffle = nn.PixelShuffle(2)
        self.tail = nn.Conv2d(8, 3, 3, stride=2, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.attention(self.body(self.head(x)))
        y = torch.cat((self.skip(x), self.act(self.up(y))), 1)
        return torch.tanh(self.tail(self.shuffle(self.fuse(y))))


def picture(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
