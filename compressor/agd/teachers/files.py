"""Teachers that are ONNX or TFLite files; what such a file does not say is found by running it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compressor.agd.teachers.identity import identity_of
from compressor.agd.teachers.runtimes import LAYOUTS, OpenedFile, open_onnx, open_tflite
from compressor.errors import PocketganError, UsageError
from compressor.files import read_json, sha256
from compressor.generators.spec import ImageFormat

if TYPE_CHECKING:
    import torch

SUFFIXES = (".onnx", ".tflite")
_PROBE = 64  # side of the pictures that a file of free size is tried on
_RANGES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))
_GIVE = "say it: --input-range LO,HI --output-range LO,HI"


class FileTeacher:
    """An ONNX or TFLite file as a teacher.

    Ranges, layout and scale are those given, else what our exporter wrote (in the file, or in the
    export.json beside it), else what a few runs show, which `notes` then says.

    Args:
        path: the file.
        stated: fields of `ImageFormat` that are known.
        layout: "NCHW" or "NHWC" where the file's shape does not tell.

    Raises:
        PocketganError: the runtime is missing or refuses the file, or its ranges cannot be told.
        UsageError: what is stated contradicts the file.
    """

    def __init__(self, path: Path, stated: Mapping[str, Any] | None = None, layout: str | None = None):
        if not path.is_file():
            raise PocketganError(f"there is no file {path}")
        if layout not in (None, *LAYOUTS):
            raise UsageError("a layout is NCHW or NHWC", got=layout)
        self.path = path
        given = dict(stated or {})
        told = _told_beside(path)
        layout = layout or told.pop("layout", None)
        opened = (open_onnx if path.suffix.lower() == ".onnx" else open_tflite)(path, layout)
        self._opened = opened
        told = {**_told_inside(opened), **told}
        self.fixed = opened.fixed
        notes: list[str] = []
        channels = opened.channels or (given.get("channels") or (3, 3))[0]
        side = opened.fixed or (_PROBE, _PROBE)
        made = self.run(np.zeros((1, channels, *side), np.float32))
        scale = _scale(path, side, made.shape)
        ImageFormat(channels=(channels, made.shape[1])).need_pictures(path)
        ranges = {name: given.get(name) or told.get(name) for name in ("input_range", "output_range")}
        if None in ranges.values():
            found = _ranges(path, self.run, (channels, *side), scale)
            known = ranges["output_range"] or ranges["input_range"] or found
            ranges = {name: value or known for name, value in ranges.items()}
            notes.append(
                f"{path.name} does not say its ranges: input {_text(ranges['input_range'])} and output "
                f"{_text(ranges['output_range'])} are assumed from how it answers; to correct: {_GIVE}"
            )
        multiple = given.get("multiple") or (1 if opened.fixed else self._multiple(channels, scale))
        usual = opened.fixed or ((256, 256) if scale == 1 else (64, 64))
        image = ImageFormat(
            input_range=_pair(ranges["input_range"]),
            output_range=_pair(ranges["output_range"]),
            size=tuple(given.get("size") or usual),
            scale=scale,
            multiple=multiple,
            channels=(channels, made.shape[1]),
        )
        if opened.fixed and image.size != opened.fixed:
            raise _wrong_size(path, image.size, opened.fixed, UsageError)
        for name, words in (("scale", "another scale"), ("channels", "other channels")):
            if (value := given.get(name)) not in (None, has := getattr(image, name)):
                raise UsageError(f"{path} has {words}", got=value, allowed=has, fix=f"leave --{name} out")
        self.image, self.notes = image, tuple(notes)
        self.identity = identity_of(opened.content, image)

    def __call__(self, pictures: torch.Tensor) -> torch.Tensor:
        """See `Teacher`."""
        import torch

        size = (int(pictures.shape[2]), int(pictures.shape[3]))
        if self.fixed and size != self.fixed:
            raise _wrong_size(self.path, size, self.fixed)
        values = pictures.detach().cpu().float().numpy()
        return torch.from_numpy(np.concatenate([self.run(values[i : i + 1]) for i in range(len(values))]))

    def run(self, picture: np.ndarray) -> np.ndarray:
        """One picture (1, C, H, W) -> (1, C', scale H, scale W), float32, in the file's own ranges.

        Raises:
            PocketganError: the file does not take a picture of this size, or its runtime fails.
        """
        try:
            return self._opened.run(picture)
        except PocketganError:
            raise
        except Exception as error:  # the runtimes' own kinds
            raise PocketganError(
                f"{self.path} does not take a picture of {picture.shape[2]}x{picture.shape[3]}",
                got=(str(error).strip() or type(error).__name__).splitlines()[0],
                fix="export it for the size you want, or say what it needs: --multiple N",
            ) from error

    def _multiple(self, channels: int, scale: int) -> int:
        """The smallest power of 2 that sides must be multiples of, by trying."""
        for multiple in (1, 2, 4, 8, 16, 32):
            side = _PROBE + multiple
            try:
                made = self.run(np.zeros((1, channels, side, side), np.float32))
            except PocketganError:
                continue
            if made.shape[2:] == (side * scale, side * scale):
                return multiple
        return _PROBE


def _wrong_size(
    path: Path, size: tuple[int, int], fixed: tuple[int, int], kind: type[PocketganError] = PocketganError
) -> PocketganError:
    return kind(
        f"{path} is made for one size of pictures",
        got=f"{size[0]}x{size[1]}",
        allowed=f"{fixed[0]}x{fixed[1]}",
        fix=f"--size {fixed[0]}x{fixed[1]}, or export it for the size you want",
    )


def _scale(path: Path, side: tuple[int, int], shape: tuple[int, ...]) -> int:
    scale = shape[2] // side[0]
    if shape[2:] != (side[0] * scale, side[1] * scale) or not scale:
        raise PocketganError(
            f"{path} does not scale its pictures by a whole number",
            got=f"{side[0]}x{side[1]} -> {shape[2]}x{shape[3]}",
            allowed="the same size, or 2, 3, 4 times as large",
            fix="export the generator with one picture as input and one as output",
        )
    return scale


def _told_inside(opened: OpenedFile) -> dict[str, Any]:
    """What our exporter wrote into a file; nothing where it was made by others."""
    try:
        return {
            name: _pair(json.loads(opened.metadata[name]))
            for name in ("input_range", "output_range")
            if name in opened.metadata
        }
    except (ValueError, TypeError):
        return {}


def _told_beside(path: Path) -> dict[str, Any]:
    """What export.json in the same folder says of this very file."""
    beside = path.with_name("export.json")
    if not beside.is_file():
        return {}
    try:
        document = read_json(beside)
        for file in document["files"]:
            if file["file"] == path.name and file["sha256"] == sha256(path):
                told = document["input"]
                if file.get("io", "float32") != "float32":  # it takes bytes, and says so itself
                    return {"layout": file["input_layout"]}
                return {
                    "input_range": _pair(told["range"]),
                    "output_range": _pair(told["output_range"]),
                    "layout": file["input_layout"],
                }
    except (PocketganError, KeyError, TypeError, ValueError):
        pass  # not an export of ours
    return {}


def _ranges(path: Path, run: Any, shape: tuple[int, int, int], scale: int) -> tuple[float, float]:
    """The values of black and white, from what the network answers to pictures and to wild noise.

    A last tanh or sigmoid shows in outputs that never leave [-1, 1] or [0, 1]; an upscaler is tried in each
    range, and the one counts in which it gives back a smooth picture.
    """
    draw = np.random.default_rng(0)
    wild = run(30 * draw.standard_normal((1, *shape)).astype(np.float32))
    if np.isfinite(wild).all():
        low, high = float(wild.min()), float(wild.max())
        if -1 - 1e-5 <= low < -0.05 and high <= 1 + 1e-5:  # runtimes' tanh is good to a few bits
            return (-1.0, 1.0)
        if low >= -1e-5 and high <= 1 + 1e-5 and scale == 1:
            return (0.0, 1.0)
    smooth = _smooth(shape)
    misses = []
    for low, high in _RANGES:
        made = (run(smooth * np.float32(high - low) + np.float32(low)) - low) / (high - low)
        grown = smooth.repeat(scale, axis=2).repeat(scale, axis=3)
        same = made.shape == grown.shape and np.isfinite(made).all()
        misses.append(float(np.abs(made - grown).mean()) if same else np.inf)
    best = int(np.argmin(misses))
    if scale > 1 and misses[best] < 0.1:
        return _RANGES[best]
    raise PocketganError(f"{path} does not say what its black and white are", fix=_GIVE)


def _smooth(shape: tuple[int, int, int]) -> np.ndarray:
    """A picture (1, C, H, W) of slow waves in [0.1, 0.9]."""
    rows, columns = np.mgrid[0 : shape[1], 0 : shape[2]] / 32
    planes = [0.5 + 0.2 * np.sin(2 * rows + k) + 0.2 * np.cos(3 * columns - k) for k in range(shape[0])]
    return np.stack(planes)[None].astype(np.float32)


def _pair(values: Any) -> tuple[float, float]:
    low, high = (float(value) for value in values)
    return low, high


def _text(pair: Any) -> str:
    return f"[{pair[0]:g}, {pair[1]:g}]"
