"""What a farm is to do: a plan, and the jobs it stands for.

A job is one exported file, or one export folder whose files take turns, on one kind of phone. Its key
names all that its figures depend on, so that the same job is never counted twice and a changed one is
measured anew.
"""

from __future__ import annotations

import glob
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.exported import TimedFile, list_files
from benchmarks.statistics import FEWEST
from compressor.errors import PocketganError, UsageError
from compressor.files import sha256
from devices.runtimes import RUNTIMES

ANY = "any"
RUNNERS = ("arm64",)
CORES = ("all", "fast")


@dataclass(frozen=True)
class Plan:
    """Which files to measure on which phones, and how.

    Attributes:
        models: files and export folders, as glob patterns (`**` for any depth) from the plan's folder.
        phones: for each model, one job on each of these: "any", "soc:SM8650" or "serial:R58M123ABC".
        runner: "arm64", our own on the phone's processor.
        threads: threads per inference; every one is measured.
        rounds, warmup, max_seconds, cores, seed: see `benchmarks.on_phone.bench_on_phone`.
        timeout: seconds after which a job is given up on its phone.
        retries: how often a job is tried again after a fault of the farm, on another phone where it can be.
        wait_for_phones: seconds that jobs wait for a phone of their kind when there is none.
        allow_emulated: take times of an emulated processor; they stay marked.
    """

    models: tuple[str, ...]
    phones: tuple[str, ...] = (ANY,)
    runner: str = RUNNERS[0]
    threads: tuple[int, ...] = (1,)
    rounds: int = 30
    warmup: int = 3
    max_seconds: float = 300.0
    cores: str = CORES[0]
    seed: int = 0
    timeout: float = 1800.0
    retries: int = 2
    wait_for_phones: float = 120.0
    allow_emulated: bool = False

    def __post_init__(self) -> None:
        for name in ("models", "phones", "threads"):
            if not getattr(self, name):
                raise UsageError(f"{name} is empty", allowed="one entry or more")
        for name, least in (("rounds", FEWEST), ("warmup", 0), ("retries", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} is too small", got=getattr(self, name), allowed=f"{least} or more")
        for name in ("max_seconds", "timeout", "wait_for_phones"):
            if getattr(self, name) <= 0:
                raise UsageError(f"{name} is too small", got=getattr(self, name), allowed="more than 0")
        if min(self.threads) < 1:
            raise UsageError("threads are counted from 1", got=list(self.threads))
        for name, allowed in (("runner", RUNNERS), ("cores", CORES)):
            if getattr(self, name) not in allowed:
                raise UsageError(f"{name} is unknown", got=getattr(self, name), allowed=" or ".join(allowed))
        for phone in self.phones:
            if phone != ANY and not re.fullmatch(r"(soc|serial):\S+", phone):
                raise UsageError(
                    "phones has an unknown entry", got=repr(phone), allowed="any, soc:PART or serial:SERIAL"
                )

    def measuring(self) -> dict[str, Any]:
        """What the figures depend on besides files and phone."""
        names = ("runner", "threads", "rounds", "warmup", "max_seconds", "cores", "seed", "allow_emulated")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class JobFile:
    """A file of a job: `benchmarks.exported.TimedFile` as JSON holds it, and its hash."""

    group: str
    path: str
    runtime: str
    precision: str
    shape: tuple[int, ...] | None
    value_range: tuple[float, float]
    sha256: str


@dataclass(frozen=True)
class Job:
    """Files to be measured together on one phone.

    Attributes:
        key: 32 hex digits over all that the figures depend on.
        name: the file's or folder's path from the plan's folder.
        target: the kind of phone, as in `Plan.phones`.
    """

    key: str
    name: str
    target: str
    files: tuple[JobFile, ...]

    def order(self, plan: Plan) -> dict[str, Any]:
        """What is sent to the worker, as JSON types."""
        return {
            **plan.measuring(),
            "key": self.key,
            "target": self.target,
            "timeout": plan.timeout,
            "files": [asdict(file) for file in self.files],
        }


def timed_files(order: Mapping[str, Any], paths: Mapping[str, Path]) -> list[TimedFile]:
    """An order's files, each where this machine has it (`paths` by hash)."""
    return [
        TimedFile(
            group=str(file["group"]),
            path=paths[file["sha256"]],
            runtime=str(file["runtime"]),
            precision=str(file["precision"]),
            shape=tuple(file["shape"]) if file["shape"] else None,
            value_range=(float(file["value_range"][0]), float(file["value_range"][1])),
        )
        for file in order["files"]
    ]


def matches(pattern: str, base: Path) -> list[Path]:
    """The files and folders that a pattern names, sorted; what is neither is passed over."""
    text = str(Path(pattern).expanduser())
    found = glob.glob(text, root_dir=base, recursive=True)  # noqa: PTH207 - pathlib takes no absolute ones
    paths = {Path(base, name) for name in found}
    return sorted(path for path in paths if path.is_dir() or path.suffix.lower() in RUNTIMES)


def list_jobs(plan: Plan, base: Path) -> list[Job]:
    """All jobs of a plan, in its order.

    Args:
        plan: the plan.
        base: the folder that its patterns start from.

    Raises:
        PocketganError: a pattern names nothing, or a folder holds no exported file.
    """
    chosen: dict[Path, None] = {}
    for pattern in plan.models:
        found = matches(pattern, base)
        if not found:
            raise PocketganError(f"no exported file or folder matches {pattern}", got=f"below {base}")
        chosen |= dict.fromkeys(found)
    jobs = [
        _job(plan, _name(path, base), target, files)
        for path, files in _facts(chosen)
        for target in dict.fromkeys(plan.phones)
    ]
    return list({job.key: job for job in jobs}.values())


def _facts(chosen: Iterable[Path]) -> Iterator[tuple[Path, tuple[JobFile, ...]]]:
    """Each chosen path and its files; their folders are read together, so that groups have names apart."""
    folders = dict.fromkeys(path if path.is_dir() else path.parent for path in chosen)
    digests: dict[Path, str] = {}
    below: dict[Path, list[TimedFile]] = {}
    for file in list_files(folders):  # a folder's files lie in it, or in a folder of it
        real = file.path.resolve()
        for place in (real, *real.parents[:2]):
            below.setdefault(place, []).append(file)
    for path in chosen:
        mine = below.get(path.resolve())
        if not mine:
            raise PocketganError(
                f"{path} is not listed in the export.json beside it",
                fix="name the folder, or export it again",
            )
        yield path, tuple(_job_file(file, digests) for file in mine)


def _job_file(file: TimedFile, digests: dict[Path, str]) -> JobFile:
    if file.path not in digests:
        digests[file.path] = sha256(file.path)
    return JobFile(
        file.group,
        str(file.path.resolve()),
        file.runtime,
        file.precision,
        file.shape,
        file.value_range,
        digests[file.path],
    )


def _job(plan: Plan, name: str, target: str, files: tuple[JobFile, ...]) -> Job:
    content = [{**asdict(file), "path": Path(file.path).name} for file in files]
    facts = {**plan.measuring(), "name": name, "target": target, "files": content}
    text = json.dumps(facts, sort_keys=True)
    return Job(hashlib.sha256(text.encode()).hexdigest()[:32], name, target, files)


def _name(path: Path, base: Path) -> str:
    try:
        return path.relative_to(base).as_posix()
    except ValueError:
        return path.as_posix()
