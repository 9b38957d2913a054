"""How files and commands get to a phone, and back: one small interface, and a session on top of it.

A `Transport` moves files and runs programs (`devices/local.py`, `devices/adb.py`). A `Workspace` adds
what every measurement needs: files pushed once by their content's hash, free space checked first, and
a folder for the session that is gone afterwards, also when the session failed.

Commands are lists of words, never text (`devices/quoting.py`), so no file name, model name or serial can act
as shell code.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from compressor.errors import PocketganError
from compressor.files import sha256
from devices.quoting import plain_name

ATTEMPTS = 3  # for calls that may be repeated without harm
PAUSE = 0.5  # seconds before the second attempt; doubles
SPARE = 32 << 20  # bytes that stay free on the phone
SLOWEST = 1 << 20  # bytes a second: a push slower than this has stalled
_TELL = 5.0  # seconds between lines on how far a push has come
_STALE_MINUTES = 720  # session folders older than this were left by a host that died

Value = TypeVar("Value")


class DeviceError(PocketganError):
    """An infrastructure fault: the phone, its cable or its server, not the model. Exit code 1."""


class DeviceLost(DeviceError):
    """The phone went away, or what it said was cut off. Trying again may help."""


class DeviceTimeout(DeviceError):
    """The phone did not answer in time."""


@dataclass(frozen=True)
class Completed:
    """A program that ran to its end on the device.

    Attributes:
        code: its exit code; 137 when it ran past its time and was killed.
        seconds: from request to answer, on the host's clock.
    """

    code: int
    stdout: bytes
    stderr: bytes
    seconds: float

    @property
    def text(self) -> str:
        """Standard output as text; bytes that are not UTF-8 are replaced."""
        return self.stdout.decode("utf-8", "replace")


class Transport(ABC):
    """One device. Every method ends within its timeout, or raises.

    Attributes:
        serial: the device's name.
        root: our folder on it; everything we write lies below.
    """

    serial: str
    root: str

    @abstractmethod
    def shell(
        self,
        argv: Sequence[str],
        *,
        timeout: float = 30.0,
        cwd: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Completed:
        """Run one program and wait for its end; it is killed on the device after `timeout` seconds.

        Raises:
            DeviceTimeout: it ran past `timeout`, or the device does not answer.
            DeviceLost: the device went away, or the end of the output is missing.
        """

    @abstractmethod
    def put(
        self,
        local: Path,
        remote: str,
        *,
        timeout: float,
        mode: int = 0o755,
        watch: Callable[[int], None] | None = None,
    ) -> None:
        """Copy one file to the device; the folder must exist. `watch` is told the bytes that went off.

        Raises:
            DeviceError: it does not fit, or the path cannot be written.
            DeviceTimeout, DeviceLost: as `shell`.
        """

    @abstractmethod
    def get(self, remote: str, local: Path, *, timeout: float) -> None:
        """Copy one file from the device; a missing one is an error, and leaves nothing at `local`."""

    @abstractmethod
    def size(self, remote: str) -> int | None:
        """Bytes of a file on the device, or None where there is no such file."""

    def recover(self) -> None:  # noqa: B027 - most devices come back by themselves
        """Try to reach a device that was lost."""

    def close(self) -> None:  # noqa: B027 - most transports hold nothing open
        """Let go of the device."""


def checked(transport: Transport, argv: Sequence[str], *, timeout: float = 30.0) -> Completed:
    """Run a program that must succeed.

    Raises:
        DeviceError: its exit code is not 0.
    """
    done = transport.shell(argv, timeout=timeout)
    if done.code:
        said = (done.stderr or done.stdout).decode("utf-8", "replace").strip().splitlines()
        raise DeviceError(
            f"{argv[0]} failed on {transport.serial}",
            got=f"exit code {done.code}" + (f": {said[-1][:300]}" if said else ""),
            fix=f"look at the phone: pocketgan devices doctor {shlex.quote(transport.serial)}",
        )
    return done


def retrying(
    device: Transport, call: Callable[[], Value], attempts: int = ATTEMPTS, pause: float = PAUSE
) -> Value:
    """Call something that may be repeated without harm, again when the device was lost for a moment."""
    while True:
        try:
            return call()
        except DeviceLost:
            attempts -= 1
            if attempts < 1:
                raise
        time.sleep(pause)
        pause *= 2
        with contextlib.suppress(DeviceError):
            device.recover()


class Workspace:
    """One session on a device: `with Workspace(transport) as work: ...`.

    Files pushed lie in `root/objects/<sha256>/` and stay for the next session (`purge` removes them);
    `folder` is the session's own and is removed at the end. Where it cannot be, because the phone is gone,
    the first session that begins 12 hours later removes it.

    Attributes:
        folder: on the device, empty at first.
        left_behind: why the folder could not be removed, or None.
    """

    def __init__(self, transport: Transport, *, progress: Callable[[str], None] | None = None):
        self.transport = transport
        self.folder = f"{transport.root}/session-{uuid.uuid4().hex[:16]}"
        self.left_behind: str | None = None
        self._say = progress or (lambda line: None)

    def __enter__(self) -> Workspace:
        device = self.transport
        try:
            retrying(device, lambda: checked(device, ["mkdir", "-p", self.folder, f"{device.root}/objects"]))
            sweep = ["find", device.root, "-maxdepth", "1", "-name", "session-*"]
            device.shell([*sweep, "-mmin", f"+{_STALE_MINUTES}", "-exec", "rm", "-rf", "{}", "+"])
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._remove()
        self.transport.close()

    def push(self, local: Path, *, digest: str | None = None) -> str:
        """Bring a file to the device unless its content is there; return its path there.

        Args:
            local: the file.
            digest: its hex SHA-256, where the caller knows it.

        Raises:
            DeviceError: there is too little space, or the file did not arrive whole.
        """
        digest, size = digest or sha256(local), local.stat().st_size
        folder = f"{self.transport.root}/objects/{digest}"
        remote = f"{folder}/{plain_name(local.name)}"
        if retrying(self.transport, lambda: self.transport.size(remote)) == size:
            return remote
        free = self.free_bytes()
        if size + SPARE > free:
            raise DeviceError(
                f"there is too little space on {self.transport.serial} for {local.name}",
                got=f"{free / 1e6:.0f} MB free",
                allowed=f"{(size + SPARE) / 1e6:.0f} MB",
                fix=room(self.transport.serial),
            )
        self._say(f"push {local.name} ({size / 1e6:.1f} MB) to {self.transport.serial}")
        part = f"{self.folder}/{uuid.uuid4().hex[:16]}.part"
        retrying(self.transport, lambda: self._bring(local, part, size))
        arrived = checked(self.transport, ["sha256sum", part], timeout=30 + size / SLOWEST).text.split(" ")[0]
        if arrived != digest:
            raise DeviceError(
                f"{local.name} did not arrive whole on {self.transport.serial}",
                got=f"sha256 {arrived[:64]}",
                allowed=digest,
                fix="check the cable, and try again",
            )
        checked(self.transport, ["mkdir", "-p", folder])
        checked(self.transport, ["mv", "-f", part, remote])
        return remote

    def pull(self, name: str, local: Path, *, timeout: float = 60.0) -> None:
        """Fetch a file of the session's folder."""
        retrying(
            self.transport,
            lambda: self.transport.get(f"{self.folder}/{plain_name(name)}", local, timeout=timeout),
        )

    def free_bytes(self) -> int:
        """Free space where we write, in bytes.

        Raises:
            DeviceError: the device does not tell.
        """
        lines = retrying(
            self.transport, lambda: checked(self.transport, ["df", "-k", self.transport.root], timeout=10)
        ).text.splitlines()
        fields = lines[-1].split() if lines else []
        if len(fields) < 5 or not re.fullmatch(r"[0-9]{1,15}", fields[-3]):
            raise DeviceError(f"{self.transport.serial} does not tell its free space", got=lines[-1:])
        return int(fields[-3]) * 1024

    def _bring(self, local: Path, part: str, size: int) -> None:
        told = time.monotonic()

        def watch(sent: int) -> None:
            nonlocal told
            if sent < size and time.monotonic() - told >= _TELL:
                told = time.monotonic()
                self._say(f"push {local.name}: {sent / size:.0%}")

        try:
            self.transport.put(local, part, timeout=30 + size / SLOWEST, watch=watch)
        except DeviceLost:
            raise
        except DeviceError:
            with contextlib.suppress(DeviceError):
                self.transport.shell(["rm", "-f", part], timeout=10)
            raise

    def _remove(self) -> None:
        """Remove the session's folder; what went wrong is kept, and never hides the session's own error."""
        try:
            retrying(self.transport, lambda: checked(self.transport, ["rm", "-rf", self.folder], timeout=20))
        except DeviceError as error:
            self.left_behind = f"{self.folder} stays on {self.transport.serial}: {error.what}"
            self._say(self.left_behind)


def room(serial: str) -> str:
    """What to do about a full phone."""
    return f"free some space, or remove what we keep there: pocketgan devices clean {shlex.quote(serial)}"


def purge(device: Transport) -> int:
    """Remove all we ever put on a device, running sessions included; returns the bytes that it took."""
    told = retrying(device, lambda: device.shell(["du", "-sk", device.root])).text.split()
    retrying(device, lambda: checked(device, ["rm", "-rf", device.root], timeout=60))
    return int(told[0]) * 1024 if told and re.fullmatch(r"[0-9]{1,15}", told[0]) else 0
