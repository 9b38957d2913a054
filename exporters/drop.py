"""What INT8 gives away: against the network in float, and against the pictures that should have come out.

Drop of a picture = PSNR(network in float, truth) - PSNR(INT8 file, truth), both in dB over pictures in
[0, 1] and 100 where they are above: positive where INT8 is the further from the truth. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compressor.data.images import fit, list_images, read_image, to_pixels
from compressor.errors import PocketganError
from compressor.generators.spec import ImageFormat
from compressor.metrics.fidelity import psnr
from compressor.typed import fields_of

_MOST = 100.0  # dB that equal pictures count as


def decibels(picture: np.ndarray, reference: np.ndarray) -> float:
    """PSNR of two pictures in [0, 1], at most 100 dB."""
    return min(float(psnr(picture, reference)), _MOST)


@dataclass(frozen=True)
class Point:
    """A division of the convolutions, and what imitated INT8 reaches so on the hardest calibration pictures.

    Attributes:
        floated: convolutions returned to float, beside those that cannot be quantised.
        share: of the quantisable multiply-adds, those that are in float, in [0, 1].
        psnr: mean dB to the network in float; of the worst picture where the goal is demanded of each.
        drop: mean dB further from the truth than the network in float; None without a truth.
        chosen: the file is so.
    """

    floated: int
    share: float
    psnr: float
    drop: float | None = None
    chosen: bool = False

    def meets(self, goal: float) -> bool:
        """Whether its PSNR is at least `goal`; where there is a truth, whether its drop is at most that."""
        return self.psnr >= goal if self.drop is None else self.drop <= goal

    @property
    def said(self) -> str:
        return f"{self.psnr:.1f} dB" if self.drop is None else f"a drop of {self.drop:.2f} dB"


@dataclass(frozen=True)
class Drop:
    """How much further from the true pictures a file is than the network in float.

    Attributes:
        images: of each picture its name, the network's PSNR to the truth and the file's, in dB.
        limit: dB that the mean drop may be.
    """

    images: tuple[tuple[str, float, float], ...]
    limit: float

    @property
    def mean(self) -> float:
        return float(np.mean([ours - file for _, ours, file in self.images]))

    @property
    def passed(self) -> bool:
        return self.mean <= self.limit

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "mean": self.mean, "passed": self.passed}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Drop:
        found = cls(**fields_of(cls, document))
        if not found.images:
            raise ValueError("no picture was compared with its truth")
        return found


@dataclass(frozen=True)
class Truth:
    """The true picture of each input.

    Attributes:
        partners: its file, by the input's.
        image: what the network takes and gives.
        size: input (height, width) of the files.
        limit: dB that INT8 may drop.
    """

    partners: Mapping[Path, Path]
    image: ImageFormat
    size: tuple[int, int]
    limit: float

    def of(self, path: Path) -> np.ndarray:
        """(scale H, scale W, C) in [0, 1], cut as the input is.

        Raises:
            PocketganError: it cannot be read, or is not `scale` times as large as the input.
        """
        scale = self.image.scale
        wanted = read_image(self.partners[path], self.image.channels[1])
        given = read_image(path, self.image.channels[0])
        large = (given.shape[0] * scale, given.shape[1] * scale)
        if scale > 1 and wanted.shape[:2] != large:
            raise PocketganError(
                f"{self.partners[path]} is not {scale} times as large as {path.name}",
                got=wanted.shape[:2],
                allowed=large,
            )
        return fit(wanted, (self.size[0] * scale, self.size[1] * scale))

    def drop(self, paths: Sequence[Path], ours: Iterable[np.ndarray], made: Iterable[np.ndarray]) -> Drop:
        """Compare what the network in float and a file answer, each (1, C, scale H, scale W) a picture."""
        rows = []
        for path, float_output, output in zip(paths, ours, made, strict=True):
            true = self.of(path)
            plain, file = (to_pixels(values, self.image.output_range) for values in (float_output, output))
            rows.append((path.name, decibels(plain, true), decibels(file, true)))
        return Drop(tuple(rows), self.limit)


def truth(
    paths: Sequence[Path], folder: Path, image: ImageFormat, size: tuple[int, int], limit: float
) -> Truth:
    """Find the true picture of each input by its name, as `compressor.agd.teachers.pairs` does, and read it.

    Raises:
        PocketganError: an input has none, or it cannot be read or is of another size.
    """
    from compressor.agd.teachers.pairs import match

    found = Truth(match(list(dict.fromkeys(paths)), list_images(folder)), image, size, limit)
    for path in found.partners:
        found.of(path)
    return found
