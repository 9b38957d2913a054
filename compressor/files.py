"""Files that are whole or absent: atomic writes, hashes, output folders never overwritten silently."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from compressor.errors import PocketganError


@contextlib.contextmanager
def atomic(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary neighbour of `path`; move it into place when the block ends without error.

    A reader, or a run killed at any moment, sees the old file or the new one, never a part.

    Raises:
        PocketganError: the disk is full or the folder cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open(mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            part.unlink()
        if isinstance(error, OSError):
            raise write_error(path, error) from error
        raise


def sweep(folder: Path) -> None:
    """Remove what `atomic` had begun in a folder when its process was killed; none may be writing there."""
    for part in folder.rglob(".*.part"):
        part.unlink(missing_ok=True)


def cache_folder() -> Path:
    """Where caches lie: POCKETGAN_CACHE, else pocketgan/ in XDG_CACHE_HOME, else in ~/.cache."""
    if given := os.environ.get("POCKETGAN_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pocketgan"


def write_error(path: Path, error: OSError) -> PocketganError:
    """The message for a write that the system refused."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return PocketganError(
        f"cannot write {path}: {'the disk is full' if full else error.strerror or error}",
        fix="free some space, or choose another --output-dir; what was finished is kept: use --resume"
        if full
        else "choose an --output-dir that you may write to",
    )


def write_json(path: Path, document: object) -> None:
    """Write one JSON document atomically; NaN and infinity are refused, since JSON has neither."""
    with atomic(path, "w") as file:
        json.dump(document, file, indent=2, allow_nan=False)
        file.write("\n")


def read_json(path: Path) -> Any:
    """Read one JSON document; NaN and infinity are refused, as they are in writing.

    Raises:
        PocketganError: the file is missing, unreadable or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse, parse_float=_finite)
    except OSError as error:
        raise PocketganError(f"cannot read {path}", got=error.strerror or error) from error
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, or numbers of too many digits
        raise PocketganError(f"{path} is not a JSON document", got=error) from error


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse(text[:40])


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, read in blocks of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


_BEGINNINGS = (
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"version https://git-lfs", "a pointer of Git LFS instead of the file: git lfs pull"),
    (b"PK\x03\x04", "a zip archive, as torch.save writes"),
    (b"<", "a web page"),
)


def what_came(path: Path, reader: object) -> str:
    """What was found in place of a readable file: what its beginning looks like, and the reader's words."""
    said = (str(reader).strip() or type(reader).__name__).splitlines()[0][:300]
    try:
        with path.open("rb") as file:
            head = file.read(32)
    except OSError:
        return said
    if not head:
        return "an empty file"
    seems = "a TFLite file" if head[4:8] == b"TFL3" else None
    seems = next((words for start, words in _BEGINNINGS if head.startswith(start)), seems)
    return f"{seems}: {said}" if seems else said


def claim_folder(path: Path, *, resume: bool = False) -> Path:
    """Make an output folder, refusing one that already holds something unless `resume`.

    Raises:
        PocketganError: the folder is not empty (and `resume` is off), is a file, or cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not resume and any(path.iterdir()):
            raise PocketganError(
                f"{path} already holds files, which would be overwritten",
                fix="choose another --output-dir, or go on with what is there: --resume",
            )
    except FileExistsError as error:
        raise PocketganError(f"{path} is a file, not a folder") from error
    except OSError as error:
        raise write_error(path, error) from error
    return path
