"""How near imitated INT8 comes to float on the calibration pictures that it does worst on."""

from __future__ import annotations

import heapq
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from compressor.data.images import to_pixels
from exporters.drop import decibels
from exporters.runtime import Run

JUDGED = 4  # pictures that plans are judged on

Picture = tuple[str, np.ndarray, np.ndarray]
"""(name, input, float output)."""


@dataclass(frozen=True)
class Hard:
    """One of the pictures.

    Attributes:
        half: of the calibration pictures that it belongs to (`exporters.crossed`).
        picture: with its output in float.
        truth: what should have come out (H, W, C) in [0, 1], or None.
    """

    half: int
    picture: Picture
    truth: np.ndarray | None


@dataclass(frozen=True)
class Judge:
    """Compares with float.

    Attributes:
        hardest: the pictures, the worst first.
        output_range: values of black and white at the output.
    """

    hardest: Sequence[Hard]
    output_range: tuple[float, float]

    @classmethod
    def of_hardest(
        cls,
        runs: Sequence[Run],
        pairs: Iterable[tuple[Picture, np.ndarray | None]],
        output_range: tuple[float, float],
    ) -> Judge:
        """Find the pictures that a network does worst on; of all others none is held.

        Args:
            runs: the network, by the half of the picture.
            pairs: all pictures, with the truth of each.
            output_range: values of black and white at the output.
        """
        everyone = cls((), output_range)
        ranked = (
            (-everyone.error(hard, runs[hard.half](picture[1])), index, hard)
            for index, (picture, truth) in enumerate(pairs)
            for hard in (Hard(index % 2, picture, truth),)
        )
        return cls([hard for _, _, hard in heapq.nsmallest(JUDGED, ranked)], output_range)

    def error(self, hard: Hard, output: np.ndarray) -> float:
        """Mean squared error of an output (1, C, H, W), black and white being 0 and 1."""
        made, expected = (to_pixels(values, self.output_range) for values in (output, hard.picture[2]))
        return float(np.mean((made - expected) ** 2))

    def pooled(self, runs: Sequence[Run]) -> float:
        """PSNR in dB of all pixels of all pictures together: the worst picture counts most."""
        errors = [self.error(hard, runs[hard.half](hard.picture[1])) for hard in self.hardest]
        return -10 * math.log10(max(statistics.fmean(errors), 1e-10))

    def scores(self, runs: Sequence[Run]) -> tuple[list[float], list[float]]:
        """Of each picture the PSNR to float in dB, and how much further from the truth than float it is."""
        psnrs, drops = [], []
        for hard in self.hardest:
            output = runs[hard.half](hard.picture[1])
            made, expected = (to_pixels(values, self.output_range) for values in (output, hard.picture[2]))
            psnrs.append(decibels(made, expected))
            lost = 0.0 if hard.truth is None else decibels(expected, hard.truth) - decibels(made, hard.truth)
            drops.append(lost)
        return psnrs, drops
