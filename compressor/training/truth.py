"""Super resolution's training pictures: crops of true pictures, and the small pictures made from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from compressor.data.images import fit, read_image, to_tensor
from compressor.errors import PocketganError
from compressor.generators.spec import ImageFormat
from compressor.training.patches import CACHE


class TruePatches:
    """Draws batches of true crops and their small inputs, mirrored half of the time.

    A picture is cut to a multiple of the scale and made small as a whole, by the antialiased bicubic
    filter that super resolution is benchmarked with, in 8-bit levels; crops are then taken from both.

    Args:
        paths: true pictures, of any size that covers a crop; smaller ones are scaled up to it.
        image: the generator's format.
        crop: side of the small crops, or None for the generator's usual size.
        batch: crops in a batch.
        seed: batches are equal for equal (seed, step).

    Raises:
        PocketganError: the generator does not enlarge, or its channels differ between input and output.
    """

    def __init__(self, paths: Sequence[Path], image: ImageFormat, crop: int | None, batch: int, seed: int):
        if image.scale == 1:
            raise PocketganError(
                "true pictures are made small for a generator that enlarges them",
                got="a generator of scale 1",
                fix="for pairs of pictures of one size: pocketgan prune --task pix2pix",
            )
        if image.channels[0] != image.channels[1]:
            raise PocketganError("input and output differ in their channels", got=image.channels)
        self.paths, self.image, self.batch, self.seed = list(paths), image, batch, seed
        self.crop = (crop, crop) if crop else image.size
        self._cache: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._cached = 0

    def __call__(self, step: int) -> torch.Tensor:
        """The inputs of a step, float32 (batch, C, height, width) in the input range."""
        return self.pair(step)[0]

    def pair(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs of a step, and the true pictures (batch, C, scale H, scale W) in the output range."""
        draw = np.random.default_rng([self.seed, step])
        crops = [self._crop(draw) for _ in range(self.batch)]
        small = torch.cat([to_tensor(small, self.image.input_range) for small, _ in crops])
        return small, torch.cat([to_tensor(true, self.image.output_range) for _, true in crops])

    def _crop(self, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        small, true = self.picture(int(draw.integers(len(self.paths))))
        (height, width), scale = self.crop, self.image.scale
        top = int(draw.integers(small.shape[0] - height + 1))
        left = int(draw.integers(small.shape[1] - width + 1))
        small = small[top : top + height, left : left + width]
        true = true[top * scale : (top + height) * scale, left * scale : (left + width) * scale]
        return (small[:, ::-1], true[:, ::-1]) if draw.random() < 0.5 else (small, true)

    def picture(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """The small and the true picture."""
        if index in self._cache:
            return self._cache[index]
        scale = self.image.scale
        true = read_image(self.paths[index], self.image.channels[0])
        least = [side * scale for side in self.crop]
        factor = max(1.0, least[0] / true.shape[0], least[1] / true.shape[1])
        size = [max(low, round(side * factor)) for low, side in zip(least, true.shape[:2], strict=True)]
        true = fit(true, (size[0] // scale * scale, size[1] // scale * scale)) if factor > 1 else true
        true = true[: true.shape[0] // scale * scale, : true.shape[1] // scale * scale]
        pair = (made_small(true, scale), true)
        if self._cached + true.nbytes <= CACHE:
            self._cache[index] = pair
            self._cached += true.nbytes
        return pair


def made_small(true: np.ndarray, scale: int) -> np.ndarray:
    """A picture (H, W, C) in [0, 1] at 1/scale of its sides, as MATLAB's imresize makes it: bicubic with
    a = -0.5, antialiased, down the rows first, rounded to 8 bits after each of the two passes."""
    from PIL import Image

    levels = np.rint(true * 255).astype(np.uint8)
    planes = []
    for plane in np.moveaxis(levels, 2, 0):
        turned = Image.fromarray(np.ascontiguousarray(plane.T))  # Pillow begins along the other axis
        smaller = turned.resize((plane.shape[0] // scale, plane.shape[1] // scale), Image.Resampling.BICUBIC)
        planes.append(np.asarray(smaller).T)
    return np.stack(planes, axis=2).astype(np.float32) / 255
