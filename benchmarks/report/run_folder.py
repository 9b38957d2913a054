"""Everything a report can show, read from a run folder; a stage that is missing or damaged stays a gap."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.report.pareto import Pareto, read_pareto
from benchmarks.report.searched import Searching, read_search
from benchmarks.report.watched import Watched, read_watched
from benchmarks.samples import BenchResult, read_bench
from compressor.errors import PocketganError
from compressor.files import read_json
from exporters.result import FILE, ExportResult, read_export

STAGES = ("original", "prune", "distill", "eval", "export", "bench")
KINDS = ("input", "original", "compressed", "error")
T = TypeVar("T")


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
class Whole:
    """The budget of the whole job: from the generator that came in to the one that comes out.

    Attributes:
        original: costs by metric, where they are known: what only answers with pictures has none.
        within: whether the target is met.
    """

    asked: str
    metric: str
    target: int
    original: Mapping[str, int] | None
    reached: Mapping[str, int]

    @property
    def within(self) -> bool:
        """The target is met."""
        return self.reached[self.metric] <= self.target

    @property
    def share(self) -> float | None:
        """Reached over original, in the budget's metric."""
        return self.reached[self.metric] / self.original[self.metric] if self.original else None


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


@dataclass(frozen=True)
class RunFolder:
    """What a folder holds.

    Attributes:
        path: the folder.
        name: of the generator that came in, as far as the folder tells.
        family: its architecture's name, or None.
        stages: stages.json, by stage.
        exports: by group: "compressed", "original", or a folder's name.
        problems: for a stage whose files are there but cannot be used, why.
    """

    path: Path
    name: str
    family: str | None = None
    recipe: str | None = None
    environment: Mapping[str, Any] | None = None
    stages: Mapping[str, Any] = field(default_factory=dict)
    prune: Pruning | None = None
    search: Searching | None = None
    pareto: Pareto | None = None
    train: Distillation | None = None
    distill: Distillation | None = None
    evaluation: Evaluation | None = None
    exports: Mapping[str, ExportResult] = field(default_factory=dict)
    bench: BenchResult | None = None
    problems: Mapping[str, str] = field(default_factory=dict)

    @property
    def missing(self) -> list[str]:
        """Stages of which the folder holds nothing usable."""
        there = {
            "prune": self.prune or self.search or self.pareto,
            "distill": self.distill,
            "eval": self.evaluation,
            "export": self.exports,
            "bench": self.bench,
        }
        return [] if self.only_search else [stage for stage, found in there.items() if not found]

    @property
    def only_search(self) -> bool:
        """What `pocketgan search` wrote, of which nothing more is expected."""
        others = (self.stages, self.prune, self.distill, self.evaluation, self.exports, self.bench)
        return bool(self.search or self.pareto) and not any(others) and self.recipe is None

    @property
    def whole(self) -> Whole | None:
        """What was asked and reached in the end; None before there is anything."""
        prune, search = self.prune, self.search
        if prune is not None:
            before = search.teacher_cost if search else prune.original
            return Whole(prune.asked, prune.metric, prune.target, before, prune.reached)
        if search is not None:
            return Whole(search.asked, search.metric, search.target, search.teacher_cost, search.reached)
        return None


def read_run(folder: Path) -> RunFolder:
    """Read a run folder, an export or bench folder, or a folder that holds such folders.

    Raises:
        PocketganError: there is no such folder, or nothing in it is ours.
    """
    if not folder.is_dir():
        raise PocketganError(f"there is no folder {folder}", fix="give a folder that `pocketgan run` wrote")
    problems: dict[str, str] = {}

    def attempt(stage: str, path: Path, read: Callable[[Path], T]) -> T | None:
        if not path.exists():
            return None
        try:
            return read(path)
        except PocketganError as error:
            problems[stage] = f"{error.what}" + (f" ({error.got})" if error.got is not None else "")
        except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError, OSError) as error:
            problems[stage] = f"{path.name} is damaged ({type(error).__name__}: {error})"
        return None

    exports = {}
    for place in _export_folders(folder):
        export = attempt("export", place / FILE, lambda path: read_export(path.parent))
        if export is not None:
            exports[place.name] = export
    bench = attempt("bench", folder / "bench" / "bench.json", read_bench) or attempt(
        "bench", folder / "bench.json", read_bench
    )
    run = RunFolder(
        path=folder,
        name=_name(folder, exports),
        family=attempt("original", folder / "original" / "architecture.json", _family),
        recipe=attempt("recipe", folder / "recipe.yaml", lambda path: path.read_text(encoding="utf-8")),
        environment=attempt("environment", folder / "environment.json", _mapping),
        stages=attempt("stages", folder / "stages.json", _mapping) or {},
        prune=attempt("prune", folder / "prune" / "prune.json", _read_prune)
        or attempt("prune", folder / "prune.json", _read_prune),
        search=attempt("search", folder / "search" / "search.json", read_search)
        or attempt("search", folder / "search.json", read_search),
        pareto=attempt("pareto", folder / "pareto.json", read_pareto),
        train=attempt("train", folder / "train" / "distill.json", _read_distill),
        distill=attempt("distill", folder / "distill" / "distill.json", _read_distill),
        evaluation=attempt("eval", folder / "eval" / "eval.json", _read_evaluation),
        exports=exports,
        bench=bench,
        problems=problems,
    )
    nothing = len(run.missing) == 5
    if not problems and nothing and run.recipe is None and run.environment is None:
        raise PocketganError(
            f"{folder} holds nothing to report",
            allowed="a run folder, or a folder with prune.json, search.json, pareto.json, export.json or "
            "bench.json in it",
            fix="make one: pocketgan run RECIPE.yaml",
        )
    return run


def _export_folders(folder: Path) -> list[Path]:
    """Folders with an export.json: RUN/export/*, RUN/*, or RUN itself; the first kind that is found."""
    for candidates in (_inside(folder / "export"), _inside(folder), [folder]):
        found = [path for path in candidates if (path / FILE).exists()]
        if found:
            return found
    return []


def _inside(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _name(folder: Path, exports: Mapping[str, ExportResult]) -> str:
    try:
        source = _mapping(folder / "original" / "provenance.json").get("source")
        if source:
            return Path(str(source)).name
    except (PocketganError, TypeError):
        pass
    for group in ("original", "compressed", *exports):
        if group in exports and exports[group].generator.get("name"):
            return str(exports[group].generator["name"])
    return folder.resolve().name


def _mapping(path: Path) -> Mapping[str, Any]:
    document = read_json(path)
    if not isinstance(document, dict):
        raise TypeError(f"a {type(document).__name__} where an object belongs")
    return document


def _family(path: Path) -> str:
    return str(_mapping(path)["family"])


def _read_prune(path: Path) -> Pruning:
    document = _mapping(path)
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


def _read_distill(path: Path) -> Distillation:
    document = _mapping(path)
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


def _read_evaluation(path: Path) -> Evaluation:
    document = _mapping(path)
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
