"""bench.json files as sessions leave them, with samples of a known median and noise."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.samples import EMULATED, FORMAT

PHONE = {
    "serial": "R3CX",
    "maker": "Samsung",
    "model": "SM-S928B",
    "chip": "Snapdragon 8 Gen 3",
    "soc": "SM8650",
}


def samples(median: float, seed: int = 0, noise: float = 0.004, count: int = 30) -> list[float]:
    """Log-normal noise about a median in milliseconds."""
    return list(median * np.exp(np.random.default_rng(seed).normal(0, noise, count)))


def series(file: str, values: Sequence[float], **other: Any) -> dict[str, Any]:
    """One entry of "series"."""
    return {
        "group": "compressed",
        "file": file,
        "runtime": "onnxruntime",
        "precision": "fp32",
        "threads": 1,
        "init_ms": 5.0,
        "first_ms": 12.0,
        "warmup_ms": [11.0],
        "samples_ms": list(values),
        "peak_rss_mb": 64.0,
        "sha256": "ab" * 32,
        **other,
    }


def write_bench(
    path: Path, entries: Sequence[Mapping[str, Any]], *, emulated: bool = False, **document: Any
) -> Path:
    """A bench.json of a phone; `path` is its folder. Returns the file."""
    whole = {
        "format": EMULATED if emulated else FORMAT,
        "emulated": emulated,
        "machine": {"cpu": "phone", "logical_cores": 8},
        "device": PHONE,
        "runtimes": {"onnxruntime": "1.22.0"},
        **document,
        "series": list(entries),
    }
    path.mkdir(parents=True, exist_ok=True)
    (path / "bench.json").write_text(json.dumps(whole), encoding="utf-8")
    return path / "bench.json"


def write_sessions(folder: Path, medians: Mapping[str, float], count: int = 3, seed: int = 0) -> Path:
    """Several sessions of the same files, in folders 1, 2, 3."""
    for number in range(count):
        entries = [
            series(file, samples(median, seed=seed + 97 * number + index))
            for index, (file, median) in enumerate(medians.items())
        ]
        write_bench(folder / str(number + 1), entries)
    return folder
