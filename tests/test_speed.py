"""The page of speeds: every figure is computed from the record's samples, and what is missing is left out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.speed import house
from benchmarks.speed.networks import _of_a_run
from benchmarks.speed.page import page
from exporters.result import ExportResult

ROUNDS = [10.0, 10.2, 9.8, 10.1, 9.9]


def series(**milliseconds: float) -> dict[str, Any]:
    """ "GROUP_PRECISION_END" -> samples about so many milliseconds."""
    found = {}
    for name, value in milliseconds.items():
        group, precision, end = name.split("_")
        runtime = "onnxruntime" if end == "onnx" else "litert"
        samples = [value * each / 10 for each in ROUNDS]
        found[f"{group}/generator-{precision}.{end}"] = {
            "runtime": runtime,
            "precision": precision,
            "ms": samples,
        }
    return found


def record(**changes: Any) -> dict[str, Any]:
    """Of one network of 1 GMAC whose layer runs at half of the peak."""
    timed = series(
        plain_fp32_onnx=40, ours_fp32_onnx=20, ours_int8_onnx=10, plain_fp32_tflite=10, ours_fp32_tflite=20,
        compressed_fp32_onnx=16, compressed_int8_onnx=8,
    )  # fmt: skip
    layer = {"name": "0", "layer": "conv 3->3", "macs": 500_000_000, "nanoseconds": 10e6}
    network = {
        "size": [64, 64], "macs": 10**9, "series": timed, "openvino": None, "layers": [layer, layer],
        "peak": [190.0, 200.0],
        "compressed": {"made": "pruned to macs=50%", "float_layers": {"generator-int8.onnx": 3}},
    }  # fmt: skip
    told = {
        "command": ["python", "-m", "benchmarks.speed"],
        "date": "2026-11-21",
        "threads": 1,
        "load_average": [0.5, 0.5, 0.5],
        "machine": {"usable_cores": 2, "cpu": "a processor"},
        "networks": {"SRVGG": network},
        "training": {},
        "startup": {"python -c pass": [20.0] * 5, "pocketgan --help": [100.0] * 5},
        "reports": {
            "page of 10 records": {
                "seconds": 1.0,
                "processor_seconds": 0.9,
                "page_mb": 1,
                "base_mb": 50,
                "peak_mb": 60,
            }
        },
    }
    return told | changes


def test_ratios_are_of_the_samples() -> None:
    text = page(record())
    rows = {
        line.split(" | ")[1]: line.split(" | ")
        for line in text.partition("## Files")[2].splitlines()
        if line.startswith("| SRVGG, 64x64")
    }
    onnx, tflite = rows["ONNX Runtime"], rows["LiteRT"]
    assert onnx[2] == "40.0 ms" and [cell.split()[0] for cell in onnx[3:6]] == ["2.00x", "4.00x", "2.00x"]
    assert tflite[3].startswith("0.50x") and tflite[4] == "–"
    assert "Our FP32 file is slower than the plain path's: SRVGG in LiteRT." in text
    assert "takes 100.0 ms as a whole process, `python -c pass` 20.0 ms: 5.00x" in text


def test_the_compressed_network_stands_against_the_tools_file_of_the_original() -> None:
    head, _, rest = page(record()).partition("## Compressed against the original")
    part = rest.partition("## Files")[0]
    assert "network" not in head and "SRVGG: pruned to macs=50%." in part
    (onnx,) = [line.split(" | ") for line in part.splitlines() if "ONNX Runtime" in line]
    assert onnx[2:5] == ["40.0 ms", "16.0 ms", "8.0 ms"] and onnx[-1] == "3 |"
    assert [cell.split()[0] for cell in onnx[5:7]] == ["2.50x", "5.00x"]
    (tflite,) = [line.split(" | ") for line in part.splitlines() if "| LiteRT" in line]
    assert tflite[2:] == ["10.0 ms", "–", "–", "–", "–", "– |"]


def test_the_distance_to_the_peak_is_of_the_best_product() -> None:
    text = page(record())
    assert "| 200.0 | 100.0 (50%) | 200.0 (100%) | 100.0 (50%) |" in text  # 2 GFLOP in 20 and 10 ms
    assert "| `conv 3->3` | 2 | 500.0 M | 100.0 (50%) | 20.00 |" in text


def given(folder: Path, side: int) -> None:
    """An export without files, for pictures of that side."""
    folder.mkdir(parents=True, exist_ok=True)
    ExportResult(folder, {}, {"shape": [1, 3, side, side]}, {}, {}, ()).write()


def test_a_run_counts_where_its_files_take_the_same_pictures(tmp_path: Path) -> None:
    given(tmp_path / "ours", side=64)
    assert _of_a_run(None, "IMDN", tmp_path / "ours") is None
    assert _of_a_run(tmp_path, "IMDN", tmp_path / "ours") is None
    compressed = tmp_path / "imdn" / "export" / "compressed"
    given(compressed, side=64)
    assert _of_a_run(tmp_path, "IMDN", tmp_path / "ours") == compressed
    given(compressed, side=128)
    assert _of_a_run(tmp_path, "IMDN", tmp_path / "ours") is None


def test_what_was_not_measured_has_no_part() -> None:
    text = page(record(networks={}))
    assert "## Files" not in text and "OpenVINO" not in text and "## The command line" in text


def test_reports_of_drawn_records_hold_them_all(tmp_path: Path) -> None:
    house._write(tmp_path / "history", "history", 250)
    house._write(tmp_path / "page", "page", 8)
    assert len(list((tmp_path / "history").rglob("bench.json"))) == 3
    for kind, words in (("history", "<b>3</b> sessions"), ("page", "network-1-int8.onnx")):
        line = [sys.executable, "-m", "benchmarks.speed.house", str(tmp_path / kind), kind]
        told = json.loads(subprocess.run(line, capture_output=True, text=True, check=True).stdout)
        assert told["peak_mb"] >= told["base_mb"] > 0 and told["seconds"] > 0
        name = "history.html" if kind == "history" else "report.html"
        assert words in (tmp_path / kind / name).read_text()
