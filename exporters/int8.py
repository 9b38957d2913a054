"""The choice among ways to make an INT8 file: each is tried on calibration pictures, the nearest kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from exporters.calibration import METHODS, Ranges
from exporters.parity import check

if TYPE_CHECKING:
    from exporters.job import Made

Bounds = Mapping[str, tuple[float, float]]

JUDGED = 4  # calibration pictures that candidates are judged on


def best(
    quantised: Callable[[Bounds], Made],
    ranges: Ranges,
    pictures: Sequence[tuple[str, np.ndarray, np.ndarray]],
    output_range: tuple[float, float],
    notes: tuple[str, ...],
) -> Made:
    """The file of the calibration method whose pictures are nearest to PyTorch's on average.

    Args:
        quantised: makes a file from the bounds of each tensor.
        ranges: measured on the calibration pictures.
        pictures: (name, input, PyTorch's output) of some of them.
        output_range: values of black and white at the output.
        notes: what to say of the file besides the method.
    """
    scores: list[tuple[float, str, Made]] = []
    for method in METHODS:
        made = quantised(ranges.bounds(method))
        found = check(made.open(), pictures, output_range, 0.0)
        scores.append((float(np.mean([image.psnr for image in found.images])), method, made))
    _, chosen, made = max(scores, key=lambda item: item[0])
    figures = ", ".join(f"{name} {value:.1f}" for value, name, _ in scores)
    return replace(
        made, notes=(*notes, f"ranges by {chosen}; mean PSNR on calibration pictures in dB: {figures}")
    )
