"""Whatever paints a picture: an exported file in its runtime, or a generator in PyTorch."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compressor.errors import PocketganError
from compressor.generators.spec import ImageFormat

if TYPE_CHECKING:
    from compressor.generators import Generator

SUFFIXES = (".onnx", ".tflite")


class NotPainted(PocketganError):
    """One picture could not be painted; others may."""


@dataclass(frozen=True)
class Painter:
    """Something that makes a picture of a picture.

    Attributes:
        name: for messages.
        image: ranges, scale, multiple and channels.
        fixed: the only input (H, W) it takes, or None.
        identity: hash of all that its outputs depend on.
        notes: what was assumed about it, one sentence each.
    """

    name: str
    image: ImageFormat
    fixed: tuple[int, int] | None
    identity: str
    notes: tuple[str, ...] = ()
    _run: Callable[[np.ndarray], np.ndarray] = field(repr=False, default=lambda values: values)

    def paint(self, pixels: np.ndarray) -> np.ndarray:
        """(h, w, C) float32 in [0, 1] -> (scale h, scale w, C') float32, clipped to [0, 1].

        Raises:
            NotPainted: it does not take this size, or answers with something that is no picture.
        """
        low, high = self.image.input_range
        values = np.ascontiguousarray(np.moveaxis(pixels, 2, 0)[None], np.float32)
        try:
            made = self._run(values * np.float32(high - low) + np.float32(low))
        except PocketganError as error:
            raise NotPainted(error.what, got=error.got, allowed=error.allowed, fix=error.fix) from error
        wanted = (1, self.image.channels[1], *(side * self.image.scale for side in pixels.shape[:2]))
        if made.shape != wanted:
            raise NotPainted(f"{self.name} paints pictures of another size", got=made.shape, allowed=wanted)
        low, high = self.image.output_range
        shown = (np.moveaxis(made[0], 0, 2) - np.float32(low)) / np.float32(high - low)
        if not np.isfinite(shown).all():
            raise NotPainted(f"{self.name} answers with values that are no numbers (NaN or infinity)")
        return np.clip(shown, 0.0, 1.0)


def open_file(path: Path, stated: Mapping[str, Any] | None = None) -> Painter:
    """An ONNX or TFLite file; needs its runtime, but no torch.

    Args:
        path: the file; what it does not say of its ranges is looked for in the export.json beside it,
            then found by running it, which `notes` says.
        stated: fields of `ImageFormat` that the user knows better.

    Raises:
        PocketganError: it is missing or damaged, takes no picture, or its runtime is not installed.
        UsageError: `stated` contradicts the file.
    """
    from compressor.agd.teachers.files import FileTeacher

    file = FileTeacher(path, stated)
    return Painter(path.name, file.image, file.fixed, file.identity, file.notes, file.run)


def of_generator(generator: Generator) -> Painter:
    """A generator, run by PyTorch on the CPU at any size that is a multiple of what it needs.

    Raises:
        UsageError: it does not go from picture to picture.
    """
    import torch

    from compressor.agd.teachers.identity import digest

    module = generator.module.eval()

    def run(values: np.ndarray) -> np.ndarray:
        try:
            with torch.inference_mode():
                return module(torch.from_numpy(values)).float().numpy()
        except (RuntimeError, ValueError) as error:
            size, said = f"{values.shape[2]}x{values.shape[3]}", str(error) or type(error).__name__
            if "memory" in said:
                raise PocketganError(
                    f"not enough memory to paint {size} at once", fix="--tile 256"
                ) from error
            raise PocketganError(
                f"{generator.path.name} does not take a picture of {size}",
                got=said.splitlines()[0],
                fix="say what its sides must be multiples of: --multiple N",
            ) from error

    generator.spec.image.need_pictures(generator.path)
    identity = digest(generator.sha256, json.dumps(generator.spec.as_json(), sort_keys=True))
    return Painter(generator.path.name, generator.spec.image, None, identity, generator.notes, run)
