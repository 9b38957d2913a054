"""The files of one painted picture: itself and, if wanted, itself with the original beside it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from exporters.apply.painter import Painter
from exporters.apply.pictures import LUMA, Picture, enlarged_rows, levels, png_by_rows

_GAP = 8  # white pixels between original and result


class Writer:
    """Turns painted rows into files: alpha put back, bits as in the original.

    Args:
        folder: the output folder.
        target: the picture's place in it.
        picture: the original.
        painter: what paints it.
        beside: also write compare/TARGET.

    Attributes:
        names: the files' places in the folder.
    """

    def __init__(self, folder: Path, target: Path, picture: Picture, painter: Painter, *, beside: bool):
        self.folder, self.picture, self.scale = folder, picture, painter.image.scale
        self.names = (target, Path("compare") / target) if beside else (target,)
        self.colours = painter.image.channels[1]
        self.to_grey = self.colours == 3 and self.scale > 1 and picture.pixels.shape[2] == 1

    @contextlib.contextmanager
    def open(self) -> Iterator[Callable[[np.ndarray, int], None]]:
        """Yields a function that takes painted rows (h, W, C') in [0, 1] and the first one's number."""
        picture, alpha = self.picture, self.picture.alpha is not None
        size = (picture.size[0] * self.scale, picture.size[1] * self.scale)
        colours = 1 if self.to_grey else self.colours
        profile = picture.profile if colours == picture.pixels.shape[2] else None
        see_through = picture.alpha[..., None] if picture.alpha is not None else None
        with contextlib.ExitStack() as stack:
            append = stack.enter_context(
                png_by_rows(self.folder / self.names[0], size, colours + alpha, picture.pixels.dtype, profile)
            )
            both: Callable[[np.ndarray], None] | None = None
            if len(self.names) > 1:
                wide = (size[0], 2 * size[1] + _GAP)
                both = stack.enter_context(
                    png_by_rows(self.folder / self.names[1], wide, 3 + alpha, picture.pixels.dtype)
                )

            def write(rows: np.ndarray, top: int) -> None:
                values = rows @ LUMA[:, None] if self.to_grey else rows
                made = levels(values * np.float32(picture.white), picture.pixels.dtype)
                veil = [] if see_through is None else [self._enlarged(see_through, top, len(rows))]
                made = np.dstack([made, *veil])
                append(made)
                if both is not None:
                    before = np.dstack([self._enlarged(picture.pixels, top, len(rows)), *veil])
                    gap = np.full((len(rows), _GAP, 3 + alpha), picture.white, picture.pixels.dtype)
                    both(np.concatenate([_coloured(before, alpha), gap, _coloured(made, alpha)], axis=1))

            yield write

    def _enlarged(self, pixels: np.ndarray, top: int, count: int) -> np.ndarray:
        planes = [enlarged_rows(plane, self.scale, top, top + count) for plane in np.moveaxis(pixels, 2, 0)]
        return np.stack(planes, axis=2)


def _coloured(pixels: np.ndarray, alpha: bool) -> np.ndarray:
    """Grey (and alpha) as three channels (and alpha)."""
    colours = pixels.shape[2] - alpha
    return pixels if colours == 3 else np.dstack([pixels[..., :1]] * 3 + ([pixels[..., 1:]] if alpha else []))
