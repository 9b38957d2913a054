"""This machine as a device: the same interface as a phone, with subprocesses instead of adb."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from compressor.errors import PocketganError
from compressor.files import write_error
from devices.quoting import command_line
from devices.transport import Completed, DeviceError, DeviceTimeout, Transport


class LocalTransport(Transport):
    """Runs programs on this machine; files go below `root`, or below a new temporary folder."""

    def __init__(self, root: Path | None = None):
        self.serial = "local"
        self._own = None if root else tempfile.mkdtemp(prefix="pocketgan-")
        self.root = str(root or self._own)

    def shell(
        self,
        argv: Sequence[str],
        *,
        timeout: float = 30.0,
        cwd: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Completed:
        command_line(argv, environment)  # the same words are refused here as on a phone
        began = time.monotonic()
        try:
            child = subprocess.Popen(
                list(argv),
                cwd=cwd,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            # What a POSIX shell answers: 126 for a file that is no program, 127 for none at all.
            code = 127 if isinstance(error, FileNotFoundError) else 126
            return Completed(code, b"", str(error).encode(), time.monotonic() - began)
        try:
            stdout, stderr = child.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as error:
            raise DeviceTimeout(
                f"{Path(argv[0]).name} ran for more than {timeout:g} s and was stopped"
            ) from error
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)  # also what it started
            child.wait()
            for stream in (child.stdout, child.stderr):
                if stream:
                    stream.close()
        code = child.returncode if child.returncode >= 0 else 128 - child.returncode
        return Completed(code, stdout, stderr, time.monotonic() - began)

    def put(
        self,
        local: Path,
        remote: str,
        *,
        timeout: float,
        mode: int = 0o755,
        watch: Callable[[int], None] | None = None,
    ) -> None:
        del timeout, watch  # a copy on one machine neither stalls nor takes long
        try:
            shutil.copyfile(local, remote)
            Path(remote).chmod(mode)
        except OSError as error:
            raise _device_error(write_error(Path(remote), error)) from error

    def get(self, remote: str, local: Path, *, timeout: float) -> None:
        del timeout
        if not Path(remote).is_file():
            raise DeviceError(f"there is no file {remote} on this machine")
        try:
            shutil.copyfile(remote, local)
        except OSError as error:
            raise _device_error(write_error(local, error)) from error

    def size(self, remote: str) -> int | None:
        path = Path(remote)
        return path.stat().st_size if path.is_file() else None

    def close(self) -> None:
        if self._own:
            shutil.rmtree(self._own, ignore_errors=True)


def _device_error(error: PocketganError) -> DeviceError:
    return DeviceError(error.what, got=error.got, allowed=error.allowed, fix=error.fix)
