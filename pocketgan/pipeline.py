"""The whole job: a generator and pictures in, phone files and a report out, stage by stage over a run folder.

Each stage reads what the ones before left in the run folder and is finished for good once stages.json
says so; a run killed at any moment goes on with `resume=True` and ends in the same figures.
"""

from __future__ import annotations

import contextlib
import fcntl
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.budget import Budget
from compressor.errors import GateError, PocketganError, UsageError
from compressor.files import claim_folder, read_json, write_json
from pocketgan.recipe import Recipe, read_recipe, write_recipe
from pocketgan.strict_yaml import flatten

if TYPE_CHECKING:
    from compressor.generators import Generator


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Attributes:
        folder: the run folder.
        report: its page.
        stages: stages.json: state and seconds of each stage.
        problem: the check that did not pass, or None.
    """

    folder: Path
    report: Path
    stages: dict[str, dict[str, Any]]
    problem: GateError | None


def run(recipe: Recipe, folder: Path, *, resume: bool = False, command: Sequence[str] = ()) -> RunResult:
    """Prune, distill, judge, export, measure and report as the recipe says.

    Args:
        recipe: what to do.
        folder: the run folder; new, or with `resume` the folder of an earlier run of the same recipe.
        resume: skip what is finished there and go on where it was stopped.
        command: the command line, for the report.

    Raises:
        UsageError: `resume` with a recipe that differs from the folder's, or an impossible budget.
        PocketganError: a stage failed; what was finished is kept.
    """
    if not resume:
        _reach(recipe, recipe.generator.load())
    claim_folder(folder, resume=resume)
    with _alone(folder):
        _settle_recipe(recipe, folder)
        _write_environment(recipe, folder, command)
        stages = _read_stages(folder)
        for name, stage in STAGES.items():
            if stages.get(name, {}).get("state") == "done":
                _say(f"{name}: done before, in {stages[name]['seconds']:.1f} s")
                continue
            stages[name] = {"state": "running"}
            write_json(folder / "stages.json", stages)
            began = time.monotonic()
            failed_check = None
            try:
                stage(recipe, folder)
            except GateError as error:
                failed_check = error.as_json()
            stages[name] = {"state": "done", "seconds": round(time.monotonic() - began, 3)}
            if failed_check:
                stages[name]["failed_check"] = failed_check
            write_json(folder / "stages.json", stages)
    return RunResult(folder, folder / "report.html", stages, _problem(stages))


def _original(recipe: Recipe, folder: Path) -> None:
    from compressor.generators import save

    generator = recipe.generator.load()
    recipe.data.split()  # a missing folder is better known now than after an hour
    provenance = {"source": str(recipe.generator.checkpoint), "source_sha256": generator.sha256}
    save(generator.spec, generator.module, folder / "original", provenance)


def _prune(recipe: Recipe, folder: Path) -> None:
    from compressor.coronet.prune import prune

    training, _ = recipe.data.split()
    prune(
        _model(recipe, folder, "original"),
        training,
        Budget.parse(recipe.budget),
        folder / "prune",
        recipe.prune,
        seed=recipe.seed,
        resume=True,
        log=folder / "metrics.jsonl",
    )


def _distill(recipe: Recipe, folder: Path) -> None:
    from compressor.training.distil import distil

    training, _ = recipe.data.split()
    distil(
        _model(recipe, folder, "prune"),
        _model(recipe, folder, "original"),
        training,
        folder / "distill",
        recipe.distill,
        seed=recipe.seed,
        resume=True,
        log=folder / "metrics.jsonl",
    )


def _eval(recipe: Recipe, folder: Path) -> None:
    from compressor.evaluate import evaluate

    _, held_out = recipe.data.split()
    teacher = _model(recipe, folder, "original")
    evaluate(_model(recipe, folder, "distill"), held_out, folder / "eval", teacher=teacher, resume=True)


def _export(recipe: Recipe, folder: Path) -> None:
    """The compressed generator as asked; of the original the FP32 files, to compare speed and size with."""
    from exporters.export import export

    training, held_out = recipe.data.split()
    wanted = recipe.export
    problems = []
    for group, stage, precisions in (
        ("compressed", "distill", wanted.precisions),
        ("original", "original", ("fp32",)),
    ):
        try:
            export(
                _model(recipe, folder, stage),
                training,
                folder / "export" / group,
                formats=wanted.formats,
                precisions=precisions,
                size=wanted.size,
                calibration=wanted.calibration,
                parity_images=wanted.parity_images,
                images_held_out=held_out,
                resume=True,
            )
        except GateError as error:
            problems.append(error)
    if problems:
        raise problems[0]


def _bench(recipe: Recipe, folder: Path) -> None:
    from benchmarks.latency import bench

    wanted = recipe.bench
    bench(
        [folder / "export" / "compressed", folder / "export" / "original"],
        output=folder / "bench",
        threads=wanted.threads,
        rounds=wanted.rounds,
        warmup=wanted.warmup,
        max_seconds=wanted.max_seconds,
        seed=recipe.seed,
        resume=True,
    )


def _report(recipe: Recipe, folder: Path) -> None:
    from benchmarks.report.page import report

    report(folder)


STAGES: dict[str, Callable[[Recipe, Path], None]] = {
    "original": _original,
    "prune": _prune,
    "distill": _distill,
    "eval": _eval,
    "export": _export,
    "bench": _bench,
    "report": _report,
}


def _model(recipe: Recipe, folder: Path, stage: str) -> Generator:
    from compressor.generators import load

    return load(folder / stage, factory=recipe.generator.factory)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep a second process out of the run folder; the system frees the lock when we die."""
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise PocketganError(
                f"another process is working in {folder}", fix="wait until it is done"
            ) from error
        yield


def _settle_recipe(recipe: Recipe, folder: Path) -> None:
    """Write the recipe into a new run folder; in an old one, insist that it is the same."""
    record = folder / "recipe.yaml"
    if not record.exists():
        if foreign := sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")):
            raise PocketganError(
                f"{folder} is not a run folder: it has no recipe.yaml",
                got=", ".join(foreign[:5]),
                fix="choose another --output-dir",
            )
        write_recipe(recipe, record)
        return
    ours, theirs = flatten(recipe.as_plain()), flatten(read_recipe(record).as_plain())
    differing = [key for key in ours if key != "output_dir" and ours[key] != theirs.get(key)]
    if differing:
        raise UsageError(
            f"{folder} was begun with another recipe: {', '.join(differing)}",
            got=", ".join(f"{key}={ours[key]}" for key in differing),
            allowed=", ".join(f"{key}={theirs.get(key)}" for key in differing),
            fix="resume with the recipe it was begun with, or choose another --output-dir",
        )


def _write_environment(recipe: Recipe, folder: Path, command: Sequence[str]) -> None:
    if not (folder / "environment.json").exists():
        from pocketgan.environment import environment

        write_json(folder / "environment.json", environment(command, recipe.seed))


def _read_stages(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / "stages.json"
    stages: dict[str, dict[str, Any]] = read_json(path) if path.exists() else {}
    return stages


def _problem(stages: dict[str, dict[str, Any]]) -> GateError | None:
    for stage in stages.values():
        if check := stage.get("failed_check"):
            return GateError(check["error"], got=check["got"], allowed=check["allowed"], fix=check["next"])
    return None


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _reach(recipe: Recipe, generator: Generator) -> None:
    """Refuse a budget that cannot be reached before anything is written."""
    from compressor.coronet.targets import joint_cost
    from compressor.graph import trace

    graph = trace(generator.module, generator.spec.image.input_shape)
    joint_cost(graph, generator.module, Budget.parse(recipe.budget))


def plan(recipe: Recipe) -> dict[str, Any]:
    """What a run would do, having read the generator and listed the pictures but written nothing.

    Returns:
        JSON types: family, cost of the original, the budget's target, numbers of pictures, the recipe.

    Raises:
        PocketganError: the generator or the pictures cannot be read.
        UsageError: the budget is already met, or cannot be reached.
    """
    from compressor.coronet.memory import peak_memory
    from compressor.cost import count

    generator = recipe.generator.load()
    training, held_out = recipe.data.split()
    _reach(recipe, generator)
    budget = Budget.parse(recipe.budget)
    shape = generator.spec.image.input_shape
    cost = count(generator.module, shape)
    totals = {name: getattr(cost, name) for name in ("macs", "literature_macs", "parameters", "bytes")}
    if any(part.metric == "memory" for part in budget.parts()):
        totals["memory"] = peak_memory(generator.module, shape)
    return {
        "generator": {"family": generator.spec.family, "sha256": generator.sha256, "notes": generator.notes},
        "cost": totals,
        "budget": {
            "asked": budget.text,
            "metric": budget.metric,
            "target": budget.target(totals[budget.metric]),
            "also": {part.metric: part.limit(totals[part.metric]) for part in budget.also},
        },
        "images": {"training": len(training), "held_out": len(held_out)},
        "stages": list(STAGES),
        "recipe": recipe.as_plain(),
    }
