"""One job on one phone, as a farm's worker does it: files at hand, measured, and what became of it.

Orders and outcomes are JSON types, so that hosts need not run the very same version. Nothing is raised:
the outcome says whether the job was measured, failed a check, cannot be run, or met a fault of the farm.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.farm.plan import timed_files
from benchmarks.farm.store import FAILED, INFRASTRUCTURE, MEASURED, REFUSED
from compressor.errors import GateError, PocketganError
from compressor.files import atomic, cache_folder, read_json, sha256
from devices.quoting import plain_name
from devices.transport import DeviceError, Transport

ABSENT = "absent"
"""The outcome of a job whose files this host does not have; they are brought, and the job sent again."""


def attempt(order: Mapping[str, Any], device: Transport) -> dict[str, Any]:
    """Measure an order's files on a phone.

    Args:
        order: see `benchmarks.farm.plan.Job.order`.
        device: the phone.

    Returns:
        {"status", "seconds", "error", "document", "missing"}: status is one of the store's or ABSENT;
        error is `PocketganError.as_json` or None; document is the session as bench.json holds it, or
        None; missing lists the hashes of absent files.
    """
    began = time.monotonic()
    paths = {file["sha256"]: _at_hand(file) for file in order["files"]}
    missing = [digest for digest, path in paths.items() if path is None]
    if missing:
        return _outcome(ABSENT, began, missing=missing)
    here = {digest: path for digest, path in paths.items() if path is not None}
    with tempfile.TemporaryDirectory(prefix="pocketgan-farm-") as scratch:
        document = Path(scratch) / "bench.json"
        try:
            _measure(order, device, here, document.parent)
        except GateError as error:
            return _outcome(REFUSED, began, error, read_json(document) if document.exists() else None)
        except DeviceError as error:
            return _outcome(INFRASTRUCTURE, began, error)
        except PocketganError as error:
            return _outcome(FAILED, began, error)
        except Exception as error:  # this host's disk, memory or a defect: another host may do better
            what = f"{type(error).__name__} on the phone's host: {error}"
            return _outcome(INFRASTRUCTURE, began, PocketganError(what[:500]))
        finally:
            _forget(device, here)
        return _outcome(MEASURED, began, document=read_json(document))


def keep(digest: str, name: str, content: bytes) -> None:
    """Put a file that another host sent where `attempt` looks for it.

    Raises:
        PocketganError: the content is not what the hash says, or the disk is full.
    """
    path = _cached(digest, name)
    with atomic(path) as file:
        file.write(content)
    if sha256(path) != digest:
        path.unlink()
        raise PocketganError(f"{name} did not arrive whole on this host")


def _measure(order: Mapping[str, Any], device: Transport, here: Mapping[str, Path], output: Path) -> None:
    from benchmarks.on_phone import bench_on_phone
    from devices.runner.bundle import prepare

    for runtime in sorted({file["runtime"] for file in order["files"]}):
        try:
            prepare(runtime)
        except PocketganError as error:  # the host's fault, not the file's
            raise DeviceError(error.what, got=error.got, allowed=error.allowed, fix=error.fix) from error
    bench_on_phone(
        timed_files(order, here),
        device,
        output=output,
        threads=order["threads"],
        rounds=order["rounds"],
        warmup=order["warmup"],
        max_seconds=order["max_seconds"],
        cores=order["cores"],
        seed=order["seed"],
        allow_emulated=order["allow_emulated"],
    )


def _at_hand(file: Mapping[str, Any]) -> Path | None:
    """The file where the coordinator has it (one machine, or a shared disk), or where it was sent to."""
    for path in (Path(file["path"]), _cached(file["sha256"], file["path"])):
        with contextlib.suppress(OSError):
            if path.is_file() and sha256(path) == file["sha256"]:
                return path
    return None


def _cached(digest: str, name: str) -> Path:
    if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
        raise PocketganError("this is no SHA-256", got=digest[:80])
    return cache_folder() / "farm" / digest / plain_name(Path(name).name)


def _forget(device: Transport, here: Mapping[str, Path]) -> None:
    """Take the models off the phone: hundreds of them would fill it. The runner stays."""
    with contextlib.suppress(DeviceError):
        device.shell(["rm", "-rf", *(f"{device.root}/objects/{digest}" for digest in here)], timeout=20)


def _outcome(
    status: str,
    began: float,
    error: PocketganError | None = None,
    document: dict[str, Any] | None = None,
    missing: list[str] | None = None,
) -> dict[str, Any]:
    return {
        "status": status,
        "seconds": time.monotonic() - began,
        "error": None if error is None else error.as_json(),
        "document": document,
        "missing": missing or [],
        "process": os.getpid(),
    }
