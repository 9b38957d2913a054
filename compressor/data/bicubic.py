"""Bicubic resizing as MATLAB's imresize does it, by which super resolution is trained and judged."""

from __future__ import annotations

import math

import numpy as np

from compressor.errors import UsageError

_REACH = 2  # pixels to either side that the kernel sees, at scale 1


def imresize(picture: np.ndarray, scale: float) -> np.ndarray:
    """A picture (H, W) or (H, W, C) in another size, (ceil(H scale), ceil(W scale)), of the same type.

    Keys' cubic kernel (1981) with a = -0.5, stretched where the picture shrinks (antialiasing), edges
    replicated, rows first. uint8 is rounded, halves up, and cut after each of the two passes, as in MATLAB;
    floating point is neither.

    Raises:
        UsageError: the scale is not above 0, or the picture is of another type.
    """
    if not 0 < scale < math.inf:
        raise UsageError("a picture cannot be resized so", got=scale, allowed="a scale above 0")
    if picture.dtype != np.uint8 and not np.issubdtype(picture.dtype, np.floating):
        raise UsageError("pictures of this type are not resized", got=picture.dtype, allowed="uint8 or float")
    made = picture
    for axis in (0, 1):
        indices, weights = _taps(picture.shape[axis], scale)
        values = np.moveaxis(made, axis, -1).astype(np.float64)
        sums = np.einsum("...op,op->...o", values[..., indices], weights)
        if picture.dtype == np.uint8:
            sums = np.clip(np.floor(sums + 0.5), 0, 255)
        made = np.moveaxis(sums, -1, axis).astype(picture.dtype)
    return made


def _taps(side: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """What each output pixel sees: (out, P) input pixels and their weights, which add up to 1."""
    stretch = min(1.0, scale)
    reach = _REACH / stretch
    centres = (np.arange(math.ceil(side * scale)) + 0.5) / scale - 0.5
    first = np.ceil(centres - reach).astype(int)
    pixels = first[:, None] + np.arange(math.floor(2 * reach) + 1)
    weights = _kernel(stretch * (centres[:, None] - pixels))
    return np.clip(pixels, 0, side - 1), weights / weights.sum(1, keepdims=True)


def _kernel(distance: np.ndarray) -> np.ndarray:
    x = np.abs(distance)
    near = (1.5 * x - 2.5) * x**2 + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
