"""Files made side by side, those of each format one after another in a process of their own.

Files of a format share what they are converted from. What INT8 files quantise is found once, for both.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import psutil

from compressor.errors import PocketganError
from exporters.result import ExportedFile
from exporters.task import Task
from exporters.worker import Worker

if TYPE_CHECKING:
    from exporters.int8 import Plan, Tell
    from exporters.job import Job

MEMORY = 3 << 30  # bytes that have to be free for each process: real generators took 0.6 to 3.1 GiB


def processes_for(formats: int) -> int:
    """How many at once: one for each format, as far as cores and free memory go."""
    free = psutil.virtual_memory().available // MEMORY
    return max(1, min(formats, os.cpu_count() or 1, free))


class Lanes:
    """Makes files in processes; a context, whose end ends the processes.

    Args:
        setup: the arguments of `Job`.
        tasks: the files to make.
        processes: at once.
        tell: what the processes do that takes long; called in the caller's thread.
    """

    def __init__(self, setup: tuple[Any, ...], tasks: Sequence[Task], processes: int, tell: Tell):
        kinds = {kind: [task for task in tasks if task.kind == kind] for kind in ("onnx", "tflite")}
        whole = [lane for lane in kinds.values() if lane]
        self._lanes = whole if processes > 1 else [list(tasks)]
        self._setup, self._threads = setup, max(1, (os.cpu_count() or 1) // len(self._lanes))
        self._plan: Future[Plan] = Future()
        self._done: SimpleQueue[ExportedFile | BaseException | str] = SimpleQueue()
        self._tell = tell
        self._workers: dict[int, Worker] = {}
        self._ended = False
        self._count = len(tasks)
        self._pool = ThreadPoolExecutor(len(self._lanes))

    def __enter__(self) -> Lanes:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        for worker in list(self._workers.values()):
            worker.kill()
        self._plan.cancel()
        self._pool.shutdown()
        for worker in self._workers.values():
            worker.close()

    def files(self) -> Iterator[ExportedFile]:
        """The records, as files are done.

        Raises:
            PocketganError: as `Task.do`.
        """
        planning = next((n for n, lane in enumerate(self._lanes) if _eight_bit(lane)), None)
        for number, lane in enumerate(self._lanes):
            self._pool.submit(self._run, number, lane, number == planning)
        left = self._count
        while left:
            found = self._done.get()
            if isinstance(found, BaseException):
                raise found
            if isinstance(found, str):
                self._tell(found)
            else:
                left -= 1
                yield found

    def _run(self, number: int, tasks: list[Task], planning: bool) -> None:
        try:
            first = tasks[0] if len(self._lanes) > 1 else next(iter(_eight_bit(tasks)), None)
            for task in tasks:
                if planning and task is first:
                    self._find_plan(number)
                self._done.put(self._one(number, task))
        except BaseException as error:
            self._done.put(error)

    def _find_plan(self, number: int) -> None:
        """Other lanes may be waiting for it: they are told of a failure too."""
        try:
            self._plan.set_result(self._worker(number).ask(_plan_of))
        except BaseException as error:
            self._plan.set_exception(error)

    def _one(self, number: int, task: Task) -> ExportedFile:
        worker = self._worker(number)
        try:
            plan = self._plan.result() if task.precision == "int8" else None
        except PocketganError as error:
            return task.failed(error)
        try:
            return worker.ask(partial(_do, task, plan))
        except PocketganError as error:
            if worker.alive or self._ended:
                raise
            return task.failed(error)

    def _worker(self, number: int) -> Worker:
        """This lane's; a new one where the last has died."""
        worker = self._workers.get(number)
        if worker is None or not worker.alive:
            if self._ended:
                raise PocketganError("the export was stopped")
            if worker is not None:
                worker.close()
            worker = self._workers[number] = Worker(self._setup, self._threads, self._done.put)
        return worker


def _eight_bit(tasks: Sequence[Task]) -> list[Task]:
    return [task for task in tasks if task.precision == "int8"]


def _plan_of(job: Job) -> Plan:
    return job.plan


def _do(task: Task, plan: Plan | None, job: Job) -> ExportedFile:
    if plan is not None:
        job.plan = plan
    return task.do(job)
