"""The teacher whose weights nobody has: pictures and what it made of them, in two folders."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from compressor.agd.teachers.identity import digest
from compressor.data.images import fit, list_images, read_image, to_tensor
from compressor.errors import PocketganError, UsageError
from compressor.files import sha256
from compressor.generators.spec import ImageFormat

_MARK = re.compile(r"(?<=.)[-_.](real|fake|in|input|out|output|lr|hr|sr)([-_][ab])?$", re.IGNORECASE)


class FolderTeacher:
    """Outputs read from files, matched with their inputs by name.

    Names match when they are equal without their endings; or without what all names of a folder end in
    (horse7_real.png, horse7_fake.png); or without a mark such as _real, _fake, _input, _output, _lr, _hr.

    Args:
        inputs: the input pictures.
        outputs: folder of the teacher's pictures, 8 or 16 bits; more than there are inputs do no harm.
        image: the student's format. For translation both pictures are scaled and cut to its usual size;
            for super resolution an output must be `scale` times as large as its input.

    Raises:
        PocketganError: an input has no output, or two inputs have the same.
    """

    notes: tuple[str, ...] = ()
    fixed: tuple[int, int] | None = None

    def __init__(self, inputs: Sequence[Path], outputs: Path, image: ImageFormat):
        self.image = image
        self.partners = match(list(inputs), list_images(outputs))
        told = [f"{path.name} {sha256(partner)}" for path, partner in sorted(self.partners.items())]
        self.identity = digest("folder", *told, str(image.scale), str(image.output_range))
        self._known: dict[bytes, Path] | None = None

    def output_of(self, path: Path, size: tuple[int, int]) -> np.ndarray:
        """The teacher's picture for an input file, (1, C, scale H, scale W) in the output range.

        Args:
            path: one of the inputs.
            size: (H, W) that the input was brought to.
        """
        if path not in self.partners:
            raise PocketganError(f"the teacher made nothing of {path}", allowed="the pictures it was given")
        wanted = read_image(self.partners[path], self.image.channels[1])
        large = (size[0] * self.image.scale, size[1] * self.image.scale)
        if self.image.scale == 1:
            wanted = fit(wanted, large)
        elif wanted.shape[:2] != large:
            raise PocketganError(
                f"{self.partners[path]} is not {self.image.scale} times as large as its input",
                got=wanted.shape[:2],
                allowed=large,
            )
        return to_tensor(wanted, self.image.output_range).numpy()

    def __call__(self, pictures: torch.Tensor) -> torch.Tensor:
        """Outputs of whole input pictures as they are in the files; others it cannot know."""
        if self._known is None:
            self._known = {_levels(self._input(path)): path for path in self.partners}
        size = (int(pictures.shape[2]), int(pictures.shape[3]))
        made = []
        for picture in pictures:
            path = self._known.get(_levels(picture[None]))
            if path is None:
                raise PocketganError(
                    "a folder of outputs knows only the pictures it was made of",
                    fix="take batches from TaughtPictures, or give a teacher that can be run",
                )
            made.append(torch.from_numpy(self.output_of(path, size)))
        return torch.cat(made)

    def _input(self, path: Path) -> torch.Tensor:
        pixels = read_image(path, self.image.channels[0])
        pixels = fit(pixels, self.image.size) if self.image.scale == 1 else pixels
        return to_tensor(pixels, self.image.input_range)


def _levels(picture: torch.Tensor) -> bytes:
    return hashlib.sha256(picture.detach().cpu().float().contiguous().numpy().tobytes()).digest()


def match(inputs: Sequence[Path], outputs: Sequence[Path]) -> dict[Path, Path]:
    """The output of each input, by name.

    Raises:
        PocketganError: an input has none, or names are not unique.
    """
    reasons = []
    for ours, theirs in (
        ([path.stem for path in inputs], [path.stem for path in outputs]),
        (_without_common_end(inputs), _without_common_end(outputs)),
        ([_MARK.sub("", path.stem) for path in inputs], [_MARK.sub("", path.stem) for path in outputs]),
    ):
        if len(set(ours)) < len(ours) or len(set(theirs)) < len(theirs):
            continue
        found = dict(zip(theirs, outputs, strict=True))
        lonely = [path for name, path in zip(ours, inputs, strict=True) if name not in found]
        if not lonely:
            return {path: found[name] for name, path in zip(ours, inputs, strict=True)}
        reasons.append((len(lonely), lonely[0]))
    if not reasons:
        raise UsageError("pictures of the same name cannot be told apart", got=inputs[0].name)
    count, first = min(reasons)
    raise PocketganError(
        f"{first} has no partner among the teacher's outputs",
        got=f"{count} of {len(inputs)} pictures without one",
        allowed="an output of the same name for each input, such as horse7_real.png and horse7_fake.png",
    )


def _without_common_end(paths: Sequence[Path]) -> list[str]:
    """Stems without what all of them end in, from a separator on."""
    stems = [path.stem for path in paths]
    end = min(stems, key=len)
    while end and not all(stem.endswith(end) for stem in stems):
        end = end[1:]
    start = min((at for at in (end.find(mark) for mark in "_-.") if at >= 0), default=len(end))
    end = end[start:]
    return [stem.removesuffix(end) if end and stem != end else stem for stem in stems]
