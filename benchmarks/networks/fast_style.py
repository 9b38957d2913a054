"""The fast-style-transfer generator (Johnson et al. 2016, as trained by reinakano's deeplearn.js port).

The shape of CycleGAN's ResNet-5: conv9, two strided conv3, five residual blocks, two transposed conv3,
conv9; an instance norm with scale and shift after each, TensorFlow's SAME padding with zeros.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn
from torch.nn import functional as F

from compressor.generators.spec import ImageFormat

if TYPE_CHECKING:
    import torch

EPSILON = 1e-3  # under the square root of the instance norm


class NormalisedConv(nn.Module):
    """Convolution without bias, then instance norm with affine; SAME padding.

    With stride 2 and an even input, SAME puts its one row and column of zeros below and to the right.
    The published names `scale` and `shift`, beside `weight`, are accepted when weights are loaded.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(
            inputs, outputs, kernel, stride, padding=kernel // 2 if stride == 1 else 0, bias=False
        )
        self.norm = nn.InstanceNorm2d(outputs, eps=EPSILON, affine=True)
        self.register_load_state_dict_pre_hook(_rename)
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.stride == 2:
            x = F.pad(x, (0, 1, 0, 1))
        return self.norm(self.conv(x))


class NormalisedUpConv(nn.Module):
    """Transposed convolution by 2, without bias, then instance norm with affine; SAME padding.

    It is the gradient of the strided SAME convolution: of the 2H+1 rows the last one falls away.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv = nn.ConvTranspose2d(inputs, outputs, 3, 2, bias=False)
        self.norm = nn.InstanceNorm2d(outputs, eps=EPSILON, affine=True)
        self.register_load_state_dict_pre_hook(_rename)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x)[:, :, :-1, :-1])


def _rename(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Published names to ours."""
    for published, own in (("weight", "conv.weight"), ("scale", "norm.weight"), ("shift", "norm.bias")):
        if prefix + published in state:
            state[prefix + own] = state.pop(prefix + published)


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x))), children named "1" and "2"; no ReLU after the sum."""

    def __init__(self, width: int):
        super().__init__()
        self.add_module("1", NormalisedConv(width, width, 3))
        self.add_module("2", NormalisedConv(width, width, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = self.children()
        return x + second(F.relu(first(x)))


class FastStyle(nn.Module):
    """(N, 3, H, W) in 0..255 -> (N, 3, H, W), 150 tanh + 127.5; H and W are multiples of 4."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = NormalisedConv(3, 32, 9)
        self.conv2 = NormalisedConv(32, 64, 3, 2)
        self.conv3 = NormalisedConv(64, 128, 3, 2)
        self.res1 = ResidualBlock(128)
        self.res2 = ResidualBlock(128)
        self.res3 = ResidualBlock(128)
        self.res4 = ResidualBlock(128)
        self.res5 = ResidualBlock(128)
        self.up1 = NormalisedUpConv(128, 64)
        self.up2 = NormalisedUpConv(64, 32)
        self.out = NormalisedConv(32, 3, 9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.conv1(x))
        x = F.relu(self.conv2(x))
        x = F.relu(self.conv3(x))
        x = self.res5(self.res4(self.res3(self.res2(self.res1(x)))))
        x = F.relu(self.up1(x))
        x = F.relu(self.up2(x))
        return 150.0 * self.out(x).tanh() + 127.5


class _Factory:
    """Makes the network; `image` tells pocketgan how its pictures go in and come out."""

    image = ImageFormat((0.0, 255.0), (0.0, 255.0), multiple=4)

    def __call__(self) -> FastStyle:
        return FastStyle()


fast_style = _Factory()
