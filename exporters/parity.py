"""The gate every file passes through: its pictures beside PyTorch's, on real images."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from compressor.data.images import to_pixels
from compressor.metrics.fidelity import psnr, ssim
from exporters.result import ImageParity, Parity
from exporters.runtime import Run

THRESHOLDS = {"fp32": 50.0, "fp16": 50.0, "int8": 20.0, "int8-dynamic": 20.0, "w8a16": 35.0}
"""PSNR in dB that the worst picture of a file must reach, by precision.

For INT8 of either kind the gate is there to stop files that are wrong, which lie below 15 dB, not those
that are coarse: an unpaired GAN may paint one flat picture in another tint for a rounding error.
"""


def check(
    run: Run,
    pictures: Iterable[tuple[str, np.ndarray, np.ndarray]],
    output_range: tuple[float, float],
    threshold_psnr: float,
) -> Parity:
    """Run a file over pictures and compare with what PyTorch made of them.

    Args:
        run: the file, on (1, C, H, W).
        pictures: (name, input, PyTorch's output) of each.
        output_range: values of black and white at the output.
        threshold_psnr: dB that every picture must reach.
    """
    return Parity(
        tuple(compare(name, run(entry), expected, output_range) for name, entry, expected in pictures),
        threshold_psnr,
    )


def compare(
    name: str, output: np.ndarray, expected: np.ndarray, output_range: tuple[float, float]
) -> ImageParity:
    """One picture's parity; an output of the wrong shape or with NaN or infinity in it counts as 0 dB."""
    if output.shape != expected.shape or not np.isfinite(output).all():
        return ImageParity(name, np.inf, 0.0, 0.0)
    share = np.abs(output - expected).max() / (output_range[1] - output_range[0])
    ours, theirs = to_pixels(output, output_range), to_pixels(expected, output_range)
    similar = None if min(ours.shape[:2]) < 11 else ssim(ours, theirs)
    return ImageParity(name, float(share), float(psnr(ours, theirs)), similar)
