"""How far a student's picture is from its teacher's."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from compressor.errors import PocketganError
from compressor.generators.spec import ImageFormat

# VGG19 up to relu3_4: convolutions by Keras name, "pool" between blocks, "tap" where features are read.
_LAYERS = (
    "block1_conv1", "block1_conv2", "tap", "pool",
    "block2_conv1", "block2_conv2", "tap", "pool",
    "block3_conv1", "block3_conv2", "block3_conv3", "block3_conv4", "tap",
)  # fmt: skip
# torchvision's vgg19 numbers the same convolutions so.
_TORCHVISION = dict(
    zip((n for n in _LAYERS if n.startswith("block")), (0, 2, 5, 7, 10, 12, 14, 16), strict=True)
)
_MEAN_BGR = (103.939, 116.779, 123.68)  # ImageNet, Keras' and Caffe's VGG preprocessing
_MEAN_RGB, _STD_RGB = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet, torchvision's


class Distance(nn.Module):
    """L1 between two outputs in units of white minus black, plus a feature distance if asked.

    The feature distance is the mean over three VGG19 layers (relu1_2, relu2_2, relu3_4) of the L1
    distance relative to the teacher's mean activation, times 0.1 (after Johnson et al. 2016).

    Args:
        image: the generator's format.
        perceptual: VGG19 weights, in Keras names (BGR, 0..255) or torchvision's, or None.
    """

    def __init__(self, image: ImageFormat, perceptual: Path | None = None):
        super().__init__()
        self.low, self.span = image.output_range[0], image.output_range[1] - image.output_range[0]
        self.features = _Features(perceptual) if perceptual else None
        if self.features and image.channels[1] != 3:
            raise PocketganError("the feature loss needs 3 output channels", got=image.channels[1])

    def forward(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """Distance of two batches (N, C, H, W) in the output range; a scalar."""
        distance = F.l1_loss(student, teacher) / self.span
        if self.features is None:
            return distance
        ours = self.features((student - self.low) / self.span)
        theirs = self.features((teacher - self.low) / self.span)
        relative = [F.l1_loss(a, b) / (b.abs().mean() + 1e-6) for a, b in zip(ours, theirs, strict=True)]
        return distance + 0.1 * torch.stack(relative).mean()


class _Features(nn.Module):
    """VGG19's activations at three depths, for pictures in [0, 1]."""

    def __init__(self, path: Path):
        super().__init__()
        from compressor.generators.states import read_state

        state = read_state(path)
        self.keras = "block1_conv1.weight" in state
        names = {n: n if self.keras else f"features.{i}" for n, i in _TORCHVISION.items()}
        missing = [key for key in names.values() if f"{key}.weight" not in state]
        if missing:
            raise PocketganError(
                f"{path} does not hold VGG19's first three blocks",
                got=f"no {missing[0]}.weight",
                allowed="Keras names (block1_conv1.weight) or torchvision's (features.0.weight)",
            )
        for name, key in names.items():
            self.register_buffer(f"{name}_weight", state[f"{key}.weight"].float(), persistent=False)
            self.register_buffer(f"{name}_bias", state[f"{key}.bias"].float(), persistent=False)

    def forward(self, pictures: torch.Tensor) -> list[torch.Tensor]:
        if self.keras:
            value = pictures.flip(1) * 255 - pictures.new_tensor(_MEAN_BGR).view(1, 3, 1, 1)
        else:
            value = (pictures - pictures.new_tensor(_MEAN_RGB).view(1, 3, 1, 1)) / pictures.new_tensor(
                _STD_RGB
            ).view(1, 3, 1, 1)
        taps = []
        for name in _LAYERS:
            if name == "pool":
                value = F.max_pool2d(value, 2)
            elif name == "tap":
                taps.append(value)
            else:
                value = F.relu(
                    F.conv2d(value, getattr(self, f"{name}_weight"), getattr(self, f"{name}_bias"), padding=1)
                )
        return taps
