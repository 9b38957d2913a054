"""A generator over many pictures of any size: tiled where it must be, one picture in memory at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compressor.errors import GateError, PocketganError, UsageError
from compressor.files import claim_folder, sha256
from compressor.progress import Progress
from exporters.apply.painter import NotPainted, Painter
from exporters.apply.pictures import Picture, read_picture
from exporters.apply.reach import Reach, measure
from exporters.apply.record import FORMAT, Done, Record
from exporters.apply.tiles import Seams, Tiling, painted_rows
from exporters.apply.writer import Writer

__all__ = ["ApplyOptions", "ApplyResult", "apply"]

_USUAL, _USUAL_MADE, _LEAST = 512, 1024, 64  # sides of a tile: in, out, and never below
_WHOLE_MADE = 1536  # side that a network which looks at the whole picture is given at once
_MANY = 50  # tiles from which a picture shows its own progress
_VISIBLE = 1.0  # grey levels


@dataclass(frozen=True)
class ApplyOptions:
    """How pictures are painted.

    Attributes:
        tile: side of the pieces that a network of free size is given; 0: the picture at once. None: 512,
            or less for upscalers, so that no more than 1024x1024 is painted at a time; a network that looks
            at the whole picture paints up to 1536x1536 at once.
        overlap: pixels that neighbouring tiles share; None: as many as the network was measured to need.
        compare: also write each picture with its original beside it.
    """

    tile: int | None = None
    overlap: int | None = None
    compare: bool = False


@dataclass(frozen=True)
class ApplyResult:
    """What was painted.

    Attributes:
        folder: where it lies.
        pictures: those done, in order.
        kept: how many of them an earlier call had done.
        failed: (picture, why) of the others.
        notes: what a user should know of the tiles.
        reach: what was measured of the network, or None where nothing was tiled.
    """

    folder: Path
    pictures: tuple[Done, ...]
    kept: int
    failed: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    reach: Reach | None

    @property
    def problem(self) -> GateError | None:
        """The error that says which pictures failed."""
        if not self.failed:
            return None
        return GateError(
            f"{len(self.failed)} of {len(self.failed) + len(self.pictures)} pictures were left out",
            got="\n    ".join(why.replace("\n", "\n    ") for _, why in self.failed),
            fix="mend or remove them, then the same command with --resume; the others are done",
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "folder": str(self.folder),
            "pictures": [asdict(done) for done in self.pictures],
            "kept": self.kept,
            "failed": [{"picture": picture, "error": why} for picture, why in self.failed],
            "notes": list(self.notes),
            "reach": None if self.reach is None else asdict(self.reach),
        }


def apply(
    painter: Painter,
    pictures: Sequence[tuple[Path, Path]],
    output: Path,
    options: ApplyOptions = ApplyOptions(),
    *,
    resume: bool = False,
) -> ApplyResult:
    """Paint pictures of any size and write them as PNG, with as many bits as the originals have.

    Alpha is kept (enlarged where the network upscales); a grey picture stays grey in an upscaler. Smaller
    pictures than a file takes are continued by reflection and cut again. Grey levels are those of 8 bits.

    Args:
        painter: what paints.
        pictures: (original, where to write it below `output`).
        output: the folder; it also gets apply.json.
        options: tiles and comparison.
        resume: go on in `output`; what is whole there is not done again.

    Raises:
        UsageError: the tile or the overlap does not suit the network.
        PocketganError: the disk is full or the folder cannot be written. A picture that cannot be read or
            painted is no error: the result names it.
    """
    side = _side(painter, options)
    claim_folder(output, resume=resume)
    for part in output.rglob(".*.part"):  # of a call that was killed
        part.unlink(missing_ok=True)
    task = {"format": FORMAT, "model": painter.identity, "side": side, **asdict(options)}
    work = _Work(painter, options, side, Record(output, task))
    kept = {
        str(source)
        for source, _ in pictures
        if (known := work.record.done.get(str(source))) and known.still_true(output, source)
    }
    failed: list[tuple[str, str]] = []
    with Progress("apply", len(pictures), start=len(kept)) as progress:
        left = [pair for pair in pictures if str(pair[0]) not in kept]
        for number, (source, target) in enumerate(left, start=len(kept) + 1):
            try:
                work.paint(source, target)
            except NotPainted as error:
                failed.append((str(source), f"{source}: {error}"))
            except _Unread as error:
                failed.append((str(source), str(error)))
            if failed and failed[-1][0] == str(source):
                progress.note(f"left out: {failed[-1][1]}")
            progress.update(number, picture=source.name)
    gone = {name for name, _ in failed}
    done = tuple(work.record.done[str(source)] for source, _ in pictures if str(source) not in gone)
    notes = (*painter.notes, *work.notes(done))
    result = ApplyResult(output, done, len(kept), tuple(failed), notes, work.reach)
    work.record.finish(result.as_json())
    return result


class _Unread(PocketganError):
    """One picture could not be read."""


def _side(painter: Painter, options: ApplyOptions) -> int:
    """Side of the tiles of a network of free size; 0 where a picture is painted at once."""
    multiple, scale = painter.image.multiple, painter.image.scale
    if painter.fixed is not None:
        if options.tile is not None and (options.tile, options.tile) != painter.fixed:
            raise UsageError(
                f"{painter.name} takes one size only",
                got=f"--tile {options.tile}",
                allowed="x".join(map(str, painter.fixed)),
                fix="leave --tile out, or export it anew with another --size",
            )
        return 0
    if options.tile is None:
        usual = max(_LEAST, min(_USUAL, _USUAL_MADE // scale))
        return -(-usual // multiple) * multiple
    if options.tile % multiple:
        raise UsageError(
            f"{painter.name} does not take tiles of this side",
            got=f"--tile {options.tile}",
            allowed=f"multiples of {multiple}, or 0 for the whole picture at once",
        )
    return options.tile


class _Work:
    """Paints one picture after the other; knows the network's reach once it had to be measured."""

    def __init__(self, painter: Painter, options: ApplyOptions, side: int, record: Record):
        self.painter, self.options, self.side, self.record = painter, options, side, record
        self.reach = Reach(**record.reach) if record.reach else None

    def paint(self, source: Path, target: Path) -> None:
        """One picture from file to file, written down when done."""
        try:
            picture = read_picture(source)
            digest = sha256(source)
        except (PocketganError, OSError) as error:
            raise _Unread(str(error)) from error
        tiling = self._tiling(picture)
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

    def _tiling(self, picture: Picture) -> Tiling:
        """How to cut a picture; measures the network when the first one has to be cut."""
        fixed, multiple, (height, width) = self.painter.fixed, self.painter.image.multiple, picture.size
        tile = fixed or (self.side, self.side)
        whole = Tiling(fixed or _grown(picture.size, multiple, None), multiple=multiple)
        fits = height <= tile[0] and width <= tile[1] if fixed else height * width <= self.side**2
        if fits or not (fixed or self.side):
            return whole
        if self.reach is None:
            pixels = picture.values(self.painter.image.channels[0])(picture.pixels)
            self.reach = measure(self.painter, pixels, tile)
            self.record.set_reach(asdict(self.reach))
        if self.reach.everywhere and not fixed and self.options.tile is None:
            made = height * width * self.painter.image.scale**2
            if made <= _WHOLE_MADE**2:
                return whole
        return self.reach.tiling(tile, self.options.overlap)

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
