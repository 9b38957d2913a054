"""The speed of the house itself: how soon the command line answers, and reports of many records.

    python -m benchmarks.speed.house FOLDER history|page

builds one report and prints its seconds and memory; `benchmarks.speed` calls it in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.samples import FORMAT
from compressor.files import write_json

SAMPLES, SERIES = 30, 100  # of each record, and of each session of a history
_WARM_UP = 2


def startup(rounds: int) -> dict[str, list[float]]:
    """Milliseconds of whole processes, in turns: Python alone, and our help."""
    ways = {"python -c pass": ["-c", "pass"], "pocketgan --help": ["-m", "pocketgan", "--help"]}
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(_WARM_UP + rounds):
        for name, line in ways.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, *line], check=True, stdout=subprocess.DEVNULL)
            if number >= _WARM_UP:
                found[name].append(round(1e3 * (time.perf_counter() - began), 3))
    return found


def reports(records: int, folder: Path) -> dict[str, dict[str, float]]:
    """Seconds and MiB of a history of so many records, and of a page of one session with a hundredth of them.

    Each is also built of a tenth, which shows whether time grows faster than the records.
    """
    from benchmarks.side_by_side import memory_apart

    found = {}
    for kind, most in (("history", records), ("page", records // 100)):
        for count in (max(1, most // 10), most):
            place = folder / f"{kind}-{count}"
            if not place.exists():
                _write(place, kind, count)
            told = memory_apart("benchmarks.speed.house", [str(place), kind])
            found[f"{kind} of {count:,} records"] = {"records": count, **told}
    return found


def _write(place: Path, kind: str, count: int) -> None:
    """Sessions of drawn latencies, as `pocketgan bench` leaves them."""
    draw, per = np.random.default_rng(0), SERIES if kind == "history" else count
    part = place.with_name(place.name + ".part")
    for number in range(-(-count // per)):
        series = [_series(index, draw) for index in range(min(per, count - number * per))]
        session = {
            "format": FORMAT,
            "ended": f"2026-{1 + number // 28 % 12:02}-{1 + number % 28:02}T10:00:00",
        }
        document = {**session, "machine": {"cpu": "drawn"}, "runtimes": {}, "series": series}
        write_json((part / f"{number:05}" if kind == "history" else part) / "bench.json", document)
    part.replace(place)


def _series(index: int, draw: np.random.Generator) -> dict[str, Any]:
    precision = ("fp32", "int8")[index % 2]
    return {
        "group": ("compressed", "original")[index // 2 % 2],
        "file": f"network-{index // 4}-{precision}.onnx",
        "runtime": "onnxruntime",
        "precision": precision,
        "threads": 1,
        "init_ms": 5.0,
        "first_ms": 12.0,
        "warmup_ms": [11.0],
        "samples_ms": np.round((10 + index % 7) * np.exp(draw.normal(0, 0.01, SAMPLES)), 4).tolist(),
        "peak_rss_mb": 64.0,
        "sha256": None,
    }


def main() -> None:
    """FOLDER KIND: build one, and print what it took as JSON."""
    from benchmarks.report.history import history
    from benchmarks.report.page import report
    from compressor.memory import memory_mb

    folder, kind = Path(sys.argv[1]), sys.argv[2]
    base, began, busy = memory_mb("VmRSS"), time.perf_counter(), time.process_time()
    page = history(folder) if kind == "history" else report(folder)
    taken = {"seconds": round(time.perf_counter() - began, 2)}
    taken |= {
        "processor_seconds": round(time.process_time() - busy, 2),
        "page_mb": round(page.stat().st_size / 1e6, 2),
    }
    print(json.dumps({**taken, "base_mb": round(base, 1), "peak_mb": round(memory_mb("VmHWM"), 1)}))


if __name__ == "__main__":
    main()
