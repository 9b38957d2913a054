"""A generator over many pictures of any size: tiled where it must be, one picture in memory at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from compressor.errors import GateError, UsageError
from compressor.files import claim_folder, sweep
from compressor.progress import Progress
from exporters.apply.painter import NotPainted, Painter
from exporters.apply.reach import Reach
from exporters.apply.record import FORMAT, Done, Record
from exporters.apply.work import Unread, Work

__all__ = ["ApplyOptions", "ApplyResult", "apply"]

_USUAL, _USUAL_MADE, _LEAST = 512, 1024, 64  # sides of a tile: in, out, and never below


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
    sweep(output)
    task = {"format": FORMAT, "model": painter.identity, "side": side, **asdict(options)}
    work = Work(painter, options, side, Record(output, task))
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
            except Unread as error:
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
