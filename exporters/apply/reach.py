"""How far a network sees, measured: how much context a tile needs so that its border does not show.

Two tiles over the same place, one of them shifted, are painted and compared where they overlap. The k-th
pixel from the nearest border has k pixels of context. A network of finite receptive field paints the same in
both once k exceeds it, and nearly the same long before where it is deep: far weights are small (Luo et al.
2016, "Understanding the effective receptive field"). Where a change half a tile away still shows, the
network looks at the whole picture, as instance norms and pooled attention do: no context makes tiles agree.

Measuring treats files of every runtime, precision and origin alike, and sees what roundings do, which a
walk over the graph would not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from exporters.apply.painter import Painter
from exporters.apply.tiles import LEAST_OVERLAP, Tiling

EXACT = 0.02  # grey levels: nothing left but the rounding of floats
CLOSE = 0.25  # grey levels: no seam, with room for pictures harder than the one measured on
_MULTIPLES = (1, 2, 4, 8, 16, 32)
_PLACES = 3  # of the picture


@dataclass(frozen=True)
class Reach:
    """What was measured.

    Attributes:
        multiple: shifts by multiples of this leave the network's output as it is.
        context: pixels from a tile's border on which tiles agree, or None where they never do.
        settled: grey levels (of 255) that tiles differ by from there on; with None, in their middles.
        everywhere: a change half a tile away shows: the network looks at the whole picture.
    """

    multiple: int
    context: int | None
    settled: float
    everywhere: bool

    def joined(self, other: Reach) -> Reach:
        """What holds for the pictures that both were measured on."""
        contexts = (self.context, other.context)
        return Reach(
            multiple=math.lcm(self.multiple, other.multiple),
            context=None if None in contexts else max(contexts, key=lambda pixels: pixels or 0),
            settled=max(self.settled, other.settled),
            everywhere=self.everywhere or other.everywhere,
        )

    def tiling(self, tile: tuple[int, int], overlap: int | None = None) -> Tiling:
        """How to cut: in the middle of just enough context; where none is enough, mixed over an eighth.

        Args:
            tile: input (height, width).
            overlap: what the user asked for instead.
        """
        room = min(tile) - self.multiple
        eighth = max(1, min(tile) // 8 // self.multiple) * self.multiple
        needed = 3 * eighth if self.context is None else 2 * self.context
        shared = min(max(LEAST_OVERLAP, needed), room) if overlap is None else overlap
        return Tiling(tile, shared, shared // 3 if self.context is None else 0, self.multiple)


Region = Callable[[tuple[int, int], int], np.ndarray]
"""(height, width), place -> that much of the picture there, (height, width, C) float32 in [0, 1]."""


def measure(
    painter: Painter,
    pixels: np.ndarray,
    tile: tuple[int, int],
    convert: Callable[[np.ndarray], np.ndarray] = lambda piece: piece,
) -> Reach:
    """Find out how much context a network needs.

    Args:
        painter: the network.
        pixels: a picture (H, W, C) of what it is made for; mirrored where too small.
        tile: input (height, width) of a tile.
        convert: makes of a piece of the picture what `painter` takes, in [0, 1].
    """

    def region(size: tuple[int, int], place: int) -> np.ndarray:
        return convert(_region(pixels, size, place))

    multiple = _multiple(painter, region, tile)
    side = min(tile)
    shift = max(multiple, side // 4 // multiple * multiple)
    profile = np.zeros(side, np.float64)
    for place in range(_PLACES):
        found = _differences(painter, region, tile, place, shift)
        profile[: len(found)] = np.maximum(profile[: len(found)], found)
    reach = max(1, (side - shift) // 2)  # deeper inside there is nothing to compare
    profile = np.maximum.accumulate(profile[:reach][::-1])[::-1]  # at distance k or more
    for limit, room in ((EXACT, side // 6), (CLOSE, reach - 1)):
        inside = np.flatnonzero(profile <= limit)
        if inside.size and inside[0] <= room:
            return Reach(multiple, int(inside[0]), float(profile[inside[0]]), False)
    return Reach(multiple, None, float(profile[-1]), _far(painter, region, tile) > CLOSE)


def _far(painter: Painter, region: Region, tile: tuple[int, int]) -> float:
    """Grey levels that the last quarter of a tile changes by when its first quarter is turned to negative."""
    plain = region(tile, 1)
    other = plain.copy()
    quarter = tile[1] // 4
    other[:, :quarter] = 1 - other[:, :quarter]
    last = -quarter * painter.image.scale
    change = painter.paint(other)[:, last:] - painter.paint(plain)[:, last:]
    return float(np.abs(change).max()) * 255.0


def _multiple(painter: Painter, region: Region, tile: tuple[int, int]) -> int:
    """The smallest shift that leaves the middle of a tile as it is; the file's own where it says one."""
    known = painter.image.multiple
    steps = [step for step in _MULTIPLES if step % known == 0 and step <= min(tile) // 4] or [known]
    fits = [step for step in steps if all(side % step == 0 for side in tile)] or [known]
    levels = []
    for step in fits:
        found = _differences(painter, region, tile, 1, step)
        middle = float(found[min(tile) // 4 :].max(initial=0.0))
        if middle <= CLOSE:
            return step
        levels.append(middle)
    # no shift leaves it as it is: the smallest that is not clearly worse than the best
    return next(step for step, level in zip(fits, levels, strict=True) if level <= 1.5 * min(levels))


def _differences(
    painter: Painter, region: Region, tile: tuple[int, int], place: int, shift: int
) -> np.ndarray:
    """Grey levels that two tiles `shift` apart, down and across, differ by where they overlap.

    The k-th of them is the largest at k pixels from the nearest border of the overlap.
    """
    piece = region((tile[0] + shift, tile[1] + shift), place)
    first, second = (painter.paint(piece[at : at + tile[0], at : at + tile[1]]) for at in (0, shift))
    scale = painter.image.scale
    height, width = (side - shift for side in tile)
    gap = np.abs(first[shift * scale :, shift * scale :] - second[: height * scale, : width * scale])
    gap = gap.max(axis=2).reshape(height, scale, width, scale).max(axis=(1, 3)) * 255.0  # by input pixel
    rows, columns = (np.minimum(np.arange(side), np.arange(side)[::-1]) for side in (height, width))
    near = np.minimum.outer(rows, columns)
    found = np.zeros(int(near.max()) + 1)
    np.maximum.at(found, near.ravel(), gap.ravel())
    return found


def _region(pixels: np.ndarray, size: tuple[int, int], place: int) -> np.ndarray:
    """A piece of the picture, one of `_PLACES` along its diagonal; mirrored where there is not enough."""
    free = [max(0, have - side) for have, side in zip(pixels.shape, size, strict=False)]
    top, left = (room * place // (_PLACES - 1) for room in free)
    piece = pixels[top : top + size[0], left : left + size[1]]
    missing = [(0, max(0, side - have)) for side, have in zip(size, piece.shape, strict=False)]
    return np.pad(piece, [*missing, (0, 0)], mode="reflect")
