"""One picture after the other through a painter: cut as the network needs, measured anew where tiles show."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from compressor.errors import PocketganError
from compressor.files import sha256
from compressor.progress import Progress
from exporters.apply.painter import NotPainted, Painter
from exporters.apply.pictures import Picture, read_picture
from exporters.apply.reach import Reach, measure
from exporters.apply.record import Done, Record
from exporters.apply.tiles import Seams, Tiling, painted_rows
from exporters.apply.writer import Writer

if TYPE_CHECKING:
    from exporters.apply.apply import ApplyOptions

_WHOLE_MADE = 1536  # side that a network which looks at the whole picture is given at once
_MANY = 50  # tiles from which a picture shows its own progress
_VISIBLE = 1.0  # grey levels


class Unread(PocketganError):
    """One picture could not be read."""


class _Visible(Exception):
    """Two tiles differ so much where they meet that it would be seen."""


class Work:
    """Paints one picture after the other; knows the network's reach once it had to be measured."""

    def __init__(self, painter: Painter, options: ApplyOptions, side: int, record: Record):
        self.painter, self.options, self.side, self.record = painter, options, side, record
        self.reach = Reach(**record.reach) if record.reach else None

    def paint(self, source: Path, target: Path) -> None:
        """One picture from file to file, written down when done.

        A picture whose tiles show, since it is harder than those measured before, is measured itself and
        painted again. Where nothing more can be done it is refused, unless the user chose the tiles.
        """
        try:
            picture = read_picture(source)
            digest = sha256(source)
        except (PocketganError, OSError) as error:
            raise Unread(str(error)) from error
        limit = _VISIBLE if self.options.overlap is None else math.inf
        tiling, measured = self._tiling(picture)
        while True:
            try:
                return self._write(source, digest, target, picture, tiling, limit)
            except _Visible as seen:
                wider = self._wider(picture, measured)
                if wider == tiling:
                    if self.options.tile is None:
                        raise self._refusal(tiling, seen) from seen
                    limit = math.inf
                tiling, measured = wider, True

    def _write(
        self, source: Path, digest: str, target: Path, picture: Picture, tiling: Tiling, limit: float
    ) -> None:
        """Paint a picture and write it down, or raise `_Visible` at the first seam of `limit` or more."""
        seams = Seams()
        height, width = picture.size
        scale = self.painter.image.scale
        size = _grown(picture.size, tiling.multiple, self.painter.fixed)
        convert = picture.values(self.painter.image.channels[0])
        pixels = picture.pixels
        if size != picture.size:
            pixels = np.pad(pixels, [(0, size[0] - height), (0, size[1] - width), (0, 0)], mode="reflect")

        def fetch(top: int, left: int, tall: int, wide: int) -> np.ndarray:
            return convert(pixels[top : top + tall, left : left + wide])

        watched = contextlib.ExitStack()  # a large picture has a bar of its own
        bars: list[Progress] = []

        def on_tile(done: int, total: int) -> None:
            if seams.worst >= limit:
                raise _Visible(f"{seams.worst:.1f}")
            if total >= _MANY and not bars:
                bars.append(watched.enter_context(Progress(source.name, total)))
            for bar in bars:
                bar.update(done)

        writer = Writer(self.record.folder, target, picture, self.painter, beside=self.options.compare)
        top = 0
        with watched, writer.open() as write:
            for rows in painted_rows(self.painter, fetch, size, tiling, seams, on_tile):
                rows = rows[: height * scale - top, : width * scale]
                write(rows, top)
                top += len(rows)
            if seams.worst >= limit:
                raise _Visible(f"{seams.worst:.1f}")
        self.record.add(
            Done(
                picture=str(source),
                source_sha256=digest,
                files={str(name): sha256(self.record.folder / name) for name in writer.names},
                size=(height * scale, width * scale),
                tiles=seams.tiles,
                seam=seams.worst if seams.tiles > 1 else None,
            )
        )

    def _tiling(self, picture: Picture) -> tuple[Tiling, bool]:
        """How to cut a picture, and whether the network was measured on it, as on the first to be cut."""
        fixed, multiple, (height, width) = self.painter.fixed, self.painter.image.multiple, picture.size
        tile = fixed or (self.side, self.side)
        whole = Tiling(fixed or _grown(picture.size, multiple, None), multiple=multiple)
        fits = height <= tile[0] and width <= tile[1] if fixed else height * width <= self.side**2
        if fits or not (fixed or self.side):
            return whole, False
        if first := self.reach is None:
            self._measure(picture, tile)
        assert self.reach is not None
        if self.reach.everywhere and not fixed and self.options.tile is None:
            made = height * width * self.painter.image.scale**2
            if made <= _WHOLE_MADE**2:
                return whole, first
        return self.reach.tiling(tile, self.options.overlap), first

    def _wider(self, picture: Picture, measured: bool) -> Tiling:
        """How to cut a picture whose tiles showed: as it shows the network to be, or with twice the context.

        Equals the tiling before where there is nothing left to try.
        """
        before = self.reach
        assert before is not None
        if not measured:
            self._measure(picture, self.painter.fixed or (self.side, self.side))
        if self.reach == before and before.context is not None:
            self._set_reach(replace(before, context=max(2, 2 * before.context)))
        return self._tiling(picture)[0]

    def _measure(self, picture: Picture, tile: tuple[int, int]) -> None:
        convert = picture.values(self.painter.image.channels[0])
        found = measure(self.painter, picture.pixels, tile, convert)
        self._set_reach(found if self.reach is None else self.reach.joined(found))

    def _set_reach(self, reach: Reach) -> None:
        self.reach = reach
        self.record.set_reach(asdict(reach))

    def _refusal(self, tiling: Tiling, seen: _Visible) -> NotPainted:
        assert self.reach is not None
        fixed = self.painter.fixed
        why = "looks at the whole picture" if self.reach.everywhere else "sees further than its tiles reach"
        own = (
            f"--tile {tiling.tile[0]}" if not fixed or fixed[0] == fixed[1] else f"--overlap {tiling.overlap}"
        )
        whole = "export it with a larger --size" if fixed else "paint it at once: --tile 0 (much memory)"
        return NotPainted(
            f"{self.painter.name} {why}: its tiles would show",
            got=f"tiles that differ by {seen} grey levels where they meet",
            allowed=f"less than {_VISIBLE:g}",
            fix=f"{whole}; or take blended tiles: {own}",
        )

    def notes(self, done: Sequence[Done]) -> list[str]:
        """What tiles do to the pictures, where that may be seen."""
        if self.reach is None:
            return []
        name, fixed = self.painter.name, self.painter.fixed
        whole = "export it with a larger --size" if fixed else "--tile 0 paints a picture at once"
        if self.reach.everywhere and any(each.tiles > 1 for each in done):
            blend = self.reach.tiling(fixed or (self.side, self.side), self.options.overlap).blend
            return [
                f"{name} looks at the whole picture, as instance norms and pooled attention do: tiles differ "
                f"by up to {self.reach.settled:.0f} grey levels even in their middles, and together they are "
                f"not what the whole picture would be; they are blended over {blend} pixels. {whole}"
            ]
        worst, picture = max(((each.seam or 0.0, each.picture) for each in done), default=(0.0, ""))
        if worst < _VISIBLE:
            return []
        return [f"seams of up to {worst:.1f} grey levels in {picture}: try a larger --overlap; {whole}"]


def _grown(size: tuple[int, int], multiple: int, fixed: tuple[int, int] | None) -> tuple[int, int]:
    """The size that a picture is continued to: multiples, and at least what a file of fixed size takes."""
    height, width = (
        max(-(-side // multiple) * multiple, least) for side, least in zip(size, fixed or (0, 0), strict=True)
    )
    return height, width
