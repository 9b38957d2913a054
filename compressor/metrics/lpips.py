"""LPIPS (Zhang et al., 2018) on VGG16; the user gives the weights, the backbone's and the linear layers'."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from compressor.errors import PocketganError
from compressor.training.features import Features

_TAPS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")
_NEITHER_ZERO = 1e-10  # added to a length before dividing by it, as published


class Lpips:
    """The distance of two pictures; 0 for equal ones.

    Each tap's features are brought to length 1 over the channels; their squared differences are weighted by
    channel, averaged over the area and summed over the taps.

    Args:
        linear: the weights by channel as published: lin0.model.1.weight (1, 64, 1, 1) to lin4....
        backbone: torchvision's VGG16.

    Raises:
        PocketganError: a file holds something else.
    """

    def __init__(self, linear: Path, backbone: Path):
        from compressor.generators.states import read_state

        self.features = Features(backbone, _TAPS)
        deeper = "features.16.weight" in read_state(backbone)  # where VGG16 pools
        if self.features.keras or deeper or tuple(self.features.taps) != _TAPS:
            raise PocketganError(
                f"{backbone} is not the VGG16 that LPIPS is defined on",
                got="Keras' weights" if self.features.keras else "VGG19" if deeper else "a part of a VGG",
                fix="pocketgan data fetch vgg16",
            )
        state = read_state(linear)
        try:
            self.weights = [state[f"lin{number}.model.1.weight"].float() for number in range(len(_TAPS))]
        except KeyError as error:
            raise PocketganError(
                f"{linear} does not hold LPIPS' linear layers",
                got=", ".join(list(state)[:3]),
                allowed="lin0.model.1.weight to lin4.model.1.weight",
                fix="pocketgan data fetch lpips_vgg",
            ) from error

    def __call__(self, picture: np.ndarray, reference: np.ndarray) -> float:
        """Distance of two pictures (H, W, 3) in [0, 1]."""
        with torch.inference_mode():
            made, wanted = (
                self.features(torch.from_numpy(each).float().permute(2, 0, 1)[None])
                for each in (picture, reference)
            )
            total = 0.0
            for one, two, weight in zip(made, wanted, self.weights, strict=True):
                difference = (_unit(one) - _unit(two)).square()
                if weight.numel() != difference.shape[1]:
                    raise PocketganError(
                        "LPIPS' linear layers are of another backbone",
                        got=f"{weight.numel()} weights for {difference.shape[1]} channels",
                        fix="pocketgan data fetch lpips_vgg",
                    )
                total += float((difference * weight.view(1, -1, 1, 1)).sum(1).mean())
        return total


def _unit(features: torch.Tensor) -> torch.Tensor:
    return features / (features.square().sum(1, keepdim=True).sqrt() + _NEITHER_ZERO)
