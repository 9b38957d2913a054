"""Training pictures: random crops that depend on nothing but the seed and the step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from compressor.data.images import fit, read_image, to_tensor
from compressor.errors import PocketganError
from compressor.generators.spec import ImageFormat

CACHE = 1 << 30  # bytes of decoded pictures kept in memory; the rest is read again when drawn
_JITTER = 286 / 256  # CycleGAN's load size over its crop size


class Patches:
    """Draws batches of crops, mirrored half of the time.

    For translation (scale 1) a picture is first scaled to cover 286/256 of the generator's usual
    size, as in CycleGAN; for super resolution its pixels are taken as they are.

    Args:
        paths: pictures to draw from.
        image: the generator's format.
        crop: side of the crops, or None for the generator's usual size.
        batch: crops in a batch.
        seed: batches are equal for equal (seed, step).
    """

    def __init__(self, paths: Sequence[Path], image: ImageFormat, crop: int | None, batch: int, seed: int):
        self.paths, self.image, self.batch, self.seed = list(paths), image, batch, seed
        self.crop = (crop, crop) if crop else image.size
        for side in self.crop:
            if side % image.multiple:
                raise PocketganError(
                    "the training crop does not suit the generator",
                    got=self.crop,
                    allowed=f"multiples of {image.multiple}",
                )
        self._cache: dict[int, np.ndarray] = {}
        self._cached = 0

    def __call__(self, step: int) -> torch.Tensor:
        """The batch of a step, float32 (batch, C, height, width) in the input range."""
        draw = np.random.default_rng([self.seed, step])
        crops = [self._crop(draw) for _ in range(self.batch)]
        return torch.cat([to_tensor(crop, self.image.input_range) for crop in crops])

    def _crop(self, draw: np.random.Generator) -> np.ndarray:
        pixels = self._picture(int(draw.integers(len(self.paths))))
        height, width = self.crop
        top = int(draw.integers(pixels.shape[0] - height + 1))
        left = int(draw.integers(pixels.shape[1] - width + 1))
        cut = pixels[top : top + height, left : left + width]
        return cut[:, ::-1] if draw.random() < 0.5 else cut

    def _picture(self, index: int) -> np.ndarray:
        if index in self._cache:
            return self._cache[index]
        pixels = read_image(self.paths[index], self.image.channels[0])
        pixels = fit(pixels, self._scaled(pixels.shape[0], pixels.shape[1]))
        if self._cached + pixels.nbytes <= CACHE:
            self._cache[index] = pixels
            self._cached += pixels.nbytes
        return pixels

    def _scaled(self, height: int, width: int) -> tuple[int, int]:
        """The size a picture is brought to before cropping, its proportions kept."""
        cover = max(self.crop[0] / height, self.crop[1] / width)
        if self.image.scale == 1:
            usual = max(self.image.size[0] / height, self.image.size[1] / width)
            factor = max(_JITTER * usual, cover)
        else:
            factor = max(1.0, cover)
        return max(self.crop[0], round(height * factor)), max(self.crop[1], round(width * factor))
