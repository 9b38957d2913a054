"""A teacher's outputs, computed once: exact, bounded, on disk and in memory, shared between runs."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np

from compressor.errors import PocketganError
from compressor.files import atomic

MEMORY = 1 << 30  # bytes of outputs kept in memory
DISK = 8 << 30  # bytes of outputs kept on disk
_STALE = 3600.0  # seconds after which a killed process's unfinished file is swept away


class OutputCache:
    """Arrays by key: float32 .npy files, whole or absent, with the latest ones in memory.

    Several processes may use a folder at once; a process killed at any moment leaves nothing that is read.
    When the disk part is full, what this process has not used goes first, longest unused first; what it
    uses is never thrown out for more of the same, which would only make room to be missed again.

    Args:
        folder: where files lie, or None for memory alone.
        memory, disk: bounds in bytes.
    """

    def __init__(self, folder: Path | None, memory: int = MEMORY, disk: int = DISK):
        self.folder, self.memory, self.disk = folder, memory, disk
        self._held: OrderedDict[str, np.ndarray] = OrderedDict()
        self._held_bytes = 0
        self._used: set[str] = set()
        self._disk_bytes: int | None = None  # on disk, about; counted at the first write
        self._full = False

    def get(self, key: str, make: Callable[[], np.ndarray]) -> np.ndarray:
        """The array of a key, read-only; made and kept if there is none yet.

        Raises:
            PocketganError: it has values that are not finite.
        """
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key]
        self._used.add(key)
        values = self._read(key)
        if values is None:
            values = np.ascontiguousarray(make(), np.float32)
            if not np.isfinite(values).all():
                raise PocketganError("the teacher made values that are not numbers", got="NaN or infinity")
            self._write(key, values)
        values.flags.writeable = False
        self._hold(key, values)
        return values

    def _path(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / key[:2] / f"{key}.npy"

    def _hold(self, key: str, values: np.ndarray) -> None:
        if values.nbytes > self.memory:
            return
        self._held[key] = values
        self._held_bytes += values.nbytes
        while self._held_bytes > self.memory:
            _, dropped = self._held.popitem(last=False)
            self._held_bytes -= dropped.nbytes

    def _read(self, key: str) -> np.ndarray | None:
        """What the disk holds; a damaged file counts as none."""
        if self.folder is None:
            return None
        path = self._path(key)
        try:
            values: np.ndarray = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        with contextlib.suppress(OSError):  # the time of the last use
            os.utime(path)
        return values if values.dtype == np.float32 else None

    def _write(self, key: str, values: np.ndarray) -> None:
        if self.folder is None or not self._make_room(values.nbytes):
            return
        content = io.BytesIO()
        np.save(content, values, allow_pickle=False)
        try:
            with atomic(self._path(key)) as file:
                file.write(content.getbuffer())
        except PocketganError:  # no room, or no right to write: the cache only saves time
            self._full = True
            return
        assert self._disk_bytes is not None
        self._disk_bytes += values.nbytes

    def _make_room(self, wanted: int) -> bool:
        """Whether so many bytes may be written, after throwing out what nobody here uses."""
        if self._full:
            return False
        if self._disk_bytes is None:
            self._disk_bytes = sum(size for _, size, _ in self._files())
        if self._disk_bytes + wanted <= self.disk:
            return True
        files = sorted(self._files())
        total = sum(size for _, size, _ in files)
        for _, size, path in files:
            if total + wanted <= self.disk:
                break
            if path.stem not in self._used:
                with contextlib.suppress(OSError):
                    path.unlink()
                total -= size
        self._disk_bytes = total
        self._full = total + wanted > self.disk
        return not self._full

    def _files(self) -> list[tuple[float, int, Path]]:
        """(time of last use, bytes, path) of every file; sweeps up what killed processes left."""
        assert self.folder is not None
        found = []
        for path in self.folder.glob("??/*"):
            with contextlib.suppress(OSError):
                facts = path.stat()
                if path.suffix == ".npy":
                    found.append((facts.st_mtime, facts.st_size, path))
                elif path.suffix == ".part" and time.time() - facts.st_mtime > _STALE:
                    path.unlink()
        return found


def key_of(identity: str, picture: np.ndarray) -> str:
    """The key of a teacher's output for an input (1, C, H, W): who, what size, and every bit of it."""
    values = np.ascontiguousarray(picture, np.float32)
    return hashlib.sha256(
        identity.encode() + repr(values.shape).encode() + hashlib.sha256(values.tobytes()).digest()
    ).hexdigest()
