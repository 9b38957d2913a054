"""A network with what mobile networks are made of, for tests: groups, shuffles, gates, learned scales."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from compressor.generators.spec import ImageFormat


class Unit(nn.Module):
    """ShuffleNet's grouped convolutions and shuffle, squeeze and excitation, layer scale."""

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.groups = groups
        self.expand = nn.Conv2d(channels, 2 * channels, 1, groups=groups)
        self.norm = nn.GroupNorm(4, 2 * channels)
        self.depthwise = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)
        self.project = nn.Conv2d(2 * channels, channels, 1)
        self.down = nn.Linear(channels, 8)
        self.up = nn.Linear(8, channels)
        self.scale = nn.Parameter(torch.full((1, channels, 1, 1), 0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.norm(self.expand(x)))
        n, c, h, w = y.shape
        y = y.view(n, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(n, c, h, w)
        y = self.project(self.depthwise(y))
        gate = torch.sigmoid(self.up(F.relu(self.down(y.mean((2, 3))))))
        return x + self.scale * y * gate[:, :, None, None]


class Modern(nn.Module):
    """(N, 3, H, W) in [-1, 1] -> the same."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 32, 3, padding=1)
        self.body = nn.Sequential(Unit(32, 2), Unit(32, 4))
        self.tail = nn.Conv2d(32, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.tail(self.body(F.relu(self.head(x)))))


class _Factory:
    image = ImageFormat(size=(32, 32))

    def __call__(self) -> Modern:
        return Modern()


modern = _Factory()
