"""One file from a server, whole or absent: resumed, retried a few times, and checked."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from compressor.errors import PocketganError
from compressor.files import read_json, sha256, write_error, write_json

ATTEMPTS = 5
_BLOCK = 1 << 18  # bytes
_TIMEOUT = 60.0  # seconds without a byte
_PASSING = (408, 425, 429, 500, 502, 503, 504)  # HTTP states that a later attempt may not meet


class _Broken(Exception):
    """The transfer ended early; what came is kept."""


def download(
    url: str,
    path: Path,
    *,
    wanted: str = "",
    fix: str | None = None,
    attempts: int = ATTEMPTS,
    pause: float = 1.0,
    watch: Callable[[int, int | None], None] | None = None,
) -> str:
    """Bring a file from http://, https:// or file://.

    What came before an interruption lies in a hidden neighbour of `path` and is gone on with (HTTP Range),
    if the server says that its file is still the same. A server that breaks off or is overloaded is asked
    again, later each time; one that cannot be reached or has no such file is not.

    Args:
        wanted: SHA-256 of the content, or its first digits; any content if empty.
        fix: the end of the error messages: how to get the file otherwise.
        attempts: in all. pause: seconds before the second, then twice as long each time.
        watch: told the bytes that are there and how many there will be, if the server says so.

    Returns:
        The content's SHA-256.

    Raises:
        PocketganError: it cannot be reached, read, or written; is not what was wanted; or another process
            is bringing it.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = part.open("ab")
    except OSError as error:
        raise write_error(path, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise PocketganError(
                f"another process is downloading {path}", fix="wait for it, then the same command again"
            ) from error
        try:
            _attempt(url, part, file, attempts, pause, watch, fix)
            found = _checked(url, part, wanted, fix)
            part.replace(path)
        except OSError as error:
            raise write_error(path, error) from error
        finally:
            with contextlib.suppress(OSError):
                if part.exists() and not part.stat().st_size:
                    part.unlink()
                if not part.exists():
                    _note(part).unlink()
    return found


def _attempt(
    url: str,
    part: Path,
    file: IO[bytes],
    attempts: int,
    pause: float,
    watch: Callable[[int, int | None], None] | None,
    fix: str | None,
) -> None:
    for number in range(attempts):
        try:
            return _receive(url, part, file, watch)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416:  # what is here is not a beginning of what is there
                file.truncate(0)
            elif error.code not in _PASSING:
                raise _failed(url, f"HTTP {error.code} {error.reason}", fix) from error
            said = f"HTTP {error.code} {error.reason}"
        except (_Broken, http.client.HTTPException, TimeoutError, ConnectionResetError) as error:
            said = str(error) or type(error).__name__
        except urllib.error.URLError as error:
            if not isinstance(error.reason, TimeoutError | ConnectionResetError):
                raise _failed(url, error.reason, fix) from error
            said = str(error.reason) or "no answer in time"
        except ValueError as error:  # a URL that is none
            raise _failed(url, error, fix) from error
        if number + 1 < attempts:
            time.sleep(pause * 2**number)
    kept = "what came is kept: the same command again goes on"
    raise _failed(url, f"{said}, the last of {attempts} attempts", f"{kept}; or {fix}" if fix else kept)


def _receive(url: str, part: Path, file: IO[bytes], watch: Callable[[int, int | None], None] | None) -> None:
    """One attempt: go on where `file` ends if the server lets us, else begin anew."""
    have = file.seek(0, os.SEEK_END)
    headers = {"User-Agent": "pocketgan", "Accept-Encoding": "identity"}
    validator = _validator_of(part, url)
    if have and validator:
        headers |= {"Range": f"bytes={have}-", "If-Range": validator}
    request = urllib.request.Request(url, headers=headers)
    with contextlib.closing(urllib.request.urlopen(request, timeout=_TIMEOUT)) as response:
        stated = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range") or "")
        if getattr(response, "status", None) == 206 and stated and int(stated[1]) == have:
            total: int | None = int(stated[2])
        else:
            file.truncate(0)
            have = 0
            length = response.headers.get("Content-Length")
            total = int(length) if length else None
            etag = response.headers.get("ETag") or "W/"
            strong = response.headers.get("Last-Modified") if etag.startswith("W/") else etag
            write_json(_note(part), {"url": url, "validator": strong})
        for block in _blocks(response):
            try:
                file.write(block)
            except OSError as error:
                raise write_error(part, error) from error
            have += len(block)
            if watch is not None:
                watch(have, total)
        file.flush()
        os.fsync(file.fileno())
    if total is not None and have != total:
        raise _Broken(f"the server broke off after {have:,} of {total:,} bytes")


def _blocks(response: Any) -> Iterator[bytes]:
    try:
        while block := response.read(_BLOCK):
            yield block
    except (OSError, http.client.HTTPException) as error:  # the network's; writing has its own
        raise _Broken(str(error) or type(error).__name__) from error


def _checked(url: str, part: Path, wanted: str, fix: str | None) -> str:
    found = sha256(part)
    if found.startswith(wanted.lower()):
        return found
    part.unlink()
    raise PocketganError(
        f"{url} did not give the file that was wanted",
        got=f"SHA-256 {found}",
        allowed=f"{wanted}..." if len(wanted) < len(found) else wanted,
        fix=fix,
    )


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _validator_of(part: Path, url: str) -> str | None:
    """What tells whether the server's file is the one that a part is of; None if nothing does."""
    try:
        note = read_json(_note(part))
        return str(note["validator"]) if note["url"] == url and note["validator"] else None
    except (PocketganError, KeyError, TypeError):
        return None


def _failed(url: str, got: object, fix: str | None) -> PocketganError:
    return PocketganError(f"{url} cannot be downloaded", got=got, fix=fix)
