"""What an export hands over: one record a file, read from and written to export.json. No torch."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from compressor.errors import PocketganError
from compressor.files import read_json, write_json
from compressor.typed import fields_of, typed
from exporters.departures import Departure
from exporters.drop import Drop, Point

FORMAT = "pocketgan.export/1"
FILE = "export.json"
PRECISIONS = ("fp32", "fp16", "int8", "int8-dynamic", "w8a16")
USUAL = PRECISIONS[:3]  # written where nothing else is said
GIVEN = "as given"  # the kind of a file that somebody else made: nothing to compare it with


@dataclass(frozen=True)
class ImageParity:
    """One picture's distance between an exported file and PyTorch.

    Attributes:
        name: the picture's file name.
        max_abs: largest difference of any value, as a share of the output range (1 = black to white).
        psnr: dB between the two pictures mapped to [0, 1]; infinite when equal, 0 when the file gave NaN.
        ssim: structural similarity in [-1, 1]; None for pictures under 11 pixels a side.
    """

    name: str
    max_abs: float
    psnr: float
    ssim: float | None


@dataclass(frozen=True)
class Parity:
    """How far a file is from the PyTorch module it was made of, and whether that is near enough.

    Attributes:
        images: one entry for each picture that was compared.
        threshold_psnr: dB that the worst of them must reach; its figures stand beside, in export.json as
            `max_abs`, `psnr_min`, `ssim_min`, `worst` and `passed`.
    """

    images: tuple[ImageParity, ...]
    threshold_psnr: float

    @property
    def max_abs(self) -> float:
        return max(image.max_abs for image in self.images)

    @property
    def psnr_min(self) -> float:
        return min(image.psnr for image in self.images)

    @property
    def ssim_min(self) -> float | None:
        return min((image.ssim for image in self.images if image.ssim is not None), default=None)

    @property
    def worst(self) -> str:
        """The picture of the lowest PSNR."""
        return min(self.images, key=lambda image: image.psnr).name

    @property
    def passed(self) -> bool:
        return self.psnr_min >= self.threshold_psnr

    def as_json(self) -> dict[str, Any]:
        return {
            "images": [
                asdict(replace(image)) | {"max_abs": _finite(image.max_abs), "psnr": _finite(image.psnr)}
                for image in self.images
            ],
            "max_abs": _finite(self.max_abs),
            "psnr_min": _finite(self.psnr_min),
            "ssim_min": self.ssim_min,
            "worst": self.worst,
            "threshold_psnr": self.threshold_psnr,
            "passed": self.passed,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Parity:
        images = tuple(
            ImageParity(
                typed(str, image["name"], "name"),
                _number(image["max_abs"]),
                _number(image["psnr"]),
                typed(float | None, image["ssim"], "ssim"),
            )
            for image in document["images"]
        )
        if not images:
            raise ValueError("no picture was compared")
        return cls(images, typed(float, document["threshold_psnr"], "threshold_psnr"))


@dataclass(frozen=True)
class Delegation:
    """How much of a TFLite file XNNPACK runs.

    Attributes:
        nodes: operators in the file.
        delegated: those that XNNPACK runs.
        partitions: the connected pieces that they form.
    """

    nodes: int
    delegated: int
    partitions: int


@dataclass(frozen=True)
class ExportedFile:
    """One file of an export, or the reason why it is missing.

    Attributes:
        file: its name in the folder, "generator-fp32.onnx".
        runtime: "onnxruntime" or "litert".
        precision: what was asked for: "fp32", "fp16", "int8", "int8-dynamic" or "w8a16".
        kind: what it is: "fp32", "fp16" (half arithmetic), "fp16-weights" (half weights, float
            arithmetic), "int8-static", "int8-dynamic", "w8a16" (int8 weights, 16-bit activations), or `GIVEN`
            for a file that somebody else made.
        bytes: the file's size.
        sha256: hash of its content.
        seconds: the time it took to make and check.
        peak_mb: peak resident memory in MiB of the process that made it, while it did; None: not measured.
        input_layout: "NCHW" or "NHWC".
        io: type of input and output: "float32", in the network's own range; "uint8" or "int8", a picture's
            bytes, whatever that range (`exporters.byte_pictures`).
        parity: against the PyTorch module.
        dtypes: constants stored in the file, counted by their type.
        delegation: of a TFLite file.
        departures: its TRANSPOSEs and what XNNPACK does not run, each explained where that can be.
        float_layers: of a file with integers, the convolutions kept in float.
        trade: of an INT8 file that was planned, the divisions tried, from most integers to most floats.
        drop: of an INT8 file held to true pictures, how much further from them it is than the network.
        notes: facts a reader should know, in words (ranges used, rewrites made, fallbacks taken).
        error: why there is no such file, or None.
    """

    file: str
    runtime: str
    precision: str
    kind: str
    bytes: int = 0
    sha256: str = ""
    seconds: float = 0.0
    peak_mb: float | None = None
    input_layout: str = "NCHW"
    parity: Parity | None = None
    dtypes: Mapping[str, int] = field(default_factory=dict)
    delegation: Delegation | None = None
    float_layers: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    error: str | None = None
    trade: tuple[Point, ...] = ()
    drop: Drop | None = None
    departures: tuple[Departure, ...] = ()
    io: str = "float32"

    @property
    def passed(self) -> bool:
        """True when the file is there and near enough to PyTorch, and to the truth if it is held to that."""
        near = self.error is None and self.parity is not None and self.parity.passed
        return near and (self.drop is None or self.drop.passed)

    def as_json(self) -> dict[str, Any]:
        return {
            **{name: getattr(self, name) for name in _PLAIN},
            "peak_mb": self.peak_mb,
            "parity": None if self.parity is None else self.parity.as_json(),
            "dtypes": dict(self.dtypes),
            "delegation": None if self.delegation is None else asdict(self.delegation),
            "float_layers": list(self.float_layers),
            "notes": list(self.notes),
            "trade": [asdict(point) for point in self.trade],
            "drop": None if self.drop is None else self.drop.as_json(),
            "departures": [asdict(each) for each in self.departures],
            "io": self.io,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> ExportedFile:
        """Read one record; what is newer than the rest may be missing."""
        found = cls(**fields_of(cls, document))
        if b"\0" in os.fsencode(found.file):  # which refuses halves of surrogate pairs
            raise ValueError("no file has such a name")
        return found


_PLAIN = (
    "file",
    "runtime",
    "precision",
    "kind",
    "bytes",
    "sha256",
    "seconds",
    "input_layout",
    "error",
)


@dataclass(frozen=True)
class ExportResult:
    """All files made of one generator.

    Attributes:
        folder: where they lie.
        generator: {"name", "sha256", "family"} of what was exported.
        input: {"shape" (N, C, H, W), "range", "output_range", "scale"}; values of black and white.
        settings: what decides the files' content; a resumed export reuses files of equal settings.
        versions: of the tools that made them.
        files: in the order they were made.
    """

    folder: Path
    generator: Mapping[str, Any]
    input: Mapping[str, Any]
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    files: tuple[ExportedFile, ...]

    @property
    def passed(self) -> bool:
        return all(file.passed for file in self.files)

    def as_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "generator": dict(self.generator),
            "input": dict(self.input),
            "settings": dict(self.settings),
            "versions": dict(self.versions),
            "passed": self.passed,
            "files": [file.as_json() for file in self.files],
        }

    def write(self) -> None:
        """Write export.json, atomically."""
        write_json(self.folder / FILE, self.as_json())


def read_export(folder: Path) -> ExportResult:
    """Read the export.json of a folder.

    Raises:
        PocketganError: there is none, or it is not one of ours.
    """
    path = folder / FILE
    if not path.is_file():
        raise PocketganError(
            f"{folder} holds no export", fix="make one: pocketgan export MODEL --images DIR --output-dir OUT"
        )
    document = read_json(path)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise PocketganError(
            f"{path} is of a format this version does not know",
            got=document.get("format") if isinstance(document, dict) else type(document).__name__,
            allowed=FORMAT,
        )
    try:
        return ExportResult(
            folder=folder,
            **{
                name: typed(dict[str, Any], document[name], name)
                for name in ("generator", "input", "settings")
            },
            versions=typed(dict[str, str], document["versions"], "versions"),
            files=typed(tuple[ExportedFile, ...], document["files"], "files"),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise PocketganError(f"{path} is not whole", got=f"{type(error).__name__}: {error}") from error


def _finite(value: float) -> float | None:
    """JSON has no infinity: null stands for it."""
    return value if math.isfinite(value) else None


def _number(value: float | None) -> float:
    return math.inf if value is None else float(typed(float, value, "a figure"))
