"""MobileNetV1 (Howard et al., 2017, arXiv 1704.04861) as Keras lays it out, to classify pictures with."""

from __future__ import annotations

from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

_WIDTHS = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
_STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
_EPSILON = 1e-3


class MobileNet(nn.Module):
    """(N, 3, 224, 224) in [-1, 1] -> (N, 1000) logits.

    Args:
        multiplier: of all widths.
    """

    def __init__(self, multiplier: float = 0.75):
        super().__init__()
        widths = [int(width * multiplier) for width in (32, *_WIDTHS)]
        self.conv1 = nn.Conv2d(3, widths[0], 3, stride=2, bias=False)
        self.conv1_bn = nn.BatchNorm2d(widths[0], eps=_EPSILON)
        for index, stride in enumerate(_STRIDES, start=1):
            before, after = widths[index - 1], widths[index]
            same = 0 if stride == 2 else 1
            depthwise = nn.Conv2d(before, before, 3, stride, same, groups=before, bias=False)
            self.add_module(f"conv_dw_{index}", depthwise)
            self.add_module(f"conv_dw_{index}_bn", nn.BatchNorm2d(before, eps=_EPSILON))
            self.add_module(f"conv_pw_{index}", nn.Conv2d(before, after, 1, bias=False))
            self.add_module(f"conv_pw_{index}_bn", nn.BatchNorm2d(after, eps=_EPSILON))
        self.conv_preds = nn.Conv2d(widths[-1], 1000, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self._step("conv1", x)
        for index in range(1, len(_STRIDES) + 1):
            x = self._step(f"conv_pw_{index}", self._step(f"conv_dw_{index}", x))
        return self.conv_preds(x.mean((2, 3), keepdim=True)).flatten(1)

    def _step(self, name: str, x: Tensor) -> Tensor:
        convolution = self.get_submodule(name)
        if convolution.stride == (2, 2):  # Keras pads below and to the right only
            x = F.pad(x, (0, 1, 0, 1))
        return F.relu6(self.get_submodule(f"{name}_bn")(convolution(x)))


def mobilenet(weights: Path) -> MobileNet:
    """The classifier with ImageNet weights from a .safetensors file, ready to use."""
    from safetensors.torch import load_file

    network = MobileNet()
    state = load_file(weights)
    network.load_state_dict(state | {k: v for k, v in network.state_dict().items() if "num_batches" in k})
    return network.eval().requires_grad_(False)
