"""Pictures for translation: pairs (aligned) and two sets (unaligned), and batches drawn from them.

As published: a picture is scaled to 286x286, cut to 256x256 at a random place and mirrored half of the
time; both pictures of a pair alike. A batch depends on nothing but the seed and the step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from compressor.data.images import list_images, read_image, to_tensor
from compressor.errors import PocketganError, UsageError
from compressor.generators.spec import ImageFormat

if TYPE_CHECKING:
    import torch

_CACHE = 1 << 30  # bytes of scaled pictures kept in memory
_JITTER = 286 / 256  # published load size over crop size
_MARKS = ("_real_A", "_real_B")
DIRECTIONS = ("AtoB", "BtoA")


@dataclass(frozen=True)
class Pair:
    """Two pictures of the same thing.

    Attributes:
        a: the file of A; of both, where `b` is None: A is its left half, B its right.
        b: the file of B.
    """

    a: Path
    b: Path | None = None


def find_pairs(folder: Path, partner: Path | None = None) -> list[Pair]:
    """All pairs of a folder, or of two, sorted by name.

    A pair is: files of the same name (without the ending) in `folder` and `partner`, or in the folders A
    and B below `folder`; NAME_real_A and NAME_real_B in one folder, as upstream's test program writes
    them; or one picture with A as its left half and B as its right.

    Raises:
        PocketganError: no pictures, a picture without its partner, or a picture that is not two.
    """
    if partner is None and (folder / "A").is_dir() and (folder / "B").is_dir():
        folder, partner = folder / "A", folder / "B"
    if partner is not None:
        return _match(_by_name(folder, list_images(folder)), _by_name(partner, list_images(partner)))
    pictures = list_images(folder)
    marked = [[path for path in pictures if path.stem.endswith(mark)] for mark in _MARKS]
    if any(marked):
        ours, theirs = (
            {str(path.relative_to(folder).with_name(path.stem.removesuffix(mark))): path for path in paths}
            for mark, paths in zip(_MARKS, marked, strict=True)
        )
        return _match(ours, theirs)
    for path in pictures:
        _check_two(path)
    return [Pair(path) for path in pictures]


def _by_name(folder: Path, paths: Iterable[Path]) -> dict[str, Path]:
    return {str(path.relative_to(folder).with_suffix("")): path for path in paths}


def _match(ours: dict[str, Path], theirs: dict[str, Path]) -> list[Pair]:
    for side, here, there in (("B", ours, theirs), ("A", theirs, ours)):
        if lonely := sorted(set(here) - set(there)):
            raise PocketganError(
                f"{here[lonely[0]]} has no partner in {side}",
                got=f"{len(lonely)} pictures without one",
                allowed="a picture of the same name for each",
            )
    return [Pair(ours[name], theirs[name]) for name in sorted(ours)]


def _check_two(path: Path) -> None:
    from PIL import Image

    try:
        with Image.open(path) as file:
            width, height = file.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise PocketganError(f"{path} cannot be read as a picture", got=error) from error
    if width % 2 or width <= height:
        raise PocketganError(
            f"{path} is not two pictures side by side",
            got=f"{width}x{height} (width x height)",
            allowed="A as its left half and B as its right; or folders A and B; or NAME_real_A, NAME_real_B",
        )


@dataclass(frozen=True)
class Draw:
    """How pictures are prepared.

    Attributes:
        crop: (H, W) of the training pictures.
        load: (H, W) they are scaled to before.
        batch: pictures in a step.
        seed: batches are equal for equal (seed, step).
        flip: mirror half of them.
    """

    crop: tuple[int, int]
    load: tuple[int, int]
    batch: int
    seed: int
    flip: bool = True


def prepare(
    image: ImageFormat, *, crop: int | None, load: int | None, batch: int, seed: int, flip: bool = True
) -> Draw:
    """How to draw pictures for a generator: None takes its usual size, and 286/256 of it.

    Raises:
        UsageError: the sizes do not suit the generator or each other.
    """
    height, width = (crop, crop) if crop else image.size
    sides = (load, load) if load else (round(height * _JITTER), round(width * _JITTER))
    if height % image.multiple or width % image.multiple:
        raise UsageError(
            "crop does not suit the generator", got=crop, allowed=f"multiples of {image.multiple}"
        )
    if sides[0] < height or sides[1] < width:
        raise UsageError("load is smaller than crop", got=load, allowed=f"{max(height, width)} or more")
    return Draw((height, width), sides, batch, seed, flip)


class PairedBatches:
    """Batches of pairs: (input, target), float32 (batch, C, H, W) in the generator's ranges.

    Every epoch shows each pair once, in an order of its own.

    Args:
        pairs: from `find_pairs`.
        image: the generator's format.
        draw: how to prepare them.
        direction: "AtoB" or "BtoA".
    """

    def __init__(self, pairs: Sequence[Pair], image: ImageFormat, draw: Draw, direction: str = "AtoB"):
        if direction not in DIRECTIONS:
            raise UsageError("no such direction", got=direction, allowed=", ".join(DIRECTIONS))
        if not pairs:
            raise PocketganError("there are no pairs to train on")
        self.pairs, self.image, self.draw, self.direction = list(pairs), image, draw, direction
        self._read = _Scaled(draw.load)

    @property
    def epoch(self) -> int:
        """Steps in which every pair is shown once."""
        return -(-len(self.pairs) // self.draw.batch)

    def __call__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The batch of a step."""
        import torch

        random = np.random.default_rng([self.draw.seed, 1, step])
        made = []
        for index in _shown(self.draw, len(self.pairs), step):
            cut = _cut(self.draw, random)
            made.append([cut(picture) for picture in self._pictures(self.pairs[index])])
        ranges = (self.image.input_range, self.image.output_range)
        inputs, targets = (
            torch.cat([to_tensor(picture, value_range) for picture in pictures])
            for pictures, value_range in zip(zip(*made, strict=True), ranges, strict=True)
        )
        return inputs, targets

    def _pictures(self, pair: Pair) -> tuple[np.ndarray, np.ndarray]:
        files = [
            (pair.a, "left" if pair.b is None else ""),
            (pair.b or pair.a, "right" if pair.b is None else ""),
        ]
        if self.direction == "BtoA":
            files.reverse()
        first, second = (
            self._read(path, half, channels)
            for (path, half), channels in zip(files, self.image.channels, strict=True)
        )
        return first, second


class UnpairedBatches:
    """Batches of two sets: (A, B), each (batch, C, H, W) in `value_range`, cut and mirrored on their own.

    An epoch is as long as the larger set; A comes in an order of the epoch, B is drawn at random.

    Args:
        a, b: pictures of either set.
        channels: of A and of B.
        value_range: black and white.
        draw: how to prepare them.
    """

    def __init__(
        self,
        a: Sequence[Path],
        b: Sequence[Path],
        channels: tuple[int, int],
        value_range: tuple[float, float],
        draw: Draw,
    ):
        if not a or not b:
            raise PocketganError("there are no pictures to train on", got=f"{len(a)} of A, {len(b)} of B")
        self.a, self.b, self.channels, self.value_range, self.draw = (
            list(a),
            list(b),
            channels,
            value_range,
            draw,
        )
        self._read = _Scaled(draw.load)

    @property
    def epoch(self) -> int:
        """Steps in which every picture of the larger set may be shown once."""
        return -(-max(len(self.a), len(self.b)) // self.draw.batch)

    def __call__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The batch of a step."""
        import torch

        random = np.random.default_rng([self.draw.seed, 1, step])
        ours, theirs = [], []
        for index in _shown(self.draw, max(len(self.a), len(self.b)), step):
            path = self.a[index % len(self.a)]
            ours.append(_cut(self.draw, random)(self._read(path, "", self.channels[0])))
            path = self.b[int(random.integers(len(self.b)))]
            theirs.append(_cut(self.draw, random)(self._read(path, "", self.channels[1])))
        return (
            torch.cat([to_tensor(picture, self.value_range) for picture in ours]),
            torch.cat([to_tensor(picture, self.value_range) for picture in theirs]),
        )


def _shown(draw: Draw, count: int, step: int) -> list[int]:
    """The pictures of a step: each epoch is an order of its own; the last batch wraps into the next."""
    shown = []
    for position in range(step * draw.batch, (step + 1) * draw.batch):
        epoch, place = divmod(position, count)
        shown.append(int(np.random.default_rng([draw.seed, 0, epoch]).permutation(count)[place]))
    return shown


def _cut(draw: Draw, random: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
    """One crop and mirroring, the same for every picture it is applied to."""
    top = int(random.integers(draw.load[0] - draw.crop[0] + 1))
    left = int(random.integers(draw.load[1] - draw.crop[1] + 1))
    mirrored = random.random() < 0.5 and draw.flip

    def apply(pixels: np.ndarray) -> np.ndarray:
        cut = pixels[top : top + draw.crop[0], left : left + draw.crop[1]]
        return cut[:, ::-1] if mirrored else cut

    return apply


class _Scaled:
    """Reads pictures, scales them to one size (proportions are not kept, as published), remembers them."""

    def __init__(self, size: tuple[int, int]):
        self.size = size
        self._cache: dict[tuple[Path, str, int], np.ndarray] = {}
        self._cached = 0

    def __call__(self, path: Path, half: str, channels: int) -> np.ndarray:
        """(H, W, channels) in [0, 1]; `half` is "left", "right" or "" for all of it."""
        key = (path, half, channels)
        if key in self._cache:
            return self._cache[key]
        pixels = read_image(path, channels)
        if half:
            middle = pixels.shape[1] // 2
            pixels = pixels[:, :middle] if half == "left" else pixels[:, middle:]
        pixels = _scale(pixels, self.size)
        if self._cached + pixels.nbytes <= _CACHE:
            self._cache[key] = pixels
            self._cached += pixels.nbytes
        return pixels


def _scale(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    from PIL import Image

    planes = [
        np.asarray(Image.fromarray(np.ascontiguousarray(plane)).resize(size[::-1], Image.Resampling.BICUBIC))
        for plane in np.moveaxis(pixels, 2, 0)
    ]
    return np.clip(np.stack(planes, axis=2), 0.0, 1.0)
