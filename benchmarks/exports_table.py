"""What `benchmarks.exports` prints: how near its files are to PyTorch, and how fast they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.samples import BenchResult
from benchmarks.side_by_side import table
from benchmarks.statistics import RATIO_RULE, speed_up, summarise

_RATIOS = {  # what is faster, and by how much: (group, file) of the slower and of the faster
    "FP32 ONNX, ours to the defaults'": ("plain/generator-fp32.onnx", "ours/generator-fp32.onnx"),
    "FP32 TFLite, ours to the defaults'": ("plain/generator-fp32.tflite", "ours/generator-fp32.tflite"),
    "ONNX, our INT8 to our FP32": ("ours/generator-fp32.onnx", "ours/generator-int8.onnx"),
    "TFLite, our INT8 to the defaults' FP32": ("plain/generator-fp32.tflite", "ours/generator-int8.tflite"),
    "INT8 ONNX, ours to the defaults'": ("plain/generator-int8.onnx", "ours/generator-int8.onnx"),
    "INT8 TFLite, ours to the defaults'": ("plain/generator-int8.tflite", "ours/generator-int8.tflite"),
}


def speeds(timed: Mapping[str, BenchResult]) -> str:
    """Ratios of medians of each network's files, all timed in turns in one session, and the medians."""
    rows, medians = [], []
    for name, result in timed.items():
        for threads in sorted({series.threads for series in result.series}):
            taken = {f"{s.group}/{s.file}": s.samples_ms for s in result.series if s.threads == threads}
            row = {"network": name, "threads": str(threads)}
            for what, (slow, fast) in _RATIOS.items():
                both = slow in taken and fast in taken
                row[what] = speed_up(taken[slow], taken[fast]).said if both else "failed"
            rows.append(row)
            for file, samples in taken.items():
                found = summarise(samples)
                medians.append(
                    {
                        "network": name,
                        "threads": str(threads),
                        "file": file,
                        "median ms": f"{found.median:.1f}",
                        "rounds": str(len(samples)),
                        "unstable": found.unstable or "",
                    }
                )
    return "\n\n".join([table(rows), RATIO_RULE, table(medians)])


def quality(rows: list[dict[str, Any]]) -> str:
    """PSNR in dB: the mean; of INT8 what was asked of the worst picture, the worst and the mean."""
    lines = [
        "| network | FP32 ONNX / TFLite | FP16 ONNX / TFLite | INT8 asked | INT8 ONNX, plain | INT8 TFLite, "
        "plain | layers kept float | XNNPACK partitions FP32 / FP16 / INT8 | TRANSPOSEs | seconds |",
        "|---" * 10 + "|",
    ]
    for each in rows:
        ours, plain = each["ours"], each["plain"]

        def pair(precision: str, key: str = "psnr_mean", ours: Any = ours) -> str:
            return " / ".join(
                _said(ours[f"generator-{precision}.{kind}"], key) for kind in ("onnx", "tflite")
            )

        tflite = [ours[f"generator-{precision}.tflite"] for precision in ("fp32", "fp16", "int8")]
        cells = [
            each["network"],
            pair("fp32"),
            pair("fp16"),
            f"{each.get('min_psnr', '-')}",
            *(
                f"{_ends(ours[name])}, {_ends(plain[name])}"
                for name in ("generator-int8.onnx", "generator-int8.tflite")
            ),
            pair("int8", "float_layers"),
            " / ".join(_said(file, "partitions") for file in tflite),
            str(max(file.get("transposes", 0) for file in tflite)),
            f"{sum(file['seconds'] for file in ours.values()):.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _ends(file: dict[str, Any]) -> str:
    return f"{_said(file, 'psnr_min')} / {_said(file, 'psnr_mean')}"


def _said(file: dict[str, Any], key: str) -> str:
    if key not in file:
        return "failed"
    return f"{file[key]:.1f}" if isinstance(file[key], float) else str(file[key])
