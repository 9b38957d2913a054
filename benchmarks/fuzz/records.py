"""Fuzzed: the records that later stages read, export.json and bench.json, each as a report reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.fuzz.mutations import some_json
from benchmarks.fuzz.target import Files, Target

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy


def _export() -> dict[str, Any]:
    """export.json of two files, one with everything that a record may have."""
    from exporters.departures import Departure
    from exporters.drop import Drop, Point
    from exporters.result import Delegation, ExportedFile, ExportResult, ImageParity, Parity

    parity = Parity((ImageParity("a.png", 0.01, 44.0, 0.99), ImageParity("b.png", 0.02, 41.0, None)), 40.0)
    plain = ExportedFile(
        "generator-fp32.onnx", "onnxruntime", "fp32", "fp32", 10, "ab", 1.5, 9.0, parity=parity
    )
    full = ExportedFile(
        file="generator-int8.tflite",
        runtime="litert",
        precision="int8",
        kind="int8-static",
        bytes=10,
        sha256="cd",
        input_layout="NHWC",
        parity=parity,
        dtypes={"int8": 9},
        delegation=Delegation(9, 8, 1),
        float_layers=("model.0",),
        notes=("a note",),
        trade=(Point(0, 0.0, 39.0), Point(1, 0.2, 41.0, 0.1, True)),
        drop=Drop((("a.png", 30.0, 29.9),), 0.5),
        departures=(Departure("TRANSPOSE", True, "model.0", None),),
    )
    image = {"shape": [1, 3, 32, 32], "range": [-1, 1], "output_range": [-1, 1], "scale": 1}
    named = {"name": "a", "sha256": "ab", "family": "resnet"}
    return ExportResult(Path(), named, image, {"size": [32, 32]}, {"onnx": "1"}, (plain, full)).as_json()


def _bench() -> dict[str, Any]:
    """bench.json of two series."""
    from benchmarks.samples import FORMAT
    from devices.host import facts

    series = {
        "group": "compressed",
        "file": "generator-fp32.onnx",
        "runtime": "onnxruntime",
        "precision": "fp32",
        "threads": 1,
        "init_ms": 5.0,
        "first_ms": 12.0,
        "warmup_ms": [11.0],
        "samples_ms": [10.0, 10.1, 9.9, 10.2, 10.0, 10.1],
        "peak_rss_mb": 64.0,
        "base_rss_mb": 30.0,
        "block": 0,
        "sha256": "ab",
        "delegation": None,
    }
    counts = {"nodes": 9, "delegated": 8, "partitions": 1, "kept": {"RSQRT": 1}}
    other = {**series, "group": "original", "runtime": "litert", "threads": 2, "delegation": counts}
    return {
        "format": FORMAT,
        "ended": "2026-11-21T10:00:00+00:00",
        "machine": facts().as_json(),
        "runtimes": {"onnxruntime": "1.22.0"},
        "order": "interleaved",
        "rounds": 6,
        "rounds_asked": 6,
        "heat_after": {"status": 0},
        "heat_by_round": [{"status": 1}],
        "share_below_top_frequency": {"cpu0": 0.5},
        "load_before": 0.5,
        "load_after": 0.5,
        "series": [series, other],
    }


def _exports() -> SearchStrategy[Files]:
    return some_json(_export()).map(lambda content: {"export.json": content})


def _benches() -> SearchStrategy[Files]:
    return some_json(_bench()).map(lambda content: {"bench.json": content})


def _read_export(folder: Path) -> None:
    from benchmarks.exported import list_files
    from exporters.result import read_export

    for name in ("generator-fp32.onnx", "generator-int8.tflite"):
        (folder / name).write_bytes(b"")
    result = read_export(folder)
    json.dumps(result.as_json(), allow_nan=False)  # as it is written again when an export goes on
    list_files([folder])
    report(folder)


def _read_bench(folder: Path) -> None:
    from benchmarks.report.history import tracks
    from benchmarks.samples import read_bench

    for series in read_bench(folder).series:
        series.summary.as_json()
    tracks(folder)
    report(folder)


def report(folder: Path) -> None:
    """The page made of a folder."""
    from benchmarks.report.page import report as write

    write(folder)


TARGETS = {
    "export.json": Target("export.json, and its report", _exports, _read_export),
    "bench.json": Target("bench.json, its report and history", _benches, _read_bench),
}
