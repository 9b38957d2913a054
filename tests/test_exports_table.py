"""What benchmarks.exports prints, from rows and samples whose answer is known."""

from __future__ import annotations

from pathlib import Path

from benchmarks.exports_table import quality, speeds
from benchmarks.samples import BenchResult, Series


def series(group: str, file: str, ms: float) -> Series:
    runtime = "litert" if file.endswith("tflite") else "onnxruntime"
    samples = tuple(ms * (1 + 0.001 * (n % 3)) for n in range(9))
    return Series(group, file, runtime, file[10:14], 1, 0.0, ms, (), samples, None)


def test_ratios_are_of_the_files_that_they_name():
    files = [
        *(("plain", "generator-fp32.onnx", 12.0), ("ours", "generator-fp32.onnx", 10.0)),
        *(("ours", "generator-int8.onnx", 4.0), ("plain", "generator-int8.onnx", 5.0)),
        *(("plain", "generator-fp32.tflite", 18.0), ("ours", "generator-int8.tflite", 6.0)),
    ]
    result = BenchResult(Path(), {}, tuple(series(*each) for each in files))
    ratios, rule, medians = speeds({"net": result}).split("\n\n")
    cells = [cell.strip() for cell in ratios.splitlines()[-1].strip("|").split("|")]
    assert cells[:2] == ["net", "1"]
    assert [cell.split("x")[0] for cell in cells[2:]] == ["1.20", "failed", "2.50", "3.00", "1.25", "failed"]
    assert "resamples" in rule and len(medians.splitlines()) == 2 + len(files)


def test_quality_shows_the_worst_and_the_mean_of_ours_beside_the_defaults():
    names = [f"generator-{p}.{k}" for p in ("fp32", "fp16", "int8") for k in ("onnx", "tflite")]
    ours = {
        name: {"psnr_min": 50.0 + n, "psnr_mean": 60.0 + n, "float_layers": n, "seconds": 1.0}
        for n, name in enumerate(names)
    }
    ours["generator-int8.tflite"] |= {"partitions": 1, "transposes": 2}
    plain = {name: {"error": "no"} for name in names}
    plain["generator-int8.onnx"] = {"psnr_min": 30.0, "psnr_mean": 31.0}
    line = quality([{"network": "net", "min_psnr": 48.0, "ours": ours, "plain": plain}]).splitlines()[-1]
    assert "| 54.0 / 64.0, 30.0 / 31.0 | 55.0 / 65.0, failed / failed |" in line
    assert line.startswith("| net | 60.0 / 61.0 | 62.0 / 63.0 | 48.0 |")
    assert line.endswith("| 4 / 5 | failed / failed / 1 | 2 | 6 |")
