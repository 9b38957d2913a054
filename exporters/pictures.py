"""Pictures as a network takes them, and what PyTorch makes of each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from compressor.data.images import fit, read_image, to_tensor
from compressor.errors import PocketganError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from compressor.generators.spec import ImageFormat

Size = tuple[int, int]


def tensor(path: Path, image: ImageFormat, size: Size) -> torch.Tensor:
    """A picture as the input (1, C, H, W), cut and scaled to a size (height, width)."""
    return to_tensor(fit(read_image(path, image.channels[0]), size), image.input_range)


def outputs(
    paths: Sequence[Path], module: nn.Module, image: ImageFormat, size: Size
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(name, input, output) of each picture, one at a time."""
    import torch

    for path in paths:
        entry = tensor(path, image, size)
        with torch.no_grad():
            yield path.name, entry.numpy(), module(entry).numpy()


def other_size(size: Size, multiple: int) -> Size:
    """Larger sides of another shape, to try files of open sides with.

    >>> other_size((64, 64), 4)
    (80, 96)
    """
    height, width = (
        multiple * math.ceil(side * more / multiple) for side, more in zip(size, (1.25, 1.5), strict=True)
    )
    return height, width


def spread(paths: Sequence[Path], count: int) -> list[Path]:
    """At most `count` pictures, evenly over the list, always the same.

    Raises:
        PocketganError: there are none.
    """
    if not paths:
        raise PocketganError("export needs real pictures to calibrate on and to compare with")
    count = max(1, min(count, len(paths)))
    return [paths[int((index + 0.5) * len(paths) / count)] for index in range(count)]
