"""Everything a report can show, read from a run folder; a stage that is missing or damaged stays a gap."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.report.pareto import Pareto, read_pareto
from benchmarks.report.records import (
    Distillation,
    Evaluation,
    Pruning,
    read_distillation,
    read_evaluation,
    read_mapping,
    read_pruning,
)
from benchmarks.report.searched import Searching, read_search
from benchmarks.samples import BenchResult, read_bench
from compressor.errors import PocketganError
from exporters.result import FILE, ExportResult, read_export

STAGES = ("original", "prune", "distill", "eval", "export", "bench")
T = TypeVar("T")


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
        """Reached over original, in the budget's metric; None if the original's cost in it is not known."""
        whole = (self.original or {}).get(self.metric)
        return None if whole is None else self.reached[self.metric] / whole


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
        environment=attempt("environment", folder / "environment.json", read_mapping),
        stages=attempt("stages", folder / "stages.json", read_mapping) or {},
        prune=attempt("prune", folder / "prune" / "prune.json", read_pruning)
        or attempt("prune", folder / "prune.json", read_pruning),
        search=attempt("search", folder / "search" / "search.json", read_search)
        or attempt("search", folder / "search.json", read_search),
        pareto=attempt("pareto", folder / "pareto.json", read_pareto),
        train=attempt("train", folder / "train" / "distill.json", read_distillation),
        distill=attempt("distill", folder / "distill" / "distill.json", read_distillation),
        evaluation=attempt("eval", folder / "eval" / "eval.json", read_evaluation),
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
        source = read_mapping(folder / "original" / "provenance.json").get("source")
        if source:
            return Path(str(source)).name
    except (PocketganError, TypeError):
        pass
    for group in ("original", "compressed", *exports):
        if group in exports and exports[group].generator.get("name"):
            return str(exports[group].generator["name"])
    return folder.resolve().name


def _family(path: Path) -> str:
    return str(read_mapping(path)["family"])
