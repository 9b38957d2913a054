"""A picture in overlapping tiles, painted one at a time and put together row by row.

Along each axis tiles share `overlap` input pixels. They are cut in the middle of what they share, so that
each is used only where its own border is at least overlap / 2 away; or, with `blend`, mixed there linearly.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from compressor.errors import UsageError
from exporters.apply.painter import Painter

LEAST_OVERLAP = 2  # so that neighbours can be compared on both sides of their cut
_NEAR_CUT = 1  # output pixels on either side of a cut that both tiles are compared on


@dataclass(frozen=True)
class Tiling:
    """How pictures are cut.

    Attributes:
        tile: input (height, width) painted at a time.
        overlap: input pixels that neighbouring tiles share at least; 0 where a picture is one tile.
        blend: width in input pixels over which both are mixed; 0 cuts in the middle.
        multiple: tiles start at multiples of this, so that a network's strides fall alike in all.
    """

    tile: tuple[int, int]
    overlap: int = 0
    blend: int = 0
    multiple: int = 1

    def __post_init__(self) -> None:
        room = min(self.tile) - self.multiple
        if self.overlap and not LEAST_OVERLAP <= self.overlap <= room:
            raise UsageError(
                f"tiles of {self.tile[0]}x{self.tile[1]} cannot share that many pixels",
                got=self.overlap,
                allowed=f"{LEAST_OVERLAP} to {room}",
            )


@dataclass(frozen=True)
class Span:
    """One tile along one axis: where it starts, and where its share of the output begins and ends.

    Attributes:
        start: first input pixel.
        begin, end: output pixels that it adds to.
        weight: (end - begin,) its share of each, float32; those of all spans sum to 1.
        cut: output pixel where the next span takes over, or None for the last one.
    """

    start: int
    begin: int
    end: int
    weight: np.ndarray
    cut: int | None


def spans(length: int, tile: int, tiling: Tiling, scale: int) -> list[Span]:
    """The tiles of one axis, spread evenly.

    Args:
        length: input pixels, at least `tile` and a multiple of `tiling.multiple`.
        tile: input pixels of one tile.
        tiling: overlap, blend and multiple.
        scale: output pixels for each input pixel.
    """
    if length <= tile:
        return [Span(0, 0, length * scale, np.ones(length * scale, np.float32), None)]
    step = (tile - tiling.overlap) // tiling.multiple
    places = (length - tile) // tiling.multiple
    count = -(-places // step) + 1
    starts = [index * places // (count - 1) * tiling.multiple for index in range(count)]
    middles = [(one + tile + other) * scale // 2 for one, other in itertools.pairwise(starts)]
    half = min(tiling.blend, tiling.overlap, step * tiling.multiple) * scale // 2
    result = []
    for index, start in enumerate(starts):
        before = middles[index - 1] if index else None
        after = middles[index] if index < count - 1 else None
        begin = start * scale if before is None else before - half
        end = (start + tile) * scale if after is None else after + half
        centres = np.arange(begin, end, dtype=np.float64) + 0.5
        weight = np.ones(end - begin)
        if before is not None:
            weight = _risen(centres, before, half)
        if after is not None:
            weight = weight - _risen(centres, after, half)
        result.append(Span(start, begin, end, weight.astype(np.float32), after))
    return result


def _risen(places: np.ndarray, middle: int, half: int) -> np.ndarray:
    """From 0 to 1 around `middle`, linearly over 2 `half`."""
    if half == 0:
        return (places > middle).astype(np.float64)
    return np.clip((places - (middle - half)) / (2 * half), 0.0, 1.0)


@dataclass
class Seams:
    """What the tiles of a picture told while it was painted.

    Attributes:
        tiles: how many were painted.
        worst: largest difference between two neighbours where one is cut and the other goes on, in grey
            levels of 255.
    """

    tiles: int = 0
    worst: float = 0.0

    def compare(self, one: np.ndarray, other: np.ndarray) -> None:
        """Take in what two neighbours painted at the same place, values in [0, 1]."""
        self.worst = max(self.worst, float(np.abs(one - other).max()) * 255.0)


def painted_rows(
    painter: Painter,
    fetch: Callable[[int, int, int, int], np.ndarray],
    size: tuple[int, int],
    tiling: Tiling,
    seams: Seams,
    on_tile: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[np.ndarray]:
    """Paint a picture; memory grows with its width, not with its height.

    Args:
        painter: what paints.
        fetch: (top, left, height, width) -> input (height, width, C) float32 in [0, 1].
        size: input (H, W), each at least the tile's and a multiple of `tiling.multiple`.
        tiling: how to cut.
        seams: told what the tiles showed.
        on_tile: called with the tiles done and their number.

    Yields:
        (rows, scale W, C') float32 in [0, 1], from top to bottom.
    """
    scale, channels = painter.image.scale, painter.image.channels[1]
    tall, wide = (min(tile, side) for tile, side in zip(tiling.tile, size, strict=True))
    down, across = (spans(side, tile, tiling, scale) for side, tile in zip(size, (tall, wide), strict=True))
    carried = np.zeros((0, size[1] * scale, channels), np.float32)  # rows the band above has begun
    above: tuple[int, np.ndarray] | None = None  # a cut, and what the band above painted around it
    for number, row in enumerate(down):
        # the band reaches past its cuts, so that it can be compared with its neighbours there
        top = max(row.start * scale, row.begin - _NEAR_CUT)
        bottom = min((row.start + tall) * scale, row.end + _NEAR_CUT)
        band = np.zeros((bottom - top, size[1] * scale, channels), np.float32)
        before: tuple[int, np.ndarray] | None = None  # the same of the tile to the left
        for column in across:
            made = painter.paint(fetch(row.start, column.start, tall, wide))
            rows = made[top - row.start * scale : bottom - row.start * scale]
            shift = column.start * scale
            if before is not None:
                seams.compare(before[1], _around(rows, 1, before[0] - shift))
            if column.cut is not None:
                before = column.cut, _around(rows, 1, column.cut - shift).copy()
            band[:, column.begin : column.end] += (
                rows[:, column.begin - shift : column.end - shift] * column.weight[:, None]
            )
            seams.tiles += 1
            on_tile(seams.tiles, len(down) * len(across))
        if above is not None:
            seams.compare(above[1], _around(band, 0, above[0] - top))
        if row.cut is not None:
            above = row.cut, _around(band, 0, row.cut - top).copy()
        own = band[row.begin - top : row.end - top]
        own *= row.weight[:, None, None]
        own[: len(carried)] += carried
        ready = (down[number + 1].begin if row.cut is not None else row.end) - row.begin
        yield own[:ready]
        carried = own[ready:].copy()


def _around(values: np.ndarray, axis: int, cut: int) -> np.ndarray:
    """The output pixels beside a cut."""
    near = slice(cut - _NEAR_CUT, cut + _NEAR_CUT)
    return values[near] if axis == 0 else values[:, near]
