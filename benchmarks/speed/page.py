"""The page of speeds, written from the record alone: every figure is computed from its samples here."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.report import words
from benchmarks.side_by_side import table, timed_cells
from benchmarks.statistics import RATIO_RULE, Ratio, speed_up

_RUNTIMES = {"onnxruntime": "ONNX Runtime", "litert": "LiteRT"}
_ENDS = {"onnxruntime": "onnx", "litert": "tflite"}


def page(record: Mapping[str, Any]) -> str:
    """The record as Markdown."""
    machine = record["machine"]
    parts = [
        "# How fast\n",
        f"    {shlex.join(record['command'])}\n",
        f"{record['date']}, {machine['usable_cores']} cores of {machine['cpu']}, "
        f"{words.threads(record['threads'])}; load {record['load_average'][0]:.2f} at the beginning. "
        f"{RATIO_RULE}\n",
        _compressed(record["networks"]),
        _files(record["networks"]),
        _openvino(record["networks"]),
        _limits(record["networks"]),
        _training(record["training"]),
        _house(record),
    ]
    return "\n".join(part for part in parts if part).rstrip() + "\n"


def _ratio(before: Sequence[float] | None, after: Sequence[float] | None) -> Ratio | None:
    return speed_up(before, after) if before and after else None


def _said(ratio: Ratio | None) -> str:
    return "–" if ratio is None else ratio.said


def _ms(samples: Sequence[float] | None) -> str:
    return f"{median(samples):.1f} ms" if samples else "–"


def _samples(told: Mapping[str, Any], group: str, precision: str, runtime: str) -> Sequence[float] | None:
    found = told["series"].get(f"{group}/generator-{precision}.{_ENDS[runtime]}")
    return found["ms"] if found else None


def _compressed(networks: Mapping[str, Any]) -> str:
    rows, made = [], []
    for name, told in networks.items():
        made.append(f"{name}: {told['compressed']['made']}")
        for runtime, shown in _RUNTIMES.items():
            original = _samples(told, "plain", "fp32", runtime)
            whole, int8 = (_samples(told, "compressed", kind, runtime) for kind in ("fp32", "int8"))
            kept = told["compressed"]["float_layers"].get(f"generator-int8.{_ENDS[runtime]}")
            rows.append(
                {
                    "network": f"{name}, {told['size'][0]}x{told['size'][1]}",
                    "runtime": shown,
                    "original FP32": _ms(original),
                    "compressed FP32": _ms(whole),
                    "compressed INT8": _ms(int8),
                    "FP32 to the original": _said(_ratio(original, whole)),
                    "INT8 to the original": _said(_ratio(original, int8)),
                    "layers in float": "–" if kept is None else str(kept),
                }
            )
    if not rows:
        return ""
    return (
        "## Compressed against the original\n\nRatios above 1 are faster; the original is what "
        f"`torch.onnx.export` and `litert_torch` write with their defaults. {'; '.join(made)}.\n\n"
        f"{table(rows)}\n"
    )


def _files(networks: Mapping[str, Any]) -> str:
    rows, slower = [], []
    for name, told in networks.items():
        for runtime, shown in _RUNTIMES.items():

            def of(group: str, precision: str, told: Any = told, runtime: str = runtime) -> Any:
                return _samples(told, group, precision, runtime)

            original, ours, int8 = of("plain", "fp32"), of("ours", "fp32"), of("ours", "int8")
            whole = _ratio(original, ours)
            if whole is not None and whole.verdict == "slower":
                slower.append(f"{name} in {shown}")
            rows.append(
                {
                    "network": f"{name}, {told['size'][0]}x{told['size'][1]}",
                    "runtime": shown,
                    "original FP32": _ms(original),
                    "our FP32 to it": _said(whole),
                    "our INT8 to it": _said(_ratio(original, int8)),
                    "our INT8 to our FP32": _said(_ratio(ours, int8)),
                    "our INT8 to the tools' INT8": _said(_ratio(of("plain", "int8"), int8)),
                }
            )
    if not rows:
        return ""
    verdict = f"Our FP32 file is slower than the plain path's: {', '.join(slower)}." if slower else (
        "No FP32 file of ours is slower than the plain path's."
    )  # fmt: skip
    return (
        "## Files\n\nRatios above 1 are faster. The original is what `torch.onnx.export` and `litert_torch` "
        "write with their defaults; the tools' INT8 is theirs too. All files of a network take turns in one "
        f"session (`benchmarks.latency`). {verdict}\n\n{table(rows)}\n"
    )


def _openvino(networks: Mapping[str, Any]) -> str:
    rows = []
    for name, told in networks.items():
        for file, each in (told["openvino"] or {}).items():
            here, there = (each[runtime].get("ms") for runtime in ("onnxruntime", "openvino"))
            said = {"network": name, "file": file, "ONNX Runtime": _ms(here), "OpenVINO": _ms(there)}
            rows.append({**said, "OpenVINO to ONNX Runtime": _said(_ratio(here, there))})
    if not rows:
        return ""
    return f"## OpenVINO\n\nThe same ONNX files, in turns (`benchmarks.in_openvino`).\n\n{table(rows)}\n"


def _limits(networks: Mapping[str, Any]) -> str:
    """GFLOP/s, one multiply-add counted as two operations, beside the machine's own."""
    rows, details = [], []
    for name, told in networks.items():
        peak = max(told["peak"])

        def rate(macs: float, milliseconds: float, peak: float = peak) -> str:
            reached = 2 * macs / milliseconds / 1e6
            return f"{reached:.1f} ({reached / peak:.0%})"

        cells = {"network": name, "MACs": f"{told['macs'] / 1e9:.2f} G", "peak, GFLOP/s": f"{peak:.1f}"}
        for runtime, shown in _RUNTIMES.items():
            for precision in ("fp32", "int8"):
                samples = _samples(told, "ours", precision, runtime)
                cells[f"{shown} {precision}"] = rate(told["macs"], median(samples)) if samples else "–"
        rows.append(cells)
        alike: dict[str, list[dict[str, Any]]] = {}
        for layer in told["layers"]:
            alike.setdefault(layer["layer"], []).append(layer)
        lines = [
            {
                "layer": f"`{key}`",
                "how often": str(len(own)),
                "MACs of each": f"{own[0]['macs'] / 1e6:.1f} M",
                "GFLOP/s": rate(own[0]["macs"], own[0]["nanoseconds"] / 1e6),
                "ms of all": f"{sum(layer['nanoseconds'] for layer in own) / 1e6:.2f}",
            }
            for key, own in alike.items()
        ]
        details.append(f"### {name}: layers\n\n{table(lines)}\n")
    if not rows:
        return ""
    return (
        "## Distance to the limit\n\nGFLOP/s, and the share of the peak: the fastest product of two float32 "
        "matrices in the same session with as many threads. INT8 may pass it. Layers are exported and timed "
        "alone in ONNX Runtime, FP32 (`benchmarks.layer_times`).\n\n"
        f"{table(rows)}\n\n" + "\n".join(details)
    )


def _training(told: Mapping[str, Any]) -> str:
    parts = []
    for title, base, document in (
        ("Steps of CoroNet's search beside plain training", "plain", told.get("search_cost")),
        ("Steps of AGD's search", "sampled", told.get("agd_search_cost")),
    ):
        if document:
            lines = [timed_cells(name, row, base) for name, row in document["rows"].items()]
            parts.append(f"## {title}\n\n    {shlex.join(document['command'])}\n\n{table(lines)}\n")
    return "\n".join(parts)


def _house(record: Mapping[str, Any]) -> str:
    plain, ours = record["startup"].values()
    took = speed_up(ours, plain)
    rows = [
        {
            "report": name,
            "seconds": f"{told['seconds']:.1f}",
            "of processor": f"{told['processor_seconds']:.1f}",
            "page": f"{told['page_mb']:.1f} MB",
            "peak memory": f"{told['peak_mb']:.0f} MiB",
        }
        for name, told in record["reports"].items()
    ]
    return (
        f"## The command line and its reports\n\n`pocketgan --help` takes {_ms(ours)} as a whole process, "
        f"`python -c pass` {_ms(plain)}: {_said(took)}.\n\n{table(rows)}\n"
    )
