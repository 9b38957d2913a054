"""What prune.json, distill.json and eval.json hold, for the report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.report.watched import Watched, read_watched
from compressor.files import read_json

KINDS = ("input", "original", "compressed", "error")


@dataclass(frozen=True)
class Layer:
    """One layer before and after pruning: output channels and true MACs."""

    name: str
    kind: str
    out_before: int
    out: int
    macs_before: int
    macs: int


@dataclass(frozen=True)
class Pruning:
    """prune.json. `original` and `reached` hold macs, literature_macs, parameters and bytes."""

    asked: str
    metric: str
    target: int
    original: Mapping[str, int]
    reached: Mapping[str, int]
    layers: tuple[Layer, ...]
    kept_whole: tuple[tuple[str, str], ...]
    trajectory: tuple[Mapping[str, float], ...]
    steps: int
    watched: Watched

    @property
    def share(self) -> float:
        """Reached over original, in the budget's metric."""
        return self.reached[self.metric] / self.original[self.metric]

    @property
    def target_share(self) -> float:
        """Asked over original, in the budget's metric."""
        return self.target / self.original[self.metric]


@dataclass(frozen=True)
class Distillation:
    """distill.json."""

    steps: int
    trajectory: tuple[Mapping[str, float], ...]
    watched: Watched


@dataclass(frozen=True)
class Fidelity:
    """One picture's row of eval.json; PSNR in dB, infinite for equal pictures."""

    name: str
    psnr: float
    ssim: float


@dataclass(frozen=True)
class Evaluation:
    """eval.json and the kept pictures: for each name, the file of each of `KINDS` that is there."""

    reference: str
    images: tuple[Fidelity, ...]
    pictures: Mapping[str, Mapping[str, Path]]


def read_mapping(path: Path) -> Mapping[str, Any]:
    """Read a JSON object.

    Raises:
        PocketganError, TypeError: it is missing, or no object.
    """
    document = read_json(path)
    if not isinstance(document, dict):
        raise TypeError(f"a {type(document).__name__} where an object belongs")
    return document


def read_pruning(path: Path) -> Pruning:
    """Read prune.json.

    Raises:
        PocketganError, KeyError, TypeError, ValueError: it is missing or damaged.
    """
    document = read_mapping(path)
    budget = document["budget"]
    totals = {
        side: {key: int(document[side][key]) for key in ("macs", "literature_macs", "parameters", "bytes")}
        for side in ("original", "reached")
    }
    pruning = Pruning(
        asked=str(budget["asked"]),
        metric=str(budget["metric"]),
        target=int(budget["target"]),
        original=totals["original"],
        reached=totals["reached"],
        layers=tuple(
            Layer(
                name=str(layer["name"]),
                kind=str(layer["kind"]),
                out_before=int(layer["out_before"]),
                out=int(layer["out"]),
                macs_before=int(layer["macs_before"]),
                macs=int(layer["macs"]),
            )
            for layer in document["layers"]
        ),
        kept_whole=tuple((str(k["name"]), str(k["reason"])) for k in document.get("kept_whole", ())),
        trajectory=_trajectory(document, "share", "loss"),
        steps=int(document.get("steps_in_all", document["steps"])),
        watched=read_watched(path, document),
    )
    if pruning.metric not in pruning.original or not all(
        value > 0 for side in (pruning.original, pruning.reached) for value in side.values()
    ):
        raise ValueError(f"costs that cannot be: {document['original']}, {document['reached']}")
    return pruning


def read_distillation(path: Path) -> Distillation:
    """Read distill.json; errors as of `read_pruning`."""
    document = read_mapping(path)
    return Distillation(int(document["steps"]), _trajectory(document, "loss"), read_watched(path, document))


def _trajectory(document: Mapping[str, Any], *keys: str) -> tuple[Mapping[str, float], ...]:
    """The points whose figures are finite numbers; of a CycleGAN's two generators, its own."""
    own = f"_{document.get('direction')}"
    points = [
        {
            key: float(value)
            for key in ("step", *keys)
            if (value := point.get(key, point.get(key + own))) is not None
        }
        for point in document["trajectory"]
    ]
    return tuple(point for point in points if all(math.isfinite(value) for value in point.values()))


def read_evaluation(path: Path) -> Evaluation:
    """Read eval.json and find the pictures beside it; errors as of `read_pruning`."""
    document = read_mapping(path)
    images = tuple(
        Fidelity(str(i["name"]), math.inf if i["psnr"] is None else float(i["psnr"]), float(i["ssim"]))
        for i in document["images"]
    )
    if not images:
        raise ValueError("no pictures were judged")
    pictures: dict[str, dict[str, Path]] = {}
    for file in sorted((path.parent / "images").glob("*.png")):
        name, _, kind = file.stem.rpartition(".")
        if kind in KINDS and name:
            pictures.setdefault(name, {})[kind] = file
    whole = {name: kinds for name, kinds in pictures.items() if {"original", "compressed"} <= kinds.keys()}
    return Evaluation(str(document["reference"]), images, whole)
