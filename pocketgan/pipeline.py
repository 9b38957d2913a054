"""The whole job: a generator and pictures in, phone files and a report out, stage by stage over a run folder.

Each stage (see `pocketgan.stages`) reads what the ones before left there and is finished for good once
stages.json says so; a run killed at any moment goes on with `resume=True` and ends in the same figures.
"""

from __future__ import annotations

import contextlib
import fcntl
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compressor.errors import GateError, PocketganError, UsageError
from compressor.files import claim_folder, read_json, sweep, write_json
from pocketgan.plan import check
from pocketgan.recipe import Recipe, read_recipe, write_recipe
from pocketgan.stages import stages_of
from pocketgan.strict_yaml import flatten


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
    """Prune or search, distill, judge, export, measure and report as the recipe says.

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
        check(recipe)
    claim_folder(folder, resume=resume)
    with _alone(folder):
        sweep(folder)
        _settle_recipe(recipe, folder)
        _write_environment(recipe, folder, command)
        stages = _read_stages(folder)
        for name, stage in stages_of(recipe).items():
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
    every = dict.fromkeys([*ours, *theirs])
    differing = [key for key in every if key != "output_dir" and ours.get(key) != theirs.get(key)]
    if differing:
        raise UsageError(
            f"{folder} was begun with another recipe: {', '.join(differing)}",
            got=", ".join(f"{key}={ours.get(key)}" for key in differing),
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
