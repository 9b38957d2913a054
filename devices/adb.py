"""Phones over adb, on this machine's adb server or on another's, through adbutils.

adbutils speaks to the adb server; the streams are read here, because every call needs a deadline and
an end that cannot be mistaken: `adb shell` may report success for a command whose phone died (adb 29
does), so each command prints a mark of its own after it ended, and output without the mark is a fault.
"""

from __future__ import annotations

import stat
import struct
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.errors import UsageError
from compressor.files import atomic
from devices.adb_server import AdbServer, translated
from devices.quoting import command_line
from devices.transport import Completed, DeviceError, DeviceLost, DeviceTimeout, Transport, room

if TYPE_CHECKING:
    from adbutils import AdbConnection

ROOT = "/data/local/tmp/pocketgan"  # shell may write and execute here on every Android
_GRACE = 10.0  # seconds the phone gets to kill a program and answer, after the program's own time
_LARGEST_OUTPUT = 64 << 20
_CHUNK = 64 << 10  # the sync protocol's largest piece
_LONGEST_COMMAND = 32 << 10


class AdbTransport(Transport):
    """One phone.

    Args:
        serial: as `adb devices` shows it.
        server: whose phone it is.
    """

    def __init__(self, serial: str, server: AdbServer | None = None):
        if not serial or any(ord(letter) <= 32 or ord(letter) == 127 for letter in serial):
            raise UsageError("this is no serial number", got=repr(serial), fix="pocketgan devices")
        self.serial, self.root = serial, ROOT
        self.server = server or AdbServer()

    def shell(
        self,
        argv: Sequence[str],
        *,
        timeout: float = 30.0,
        cwd: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Completed:
        # The phone stops the program by itself, so nothing keeps running when we are gone.
        program = command_line(["timeout", "-s", "KILL", f"{timeout:.0f}", *argv], environment)
        place = f"cd {command_line([cwd])} && " if cwd else ""
        mark = f"pocketgan-{uuid.uuid4().hex}"
        line = f"{place}{program} </dev/null; printf '\\n%s %d\\n' {mark} $?"
        if len(line.encode()) > _LONGEST_COMMAND:
            raise UsageError("this command is too long for adb", allowed=f"{_LONGEST_COMMAND} bytes")
        began = time.monotonic()
        deadline = began + timeout + _GRACE
        stdout, stderr = bytearray(), bytearray()
        with translated(self.serial), self._stream(f"shell,v2,raw:{line}", deadline) as connection:
            while True:
                kind, length = struct.unpack("<BI", _read(connection, 5, deadline))
                data = _read(connection, length, deadline)
                if kind == 3:
                    break
                (stdout if kind == 1 else stderr).extend(data if kind in (1, 2) else b"")
                if len(stdout) + len(stderr) > _LARGEST_OUTPUT:
                    raise DeviceError(
                        f"{_name(argv)} on {self.serial} prints without end",
                        got=f"more than {_LARGEST_OUTPUT >> 20} MiB",
                        fix="restart the phone, and try again",
                    )
        head, _, tail = bytes(stdout).rpartition(b"\n" + mark.encode() + b" ")
        if not tail.strip().isdigit():
            raise DeviceLost(
                f"{self.serial} stopped answering while {_name(argv)} ran",
                got=f"{len(stdout)} bytes of output without their end",
                fix="look at the cable and the phone's battery, and try again",
            )
        code, seconds = int(tail), time.monotonic() - began
        if code == 137 and seconds >= timeout - 0.5:
            raise DeviceTimeout(
                f"{_name(argv)} ran for more than {timeout:g} s on {self.serial} and was stopped"
            )
        return Completed(code, head, bytes(stderr), seconds)

    def put(
        self,
        local: Path,
        remote: str,
        *,
        timeout: float,
        mode: int = 0o755,
        watch: Callable[[int], None] | None = None,
    ) -> None:
        deadline = time.monotonic() + timeout
        target = f"{remote},{stat.S_IFREG | mode}".encode()
        with translated(self.serial), local.open("rb") as file, self._stream("sync:", deadline) as connection:
            try:
                _send(connection, b"SEND" + struct.pack("<I", len(target)) + target, deadline)
                while data := file.read(_CHUNK):
                    _send(connection, b"DATA" + struct.pack("<I", len(data)) + data, deadline)
                    if watch:
                        watch(file.tell())
                _send(connection, b"DONE" + struct.pack("<I", int(time.time())), deadline)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the phone may have said why before it hung up
            answer, length = struct.unpack("<4sI", _read(connection, 8, deadline))
            if answer == b"FAIL":
                raise self._refused(
                    f"cannot take {local.name}", _read(connection, min(length, 4096), deadline)
                )
            if answer != b"OKAY":
                raise DeviceLost(f"{self.serial} answered a push with garbage", got=repr(answer))

    def get(self, remote: str, local: Path, *, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        if self.size(remote) is None:
            raise DeviceError(f"there is no file {remote} on {self.serial}")
        with (
            translated(self.serial),
            atomic(local) as file,
            self._stream("sync:", deadline) as connection,
        ):
            path = remote.encode()
            _send(connection, b"RECV" + struct.pack("<I", len(path)) + path, deadline)
            while True:
                answer, length = struct.unpack("<4sI", _read(connection, 8, deadline))
                if answer == b"DONE":
                    return
                if answer not in (b"DATA", b"FAIL") or length > _CHUNK:
                    raise DeviceLost(f"{self.serial} answered a pull with garbage", got=repr(answer))
                data = _read(connection, length, deadline)
                if answer == b"FAIL":
                    raise self._refused(f"cannot read {remote}", data)
                file.write(data)

    def size(self, remote: str) -> int | None:
        deadline = time.monotonic() + 10
        path = remote.encode()
        with translated(self.serial), self._stream("sync:", deadline) as connection:
            _send(connection, b"STAT" + struct.pack("<I", len(path)) + path, deadline)
            answer, mode, size, _ = struct.unpack("<4sIII", _read(connection, 16, deadline))
            if answer != b"STAT":
                raise DeviceLost(f"{self.serial} answered with garbage", got=repr(answer))
        return size if stat.S_ISREG(mode) else None

    def recover(self) -> None:
        """A phone on the network that dropped out is connected again; one on USB comes by itself."""
        if ":" in self.serial and self.server.states().get(self.serial) != "device":
            self.server.disconnect(self.serial)
            self.server.connect(self.serial)

    def _stream(self, service: str, deadline: float) -> AdbConnection:
        return self.server.stream(self.serial, service, max(1.0, deadline - time.monotonic()))

    def _refused(self, what: str, reason: bytes) -> DeviceError:
        said = reason.decode("utf-8", "replace")
        full = "No space left" in said
        return DeviceError(
            f"{self.serial} {what}" + (": its disk is full" if full else ""),
            got=said[:300],
            fix=room(self.serial) if full else None,
        )


def _read(connection: Any, count: int, deadline: float) -> bytes:
    data = bytearray()
    while len(data) < count:
        connection.conn.settimeout(_left(deadline))
        piece = connection.conn.recv(min(count - len(data), 1 << 20))
        if not piece:
            raise EOFError(f"cut off after {len(data)} of {count} bytes")
        data += piece
        if len(data) > _LARGEST_OUTPUT:
            raise DeviceError("the phone sends without end")
    return bytes(data)


def _send(connection: Any, data: bytes, deadline: float) -> None:
    connection.conn.settimeout(_left(deadline))
    connection.conn.sendall(data)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _name(argv: Sequence[str]) -> str:
    return Path(argv[0]).name[:60]
