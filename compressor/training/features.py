"""VGG16 and VGG19 as feature networks, on weights that the user has or that torchvision publishes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from compressor.data.download import download
from compressor.errors import PocketganError
from compressor.files import cache_folder

# torchvision's files (IMAGENET1K_V1); the name ends in the first 8 hex digits of the content's SHA-256.
PUBLISHED = {
    "vgg16": "https://download.pytorch.org/models/vgg16-397923af.pth",
    "vgg19": "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
}
_BLOCKS = {"VGG16": (2, 2, 3, 3, 3), "VGG19": (2, 2, 4, 4, 4)}  # convolutions before each pooling
_MEAN_BGR = (103.939, 116.779, 123.68)  # ImageNet, Keras' and Caffe's VGG preprocessing
_MEAN_RGB, _STD_RGB = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet, torchvision's
# Keras' pictures are so many times as large as torchvision's, normalised or plain, and so are, but for
# biases, its features; divided by it they suit the published weights of losses.
_KERAS_GAIN = {True: 255 * 0.225, False: 255.0}


class Features(nn.Module):
    """VGG's activations at some layers, for pictures (N, 3, H, W) in [0, 1].

    Weights are torchvision's (features.0.weight, ...; VGG16 or VGG19) or Keras' (block1_conv1.weight, ...);
    a file may hold the first layers only. Keras' see BGR in 0..255 less ImageNet's mean, and their features
    are divided by 57.4 (255 * 0.225), or without `normalise` by 255, to have the size of torchvision's.

    Args:
        path: .safetensors, or what torch.save wrote.
        taps: layers as "relu2_2" (the second convolution of block 2, after ReLU) or "conv5_4" (before it).
            One that the file does not hold is replaced by the deepest before it that it holds.
        normalise: subtract ImageNet's mean and divide by its deviation before torchvision's weights; Keras'
            always see the mean subtracted.

    Attributes:
        taps: the layers read in fact, in the order asked for.

    Raises:
        PocketganError: the file does not hold VGG's layers.
    """

    def __init__(self, path: Path, taps: Sequence[str], *, normalise: bool = True):
        super().__init__()
        from compressor.generators.states import read_state

        state = read_state(path)
        self.keras, self.normalise = "block1_conv1.weight" in state, normalise
        keys = _keras(state) if self.keras else _torchvision(state)
        shape = state[f"{next(iter(keys.values()))}.weight"].shape if keys else None
        normed = any(key.endswith("running_mean") for key in state)
        if shape != (64, 3, 3, 3) or normed:
            raise PocketganError(
                f"{path} does not hold the layers of VGG16 or VGG19",
                got=", ".join(list(state)[:3]),
                allowed="Keras names (block1_conv1.weight) or torchvision's (features.0.weight), "
                "without batch norm",
            )
        self.taps = [_held(tap, list(keys)) for tap in taps]
        last = max(tap[4:] for tap in self.taps)
        self.names = [name for name in keys if name <= last]
        for name in self.names:
            for part in ("weight", "bias"):
                value = state[f"{keys[name]}.{part}"].float()
                self.register_buffer(f"{part}{name}", value, persistent=False)

    def forward(self, pictures: torch.Tensor) -> list[torch.Tensor]:
        """The activations at each of `taps`, (N, C, H', W')."""
        value = self._entry(pictures)
        found: dict[str, torch.Tensor] = {}
        for index, name in enumerate(self.names):
            if index and name[0] != self.names[index - 1][0]:
                value = F.max_pool2d(value, 2)
            value = F.conv2d(value, getattr(self, f"weight{name}"), getattr(self, f"bias{name}"), padding=1)
            found[f"conv{name}"] = value
            value = F.relu(value)
            found[f"relu{name}"] = value
        gain = _KERAS_GAIN[self.normalise] if self.keras else 1.0
        return [found[tap] / gain for tap in self.taps]

    def _entry(self, pictures: torch.Tensor) -> torch.Tensor:
        if self.keras:
            return pictures.flip(1) * 255 - pictures.new_tensor(_MEAN_BGR).view(1, 3, 1, 1)
        if not self.normalise:
            return pictures
        mean = pictures.new_tensor(_MEAN_RGB).view(1, 3, 1, 1)
        return (pictures - mean) / pictures.new_tensor(_STD_RGB).view(1, 3, 1, 1)


def _keras(state: dict[str, torch.Tensor]) -> dict[str, str]:
    """The state's key of each convolution, by "BLOCK_NUMBER", up to the first gap."""
    keys: dict[str, str] = {}
    for block, count in enumerate(_BLOCKS["VGG19"], 1):
        for number in range(1, count + 1):
            key = f"block{block}_conv{number}"
            if f"{key}.weight" in state:
                keys[f"{block}_{number}"] = key
            elif number <= _BLOCKS["VGG16"][block - 1]:
                return keys
    return keys


def _torchvision(state: dict[str, torch.Tensor]) -> dict[str, str]:
    """The same for torchvision's numbers: convolution and ReLU count, and the pooling after each block."""
    blocks = _BLOCKS["VGG19" if "features.16.weight" in state else "VGG16"]
    keys: dict[str, str] = {}
    position = 0
    for block, count in enumerate(blocks, 1):
        for number in range(1, count + 1):
            weight = state.get(f"features.{position}.weight")
            if weight is None or weight.ndim != 4:
                return keys
            keys[f"{block}_{number}"] = f"features.{position}"
            position += 2
        position += 1
    return keys


def _held(tap: str, names: Sequence[str]) -> str:
    """The layer itself, or the deepest before it that there is."""
    if not re.fullmatch(r"(relu|conv)[1-5]_[1-4]", tap):
        raise ValueError(f"{tap!r} is no layer of VGG")
    return tap[:4] + max(name for name in names if name <= tap[4:])


def feature_weights(given: Path | str, folder: Path | None = None) -> Path:
    """The file of feature weights: the one named, or torchvision's by "vgg16" or "vgg19".

    The latter is downloaded once (500 MB) into the cache and checked against the hash in its name.

    Args:
        given: a path, "vgg16" or "vgg19".
        folder: where downloads are kept; the user's cache if None.

    Raises:
        PocketganError: there is no such file, it cannot be downloaded, or what came is damaged.
    """
    url = PUBLISHED.get(Path(given).name)  # a recipe makes paths absolute
    if url is None or Path(given).exists():
        return Path(given)
    path = (folder or cache_folder() / "features") / url.rpartition("/")[2]
    if not path.exists():
        wanted = path.stem.rpartition("-")[2]
        download(url, path, wanted=wanted, fix=f"download {url} by hand and give its path: --perceptual FILE")
    return path
