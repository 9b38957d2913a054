"""Judges of whole sets of pictures, as published tables have them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from compressor.data.images import read_image
from compressor.metrics.upscaling import luma, plane_psnr, psnr_y

if TYPE_CHECKING:
    from compressor.generators import Generator

SETS = ("Set5", "Set14", "BSD100")
ZEBRA = 340  # in ImageNet's list of 1000
_SIDE = 224  # of the classifier's input


def upscaling_psnr(generator: Generator, folder: Path) -> float:
    """Mean PSNR-Y, 4 pixels cut off, over *_LR.png and *_HR.png of a folder."""
    from compressor.evaluate import run

    return fmean(psnr_y(run(generator, small), large) for small, large in _pairs(folder))


def vdsr_psnr(generator: Generator, folder: Path) -> float:
    """The same of a network that refines a bicubically enlarged luma plane, which nothing rounds."""
    return fmean(plane_psnr(*vdsr_planes(generator, small, large)) for small, large in _pairs(folder))


def vdsr_planes(generator: Generator, small: np.ndarray, large: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(made, wanted) luma planes (H, W) in 0..255, of a picture (h, w, 3) and its original."""
    from PIL import Image

    from compressor.evaluate import run

    wanted = luma(large)
    plane = Image.fromarray(luma(small).astype(np.float32))
    enlarged = np.asarray(plane.resize(wanted.shape[::-1], Image.Resampling.BICUBIC))
    return run(generator, enlarged[..., None] / 255)[..., 0] * 255, wanted


def _pairs(folder: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for high in sorted(folder.glob("*_HR.png")):
        yield read_image(high.with_name(high.name.replace("_HR", "_LR"))), read_image(high)


def zebra_rate(pictures: Iterable[np.ndarray], weights: Path) -> float:
    """The share of pictures (H, W, 3) in [0, 1] that MobileNet takes for a zebra above all else.

    Args:
        pictures: scaled to 224x224, bilinearly.
        weights: .safetensors for `benchmarks.networks.mobilenet`.
    """
    return fmean(map(zebra_judge(weights), pictures))


def zebra_judge(weights: Path) -> Callable[[np.ndarray], bool]:
    """Whether MobileNet takes one picture for a zebra; see `zebra_rate`."""
    import torch
    from PIL import Image

    from benchmarks.networks.mobilenet import mobilenet

    network = mobilenet(weights)

    def is_zebra(picture: np.ndarray) -> bool:
        levels = Image.fromarray(np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8))
        small = np.asarray(levels.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR), np.float32)
        values = torch.from_numpy(small / 127.5 - 1).permute(2, 0, 1)[None]
        return int(network(values).argmax()) == ZEBRA

    return is_zebra
