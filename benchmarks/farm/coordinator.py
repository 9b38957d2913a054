"""A plan carried out: jobs sent to phones that are there, outcomes stored, faults tried again elsewhere.

No more jobs are in flight than there are phones, and documents go straight into the store, so the
coordinator's memory does not depend on the plan's length. A job counts when its row is written, and the
store writes a job once: work done twice (a host cut off that finishes all the same) is not counted twice.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.farm.cluster import Ended, Farm, FarmPhone
from benchmarks.farm.job import ABSENT
from benchmarks.farm.plan import Job, Plan
from benchmarks.farm.store import INFRASTRUCTURE, STATUSES, Row, Store
from compressor.errors import PocketganError
from compressor.progress import Progress
from devices.phone import plain
from devices.transport import DeviceError

_TICK = 1.0  # seconds between looks at the phones while no job ends
_BROUGHT = 3  # times that a job's files are sent to hosts before that is a fault
_LOST = 10  # times that an outcome is lost between hosts before that is a fault


@dataclass
class _Task:
    """A job on its way."""

    job: Job
    attempts: int = 0
    brought: int = 0
    lost: int = 0
    avoid: set[str] = field(default_factory=set)  # phones by name on which it met a fault
    workers: tuple[str, ...] | None = None  # where it may go; None for every phone of its kind


@dataclass(frozen=True)
class FarmResult:
    """What a call of the coordinator did.

    Attributes:
        jobs: in the plan. earlier: of these, finished by earlier calls.
        ended: jobs of the whole run by status.
        phones: jobs measured in this call, by serial. faults: attempts of this call that faults ended.
        seconds: of this call.
    """

    jobs: int
    earlier: int
    ended: dict[str, int]
    phones: dict[str, int]
    faults: int
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """The counts as one JSON object."""
        done = self.jobs - self.earlier
        return {
            "jobs": self.jobs,
            "earlier": self.earlier,
            **self.ended,
            "phones": self.phones,
            "faults": self.faults,
            "seconds": self.seconds,
            "jobs_per_second": done / self.seconds if done else None,
        }


def carry_out(plan: Plan, jobs: Sequence[Job], store: Store, farm: Farm) -> FarmResult:
    """Bring every job that is not finished to its end.

    Raises:
        PocketganError: the scheduler or the store is gone; what was finished is kept.
    """
    began = time.monotonic()
    finished = store.finished()
    earlier = Counter(finished[job.key] for job in jobs if job.key in finished)
    left = [job for job in jobs if job.key not in finished]
    with Progress("farm", len(jobs), start=earlier.total()) as progress:
        run = _Run(plan, left, store, farm, progress)
        run.work()
    ended = {status: earlier[status] + run.ended[status] for status in STATUSES}
    return FarmResult(
        len(jobs), earlier.total(), ended, dict(run.phones), run.faults, time.monotonic() - began
    )


class _Run:
    """The state of one call."""

    def __init__(self, plan: Plan, jobs: Sequence[Job], store: Store, farm: Farm, progress: Progress):
        self.plan, self.store, self.farm, self.progress = plan, store, farm, progress
        self.waiting: dict[str, deque[_Task]] = {}
        for job in jobs:
            self.waiting.setdefault(job.target, deque()).append(_Task(job))
        self.flying: dict[str, _Task] = {}
        self.missed: dict[str, float] = {}
        self.ended: Counter[str] = Counter()
        self.phones: Counter[str] = Counter()
        self.faults = 0

    def work(self) -> None:
        while any(self.waiting.values()) or self.flying:
            phones = self.farm.phones()
            self._recall(phones)
            self._give_up(phones)
            self._launch(phones)
            for ended in self.farm.wait(_TICK):
                self._land(ended)

    def _launch(self, phones: Sequence[FarmPhone]) -> None:
        """Send as many jobs as there are phones without one; each kind of phone gets no more than it has."""
        room = len(phones) - len(self.flying)
        busy = Counter(task.job.target for task in self.flying.values())
        for target, tasks in self.waiting.items():
            fit = [phone for phone in phones if target in phone.kinds]
            while tasks and room > 0 and busy[target] < len(fit):
                task = tasks.popleft()
                if task.workers is None and task.avoid:
                    task.workers = tuple(p.address for p in fit if p.name not in task.avoid) or None
                self.flying[self.farm.send(task.job.order(self.plan), task.workers)] = task
                busy[target] += 1
                room -= 1

    def _recall(self, phones: Sequence[FarmPhone]) -> None:
        """Take back jobs that may only go where no worker is any more."""
        there = {phone.address for phone in phones}
        for key, task in list(self.flying.items()):
            if task.workers is not None and there.isdisjoint(task.workers):
                self._withdraw(key)
                task.workers = None
                self.waiting[task.job.target].append(task)

    def _give_up(self, phones: Sequence[FarmPhone]) -> None:
        """End the jobs of a kind of phone that has been missing for long."""
        now = time.monotonic()
        for target, tasks in self.waiting.items():
            flying = [key for key, task in self.flying.items() if task.job.target == target]
            if (not tasks and not flying) or any(target in phone.kinds for phone in phones):
                self.missed.pop(target, None)
                continue
            if now - self.missed.setdefault(target, now) < self.plan.wait_for_phones:
                continue
            for key in flying:
                tasks.append(self._withdraw(key))
            kinds = sorted({kind for phone in phones for kind in phone.kinds if kind != "any"})
            error = DeviceError(
                f"no phone in the farm is {target}" if target != "any" else "there is no phone in the farm",
                got=", ".join(kinds[:20]) or None,
                fix="plug one in (pocketgan devices), and give the same command again",
            )
            while tasks:
                self._end(tasks.popleft(), {"status": INFRASTRUCTURE, "error": error.as_json()})

    def _withdraw(self, key: str) -> _Task:
        self.farm.withdraw(key)
        return self.flying.pop(key)

    def _land(self, ended: Ended) -> None:
        task = self.flying.pop(ended.key)
        task.workers = None
        if ended.lost and task.lost < _LOST:
            task.lost += 1
            self.waiting[task.job.target].append(task)
            return
        outcome = ended.outcome
        if outcome is None:  # dask gives up on a job whose workers died under it several times
            task.attempts = self.plan.retries
            error = DeviceError("the job's worker was lost again and again", got=ended.fault)
            outcome = {"status": INFRASTRUCTURE, "error": error.as_json()}
        elif outcome["status"] == ABSENT:
            fault = self._bring(task, outcome)
            if fault is None:
                task.workers = (outcome["worker"],)
                self.waiting[task.job.target].appendleft(task)
                return
            error = DeviceError("the job's files did not get to the phone's host", got=fault)
            outcome = {**outcome, "status": INFRASTRUCTURE, "error": error.as_json()}
        task.attempts += 1
        if outcome["status"] != INFRASTRUCTURE:
            self._end(task, outcome)
            return
        self.faults += 1
        self.store.note_attempt(_row(task, outcome))
        self._tell(task, outcome)
        if task.attempts > self.plan.retries:
            self._end(task, outcome)
            return
        if "phone" in outcome:
            task.avoid.add(outcome["phone"])
        self.waiting[task.job.target].append(task)

    def _bring(self, task: _Task, outcome: dict[str, Any]) -> str | None:
        """Send a job's files to the host that lacks them, one at a time; what went wrong, or None."""
        task.brought += 1
        if task.brought > _BROUGHT:
            return "they were sent several times and are not there"
        for file in task.job.files:
            if file.sha256 in outcome["missing"]:
                try:
                    content = Path(file.path).read_bytes()
                except OSError as error:
                    raise PocketganError(f"cannot read {file.path}", got=error.strerror or error) from error
                if fault := self.farm.bring(outcome["worker"], file.sha256, file.path, content):
                    return fault
        return None

    def _end(self, task: _Task, outcome: dict[str, Any]) -> None:
        row = _row(task, outcome)
        if self.store.record(row):
            self.ended[row.status] += 1
            if row.status != INFRASTRUCTURE and row.serial is not None:
                self.phones[row.serial] += 1
        else:  # another coordinator on the same store was first
            self.ended[self.store.finished()[row.job]] += 1
        if row.status not in (INFRASTRUCTURE, "measured"):
            self._tell(task, outcome)
        self.progress.update(self.progress.done + 1, phone=plain(row.serial or "-"))

    def _tell(self, task: _Task, outcome: dict[str, Any]) -> None:
        where = f" on {plain(outcome['serial'])}" if outcome.get("serial") else ""
        what = plain(str((outcome.get("error") or {}).get("error")))
        self.progress.note(f"{plain(task.job.name)}{where}: {what}")


def _row(task: _Task, outcome: dict[str, Any]) -> Row:
    return Row(
        job=task.job.key,
        name=task.job.name,
        target=task.job.target,
        status=str(outcome["status"]),
        serial=outcome.get("serial"),
        soc=outcome.get("soc"),
        host=outcome.get("host"),
        attempts=task.attempts,
        seconds=float(outcome.get("seconds") or 0.0),
        error=outcome.get("error"),
        document=outcome.get("document"),
    )
