"""A store's sessions as files: one bench.json for each measured job, as `pocketgan bench` writes it."""

from __future__ import annotations

from pathlib import Path

from benchmarks.farm.store import MEASURED, REFUSED, Row, Store
from compressor.files import write_json
from devices.quoting import plain_name


def write_results(store: Store, folder: Path) -> list[Path]:
    """Write FOLDER/PHONE/JOB/bench.json for each job that has a session, one at a time.

    A session that failed its check keeps its times; its parity says so.

    Returns:
        The files, in the store's order.
    """
    written = []
    for row in store.rows(documents=True):
        if row.status in (MEASURED, REFUSED) and row.document is not None:
            path = folder / plain_name(row.serial or "phone") / _folder(row) / "bench.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, row.document)
            written.append(path)
    return written


def _folder(row: Row) -> str:
    """The job's name with its parts kept apart, and enough of its key that no two are alike."""
    return f"{plain_name(row.name.replace('/', '+'))}-{row.job[:8]}"
