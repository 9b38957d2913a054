"""adbd's side of adb's wire protocol, for the simulated phone: connections, shell_v2 and sync streams.

Protocol: https://android.googlesource.com/platform/packages/modules/adb, protocol.txt and SYNC.TXT.
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import stat
import struct
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from phone import Phone

_VERSION, _LARGEST = 0x01000001, 256 << 10
_NAMES = {
    int.from_bytes(name, "little"): name for name in (b"CNXN", b"OPEN", b"OKAY", b"WRTE", b"CLSE", b"AUTH")
}


class Connection:
    """One host's connection; several streams at once."""

    def __init__(self, phone: Phone, peer: socket.socket):
        self.phone, self._peer = phone, peer
        self._lock = threading.Lock()
        self._streams: dict[int, Stream] = {}

    def serve(self) -> None:
        try:
            while True:
                command, first, second, length = struct.unpack("<4I8x", self._exactly(24))
                data = self._exactly(length)
                match _NAMES.get(command):
                    case b"CNXN":
                        self._greet()
                    case b"AUTH":  # signatures are never good enough; a key is never accepted
                        if first == 2:
                            self.send(b"AUTH", 1, 0, os.urandom(20))
                    case b"OPEN":
                        self._serve_stream(first, data.rstrip(b"\0").decode("utf-8", "replace"))
                    case b"WRTE":
                        self.send(b"OKAY", second, first)
                        if second in self._streams:
                            self._streams[second].arrived.put(data)
                    case b"OKAY":
                        if second in self._streams:
                            self._streams[second].may_send.release()
                    case b"CLSE":
                        if stream := self._streams.pop(second, None):
                            stream.close()
        except (OSError, EOFError, struct.error):
            pass
        finally:
            self.hang_up()
            self.phone.forget(self)

    def hang_up(self) -> None:
        with contextlib.suppress(OSError):
            self._peer.shutdown(socket.SHUT_RDWR)
        self._peer.close()
        for stream in list(self._streams.values()):
            stream.close()

    def send(self, command: bytes, first: int, second: int, data: bytes = b"") -> None:
        number = int.from_bytes(command, "little")
        header = struct.pack(
            "<6I", number, first, second, len(data), sum(data) & 0xFFFFFFFF, number ^ 0xFFFFFFFF
        )
        with self._lock:
            self._peer.sendall(header + data)

    def _greet(self) -> None:
        if self.phone.fault == "unauthorized":
            self.send(b"AUTH", 1, 0, os.urandom(20))
            return
        model = self.phone.properties["ro.product.model"]
        banner = (
            f"device::ro.product.name=sim;ro.product.model={model};ro.product.device=sim;features=shell_v2"
        )
        self.send(b"CNXN", _VERSION, _LARGEST, banner.encode())

    def _serve_stream(self, theirs: int, service: str) -> None:
        stream = Stream(self, theirs, theirs + 1000)
        self._streams[stream.ours] = stream
        self.send(b"OKAY", stream.ours, theirs)
        kind, _, rest = service.partition(":")
        work = {"shell": stream.shell, "sync": stream.sync}.get(kind.split(",")[0])
        if work is None:
            self.send(b"CLSE", stream.ours, theirs)
        else:
            threading.Thread(target=stream.work, args=(work, rest), daemon=True).start()

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self._peer.recv(count - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data


class Stream:
    """One shell command or one sync session."""

    def __init__(self, connection: Connection, theirs: int, ours: int):
        self.connection, self.phone, self.theirs, self.ours = connection, connection.phone, theirs, ours
        self.arrived: queue.Queue[bytes | None] = queue.Queue()
        self.may_send = threading.Semaphore(1)
        self._closed, self._unread = False, b""
        self._child: subprocess.Popen[bytes] | None = None

    def work(self, job, rest: str) -> None:
        with contextlib.suppress(OSError, EOFError, struct.error):
            job(rest)
        with contextlib.suppress(OSError):
            self.connection.send(b"CLSE", self.ours, self.theirs)

    def close(self) -> None:
        self._closed = True
        self.arrived.put(None)
        self.may_send.release()
        if self._child is not None:
            self._kill()

    def _kill(self) -> None:
        """The command and all it started; `timeout` makes a process group of its own."""
        with contextlib.suppress(psutil.Error):
            family = psutil.Process(self._child.pid)
            for process in (*family.children(recursive=True), family):
                process.kill()

    def shell(self, command: str) -> None:
        phone = self.phone
        phone.log.append(command)
        fault = phone.meets(command)
        if fault == "stall":
            return self._wait()
        if fault == "garbage":
            self._packet(1, os.urandom(64) + b"\n\xff\xfe<script>$(reboot)\n")
            return self._packet(3, b"\0")
        if fault == "flood":
            while True:
                self._packet(1, b"x" * 65536)
        command = command.removeprefix("raw:") if command.startswith("raw:") else command
        phone.refresh(command)
        self._child = subprocess.Popen(
            ["/bin/sh", "-c", phone.real(command)],
            cwd=phone.folder,
            env=phone.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        if fault in ("die", "zero", "reboot"):
            phone.fault = None
            time.sleep(0.05)
            self._kill()
            self._child.communicate()
            if fault == "zero":
                self._packet(1, b'{"samples": [1.0, 2.')
                return self._packet(3, b"\0")
            return phone.reboot(1.0 if fault == "reboot" else 3600)
        complaints = threading.Thread(target=self._copy, args=(2, self._child.stderr), daemon=True)
        complaints.start()
        self._copy(1, self._child.stdout)
        complaints.join()
        self._packet(3, bytes([self._child.wait() & 0xFF]))

    def sync(self, _: str) -> None:
        while True:
            request, length = struct.unpack("<4sI", self._take(8))
            text = self._take(length).decode("utf-8", "replace")
            fault = self.phone.meets(text)
            if fault == "stall-sync":
                return self._wait()
            if request == b"QUIT":
                return
            if request == b"SEND":
                name, _, mode = text.rpartition(",")
                self._receive(Path(self.phone.real(name)), int(mode), fault)
                continue
            path = Path(self.phone.real(text))
            if request == b"STAT":
                self._write(b"STAT" + _stat(path))
            elif request == b"LIST":
                for entry in sorted(path.iterdir()) if path.is_dir() else ():
                    name = entry.name.encode()
                    self._write(b"DENT" + _stat(entry) + struct.pack("<I", len(name)) + name)
                self._write(b"DONE" + bytes(16))
            elif request == b"RECV":
                self._deliver(path)

    def _receive(self, path: Path, mode: int, fault: str | None) -> None:
        part = path.with_name(path.name + ".incoming")
        failure = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = part.open("wb")
        except OSError as error:
            failure, file = error.strerror or "failed", Path(os.devnull).open("wb")  # noqa: SIM115
        with file:
            while True:
                request, length = struct.unpack("<4sI", self._take(8))
                if request == b"DONE":
                    break
                data = self._take(length)
                if fault == "full":
                    failure = "couldn't write: No space left on device"
                if fault == "corrupt" and data:
                    data = bytes([data[0] ^ 1]) + data[1:]
                file.write(data)
        if failure:
            part.unlink(missing_ok=True)
            self._write(b"FAIL" + struct.pack("<I", len(failure)) + failure.encode())
            return
        part.chmod(stat.S_IMODE(mode))
        part.replace(path)
        self._write(b"OKAY" + bytes(4))

    def _deliver(self, path: Path) -> None:
        if not path.is_file():
            self._write(b"FAIL" + struct.pack("<I", 25) + b"No such file or directory")
            return
        with path.open("rb") as file:
            while data := file.read(65536):
                self._write(b"DATA" + struct.pack("<I", len(data)) + data)
        self._write(b"DONE" + bytes(4))

    def _copy(self, kind: int, source) -> None:
        with source, contextlib.suppress(OSError, EOFError):
            while data := source.read1(16384):
                self._packet(kind, data)

    def _packet(self, kind: int, data: bytes) -> None:
        self._write(struct.pack("<BI", kind, len(data)) + data)

    def _write(self, data: bytes) -> None:
        for start in range(0, len(data), _LARGEST):
            self.may_send.acquire()
            if self._closed:
                raise EOFError
            self.connection.send(b"WRTE", self.ours, self.theirs, data[start : start + _LARGEST])

    def _take(self, count: int) -> bytes:
        while len(self._unread) < count:
            piece = self.arrived.get()
            if piece is None:
                raise EOFError
            self._unread += piece
        taken, self._unread = self._unread[:count], self._unread[count:]
        return taken

    def _wait(self) -> None:
        while not self._closed:
            time.sleep(0.05)


def _stat(path: Path) -> bytes:
    try:
        found = path.stat()
    except OSError:
        return bytes(12)
    return struct.pack("<3I", found.st_mode, found.st_size & 0xFFFFFFFF, int(found.st_mtime))
