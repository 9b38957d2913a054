"""A worker of a farm: a process that holds one phone and does one job after another on it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import io
import os
import socket
import threading
from collections.abc import Mapping
from typing import IO, Any

from distributed import Status, Worker, WorkerPlugin, get_worker

from benchmarks.farm.job import attempt, keep
from benchmarks.farm.store import INFRASTRUCTURE
from compressor.errors import PocketganError
from compressor.files import cache_folder
from devices.adb import AdbTransport
from devices.adb_server import AdbServer
from devices.transport import DeviceError, checked

NAME = "phone"
SICK = 2
"""Faults in a row after which a phone rests; its host takes it up again later."""
_LAST_WORDS = 1.0  # seconds in which an outcome gets away before its worker ends


class PhonePlugin(WorkerPlugin):
    """What a worker knows of its phone.

    Args:
        serial, soc: the phone. host, port: its adb server.
    """

    name = NAME

    def __init__(self, serial: str, soc: str | None, host: str, port: int):
        self.serial, self.soc, self.host, self.port = serial, soc, host, port
        self.faults = 0
        self._worker: Worker | None = None
        self._claim: IO[bytes] | None = None

    def setup(self, worker: Worker) -> None:
        """Hold the phone, and remove what an earlier worker left on it when it was killed.

        Raises:
            DeviceError: another process holds the phone, or it does not answer.
        """
        self._worker, self._claim = worker, claim(self.serial, self.host, self.port)
        device = self.device()
        there, remove = ["find", device.root, "-mindepth", "1"], ["-exec", "rm", "-rf", "{}", "+"]
        models = ["(", "-name", "*.onnx", "-o", "-name", "*.tflite", ")"]
        device.shell([*there, "-maxdepth", "1", "-name", "session-*", *remove], timeout=20)
        device.shell([*there, "-type", "f", *models, *remove], timeout=20)
        device.shell([*there, "-type", "d", "-empty", *remove], timeout=20)

    def teardown(self, worker: Worker) -> None:
        if self._claim:
            self._claim.close()

    def device(self) -> AdbTransport:
        return AdbTransport(self.serial, AdbServer(self.host, self.port))

    def measure(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Do a job within its time; a phone that is gone or sick takes its worker with it."""
        found: list[dict[str, Any]] = []
        with contextlib.redirect_stderr(io.StringIO()):  # the coordinator shows progress
            work = threading.Thread(target=lambda: found.append(attempt(order, self.device())), daemon=True)
            work.start()
            work.join(order["timeout"])
        if found:
            outcome = found[0]
        else:
            error = DeviceError(
                "the job took longer than its time", got=f"{order['timeout']:g} s", fix="raise the timeout"
            )
            outcome = {"status": INFRASTRUCTURE, "seconds": order["timeout"], "document": None}
            outcome |= {"error": error.as_json(), "missing": []}
        assert self._worker is not None
        if outcome["status"] == INFRASTRUCTURE:
            self.faults += 1
            if not found:
                self._worker.loop.call_later(_LAST_WORDS, os._exit, 1)  # its nanny starts another
            elif self.faults >= SICK or not self.answers():
                self._worker.loop.add_callback(self._leave)
        else:
            self.faults = 0
        return {
            **outcome,
            "serial": self.serial,
            "soc": self.soc,
            "host": socket.gethostname(),
            "worker": self._worker.address,
            "phone": self._worker.name,
        }

    def answers(self) -> bool:
        """Whether the phone runs a command now."""
        try:
            checked(self.device(), ["true"], timeout=10)
        except DeviceError:
            return False
        return True

    async def _leave(self) -> None:
        """Take nothing more, hand in the outcome, and end, nanny and all."""
        assert self._worker is not None
        self._worker.status = Status.closing_gracefully
        await asyncio.sleep(_LAST_WORDS)
        await self._worker.close(nanny=True, reason="the phone needs rest")


def claim(serial: str, host: str, port: int) -> IO[bytes]:
    """The phone for this process alone, until the file is closed or the process ends.

    Raises:
        DeviceError: another process has it.
    """
    digest = hashlib.sha256(f"{host}:{port} {serial}".encode()).hexdigest()[:24]
    path = cache_folder() / "farm" / f"{digest}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise DeviceError(f"{serial} is in another farm's hands", fix="stop the other worker") from error
    return file


def measure(order: Mapping[str, Any]) -> dict[str, Any]:
    """The task that coordinators submit."""
    plugin = get_worker().plugins[NAME]
    assert isinstance(plugin, PhonePlugin)
    return plugin.measure(order)


def bring(digest: str, name: str, content: bytes) -> str | None:
    """Keep a file on this worker's host; what went wrong, or None."""
    try:
        keep(digest, name, content)
    except PocketganError as error:
        return str(error)
    return None
