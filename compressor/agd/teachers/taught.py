"""Training pictures with what the teacher makes of them: computed once, cut by seed and step."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from compressor.agd.teachers.base import Teacher
from compressor.agd.teachers.cache import OutputCache, key_of
from compressor.agd.teachers.pairs import FolderTeacher
from compressor.data.images import fit, read_image, to_tensor
from compressor.errors import PocketganError
from compressor.files import cache_folder
from compressor.generators.spec import ImageFormat
from compressor.progress import Progress
from compressor.training.patches import CACHE
from compressor.training.truth import TruePatches

_JITTER = 286 / 256  # CycleGAN's load size over its crop size
_TILE = 256  # longest side of an upscaler's input that the teacher is run on
_MARGIN = 16  # input pixels that a crop stays away from where the teacher's picture ends
_FRAME = 4  # input pixels of a crop's edge that an upscaler's loss leaves out, at most
_VERSIONS = 4  # cuts of a picture, for translation


@dataclass(frozen=True)
class _Piece:
    """What the teacher was run on: (H, W, C) in [0, 1], and its output (C, sH, sW) in its own range."""

    pixels: np.ndarray
    output: np.ndarray
    true: np.ndarray | None  # (sH, sW, C) in [0, 1]


class TaughtPictures:
    """Draws batches of aligned crops (inputs, wanted) that depend on nothing but (seed, step).

    Translation (scale 1): the teacher sees a picture whole at the usual size, as it does in use; its norms
    look at all of it, so crops of its output are what it makes, and outputs of crops are not. Beside the
    whole picture there are `versions` - 1 cuts of it scaled by 286/256, at places that depend on the picture
    alone, so that all runs share them; a folder of outputs knows the whole picture only.

    Super resolution: the teacher sees whole pictures, or tiles of them up to 256 a side. Crops stay 16
    input pixels away from where the teacher's picture ends, if there is room, so that it knew what lies
    around them. The student does not know: `inner` cuts off the frame where that shows.

    Crops are mirrored half of the time, for super resolution also turned by multiples of 90 degrees: inputs
    and outputs alike, as published. Ranges of teacher and student may differ; outputs are converted.

    Args:
        paths: input pictures; with `truth` the true, large pictures that inputs are made from.
        teacher: see `open_teacher`.
        image: the student's format.
        crop: side of the crops at the input; the usual size if None.
        batch: crops in a batch.
        seed: batches are equal for equal (seed, step).
        cache: of outputs; by default on disk, shared between runs.
        truth: see `paths`; then `lesson` gives true pictures too.
        versions: see above; 4 if None, 1 for a folder.
        flip, turn: mirror; turn (as the scale has it if None).

    Raises:
        PocketganError: teacher and student do not fit each other or the crop.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        teacher: Teacher,
        image: ImageFormat | None = None,
        *,
        crop: int | None = None,
        batch: int = 2,
        seed: int = 0,
        cache: OutputCache | None = None,
        truth: bool = False,
        versions: int | None = None,
        flip: bool = True,
        turn: bool | None = None,
    ):
        self.image = image or teacher.image
        self.paths, self.teacher, self.batch, self.seed = list(paths), teacher, batch, seed
        for name in ("scale", "channels"):
            ours, theirs = getattr(self.image, name), getattr(teacher.image, name)
            if ours != theirs:
                raise PocketganError(f"student and teacher differ in their {name}", got=ours, allowed=theirs)
        upscales = self.image.scale > 1
        if crop is None:
            crop_size = self.image.size
            if teacher.fixed:
                crop_size = min(crop_size[0], teacher.fixed[0]), min(crop_size[1], teacher.fixed[1])
        else:
            crop_size = (crop, crop)
        self.crop = crop_size
        multiple = self.image.multiple
        largest = teacher.fixed or crop_size
        if any(s % multiple or s > most for s, most in zip(crop_size, largest, strict=True)):
            raise PocketganError(
                "the training crop does not suit student and teacher",
                got=crop_size,
                allowed=f"multiples of {multiple}" + (f" up to {largest}" if teacher.fixed else ""),
            )
        usual = self.image.size
        self.whole = teacher.fixed or (max(usual[0], crop_size[0]), max(usual[1], crop_size[1]))
        if not upscales and any(side % teacher.image.multiple for side in self.whole):
            raise PocketganError(
                "the teacher does not take pictures of the student's usual size",
                got=self.whole,
                allowed=f"multiples of {teacher.image.multiple}",
                fix="--size HxW",
            )
        folder = isinstance(teacher, FolderTeacher)
        self.versions = 1 if folder or upscales else versions or _VERSIONS
        self.flip = flip
        self.turn = (upscales if turn is None else turn) and crop_size[0] == crop_size[1]
        self.frame = min(_FRAME, min(crop_size) // 8) if upscales else 0
        self.cache = OutputCache(cache_folder() / "teachers") if cache is None else cache
        if folder:  # files already; kept in memory only
            self.cache = OutputCache(None, self.cache.memory)
        if truth and folder:
            raise PocketganError(
                "a folder of outputs cannot teach of inputs made from true pictures",
                fix="write the small inputs into files and give these as --images",
            )
        covering = replace(self.image, size=teacher.fixed or crop_size)
        self._true = TruePatches(self.paths, covering, None, batch, seed) if truth else None
        self._pixels: dict[tuple[int, int], np.ndarray] = {}
        self._pixel_bytes = 0
        self._keys: dict[tuple[int, int], str] = {}

    def __call__(self, step: int) -> torch.Tensor:
        """The inputs of a step, float32 (batch, C, H, W) in the student's input range."""
        return self.lesson(step)[0]

    def pair(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs of a step, and the teacher's (batch, C, scale H, scale W) in the student's output range."""
        inputs, wanted, *_ = self.lesson(step)
        return inputs, wanted

    def lesson(self, step: int) -> tuple[torch.Tensor, ...]:
        """`pair`, and with `truth` the true pictures as the third."""
        draw = np.random.default_rng([self.seed, step])
        rows = [self._crop(draw) for _ in range(self.batch)]
        return tuple(torch.cat(column) for column in zip(*rows, strict=True))

    def inner(self, pictures: torch.Tensor) -> torch.Tensor:
        """Outputs (N, C, H, W) without the frame in which a crop's missing surroundings show."""
        edge = self.frame * self.image.scale
        return pictures[:, :, edge : pictures.shape[2] - edge, edge : pictures.shape[3] - edge]

    def fill(self) -> None:
        """Compute every output now, with a progress bar, instead of when it is first drawn."""
        with Progress("teacher", len(self.paths)) as progress:
            for index in range(len(self.paths)):
                for part in range(self._parts(index)):
                    self._piece(index, part)
                progress.update(index + 1)

    def _crop(self, draw: np.random.Generator) -> list[torch.Tensor]:
        index = int(draw.integers(len(self.paths)))
        piece = self._piece(index, int(draw.integers(self._parts(index))))
        scale, (height, width) = self.image.scale, self.crop
        top, left = (
            self._place(draw, have, want)
            for have, want in zip(piece.pixels.shape[:2], self.crop, strict=True)
        )
        mirrored = self.flip and draw.random() < 0.5
        turns = int(draw.integers(4)) if self.turn else 0
        rows = slice(top * scale, (top + height) * scale)
        columns = slice(left * scale, (left + width) * scale)
        inputs = to_tensor(piece.pixels[top : top + height, left : left + width], self.image.input_range)
        made = [inputs, self._in_our_range(piece.output[None, :, rows, columns])]
        if piece.true is not None:
            made.append(to_tensor(piece.true[rows, columns], self.image.output_range))
        if mirrored:
            made = [values.flip(3) for values in made]
        return [torch.rot90(values, turns, (2, 3)) for values in made] if turns else made

    def _place(self, draw: np.random.Generator, have: int, want: int) -> int:
        margin = min(_MARGIN, (have - want) // 2) if self.image.scale > 1 else 0
        return int(draw.integers(margin, have - want - margin + 1))

    # Pieces

    def _parts(self, index: int) -> int:
        """How many pieces a picture has."""
        return self.versions if self.image.scale == 1 else len(self._tiles(index))

    def _piece(self, index: int, part: int) -> _Piece:
        true = None
        if self.image.scale == 1:
            pixels = self._whole(index, part)
        else:
            top, left, height, width = self._tiles(index)[part]
            pixels = self._whole(index, 0)[top : top + height, left : left + width]
            if self._true is not None:
                s = self.image.scale
                large = self._true.picture(index)[1]
                true = large[top * s : (top + height) * s, left * s : (left + width) * s]
        return _Piece(pixels, self._output(index, part, pixels), true)

    def _output(self, index: int, part: int, pixels: np.ndarray) -> np.ndarray:
        """The teacher's output, (C, sH, sW) in its own range."""
        theirs = self.teacher.image

        def make() -> np.ndarray:
            if isinstance(self.teacher, FolderTeacher):
                size = (pixels.shape[0], pixels.shape[1])
                return self.teacher.output_of(self.paths[index], size)[0]
            made = self.teacher(to_tensor(pixels, theirs.input_range))[0].numpy()
            scaled = (theirs.channels[1], pixels.shape[0] * theirs.scale, pixels.shape[1] * theirs.scale)
            if made.shape != scaled:
                raise PocketganError("the teacher's output has another shape", got=made.shape, allowed=scaled)
            return made

        if (index, part) not in self._keys:
            entry = to_tensor(pixels, theirs.input_range).numpy()
            self._keys[index, part] = key_of(self.teacher.identity, entry)
        return self.cache.get(self._keys[index, part], make)

    def _in_our_range(self, values: np.ndarray) -> torch.Tensor:
        """The teacher's values as the student's, copied."""
        (low, high), (our_low, our_high) = self.teacher.image.output_range, self.image.output_range
        if (low, high) == (our_low, our_high):
            return torch.from_numpy(np.array(values))
        gain = (our_high - our_low) / (high - low)
        return torch.from_numpy((values - np.float32(low)) * np.float32(gain) + np.float32(our_low))

    def _tiles(self, index: int) -> list[tuple[int, int, int, int]]:
        """(top, left, height, width) of an upscaler's pieces; every crop lies in one, its margin too."""
        height, width = self._whole(index, 0).shape[:2]
        if isinstance(self.teacher, FolderTeacher):
            return [(0, 0, height, width)]
        multiple = self.teacher.image.multiple
        height, width = height // multiple * multiple, width // multiple * multiple
        sides = self.teacher.fixed or (max(_TILE, self.crop[0]), max(_TILE, self.crop[1]))
        rows, columns = (
            _spread(have, side, crop + 2 * _MARGIN)
            for have, side, crop in zip((height, width), sides, self.crop, strict=True)
        )
        return [(top, left, min(sides[0], height), min(sides[1], width)) for top in rows for left in columns]

    def _whole(self, index: int, version: int) -> np.ndarray:
        """An input as the teacher's pictures are cut from, (H, W, C) in [0, 1]."""
        if self._true is not None:
            return self._true.picture(index)[0]
        found = self._pixels.get((index, version))
        if found is not None:
            return found
        pixels = read_image(self.paths[index], self.image.channels[0])
        height, width = pixels.shape[:2]
        if self.image.scale == 1:
            pixels = fit(pixels, self.whole) if version == 0 else self._jittered(pixels, version)
        elif not isinstance(self.teacher, FolderTeacher):
            least = self.teacher.fixed or self.crop
            factor = max(1.0, least[0] / height, least[1] / width)
            grown = max(least[0], round(height * factor)), max(least[1], round(width * factor))
            pixels = fit(pixels, grown) if factor > 1 else pixels
        elif height < self.crop[0] or width < self.crop[1]:
            raise PocketganError(
                f"{self.paths[index]} is smaller than the crop", got=(height, width), allowed=self.crop
            )
        if self._pixel_bytes + pixels.nbytes <= CACHE:
            self._pixels[index, version] = pixels
            self._pixel_bytes += pixels.nbytes
        return pixels

    def _jittered(self, pixels: np.ndarray, version: int) -> np.ndarray:
        """A cut of the picture scaled to cover 286/256 of the size, at a place of its own."""
        cover = max(side * _JITTER / have for side, have in zip(self.whole, pixels.shape[:2], strict=True))
        grown = [
            max(side, round(have * cover)) for side, have in zip(self.whole, pixels.shape[:2], strict=True)
        ]
        scaled = fit(pixels, (grown[0], grown[1]))
        told = hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).digest()
        draw = np.random.default_rng([version, int.from_bytes(told[:8], "big")])
        top, left = (int(draw.integers(g - side + 1)) for g, side in zip(grown, self.whole, strict=True))
        return scaled[top : top + self.whole[0], left : left + self.whole[1]]


def _spread(have: int, side: int, overlap: int) -> list[int]:
    """Starts of tiles of `side` that cover `have`, neighbours overlapping by `overlap` where that can be."""
    if have <= side:
        return [0]
    stride = max(side - overlap, side // 4, 1)
    count = 1 + -(-(have - side) // stride)
    return [round(k * (have - side) / (count - 1)) for k in range(count)]
