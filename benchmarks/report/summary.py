"""A run in a few lines for the terminal, and as one JSON document for scripts and CI."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.report import words
from benchmarks.report.findings import Row, Timing, busy, find, precision_remarks
from benchmarks.report.run_folder import read_run

FORMAT = "pocketgan.summary/1"


def summary_json(run: Path) -> dict[str, Any]:
    """Every verdict and figure of the report without the raw samples.

    Infinite PSNR (identical pictures) is null. A stage that did not run is named in "missing", and its
    part is null or empty: a missing measurement is never a pass.

    Raises:
        PocketganError: the folder is missing or holds nothing of ours.
    """
    folder = read_run(run)
    findings = find(folder)
    whole = folder.whole
    return {
        "format": FORMAT,
        "run": str(run),
        "generator": folder.name,
        "missing": folder.missing,
        "problems": dict(folder.problems),
        "checks": [asdict(check) for check in findings.checks],
        "budget": {
            "asked": whole.asked,
            "metric": whole.metric,
            "target": whole.target,
            "original": dict(whole.original) if whole.original else None,
            "reached": dict(whole.reached),
            "share": whole.share,
        }
        if whole
        else None,
        "quality": {
            "reference": folder.evaluation.reference,
            "images": len(folder.evaluation.images),
            "psnr_median": _finite(findings.psnr_median),
            "ssim_mean": findings.ssim_mean,
        }
        if folder.evaluation
        else None,
        "fastest": _pair(findings.fastest),
        "fastest_fp32": _pair(findings.alike),
        "smallest": {
            "file": findings.smallest.name,
            "size_ratio": findings.smallest.size_ratio,
        }
        if findings.smallest
        else None,
        "files": [_row(row) for row in findings.rows],
    }


def summary(run: Path) -> str:
    """The verdict, the checks and one line for each file and number of threads.

    Raises:
        PocketganError: the folder is missing or holds nothing of ours.
    """
    folder = read_run(run)
    findings = find(folder)
    signs = {True: "ok  ", False: "FAIL", None: "-   "}
    lines = [folder.name, ""]
    for check in findings.checks:
        sign = signs[check.passed] if check.serious or check.passed else "note"
        lines.append(f"  {sign}  {check.name}: {check.text}")
    if note := busy(folder):
        lines.append(f"  note  {note}")
    if findings.psnr_median is not None:
        count = len(folder.evaluation.images) if folder.evaluation else 0
        lines.append(f"        Quality: median {words.decibel(findings.psnr_median)} on {count} pictures")
    if findings.rows:
        rows = [line for row in findings.rows for line in _lines(row)]
        lines += ["", *_table(("file", "size", "smaller", "parity", "latency", "speed-up", "95 %", ""), rows)]
    if remarks := [r for r in precision_remarks(findings) if r.verdict != "faster"]:
        lines.append("")
        said = {
            "same": "no speed-up over FP32",
            "slower": "slower than FP32",
            "mixed": "not always faster than FP32",
            "open": "no verdict against FP32 (unstable)",
        }
        lines += [f"  {r.row.name}: {said[r.verdict]} on this machine: {r.details}" for r in remarks]
    lines += [""] * bool(folder.missing or folder.problems)
    lines += [f"  {stage}: not run" for stage in folder.missing if stage not in folder.problems]
    lines += [f"  {stage}: {why}" for stage, why in folder.problems.items()]
    return "\n".join(lines)


def _lines(row: Row) -> list[tuple[str, ...]]:
    file = row.file
    parity = "-"
    if file and file.error:
        parity = "not made"
    elif file and file.parity:
        parity = words.decibel(file.parity.psnr_min) + ("" if file.parity.passed else " FAILED")
    head = (
        f"{row.group}/{row.name}",
        words.size(file.bytes) if file and file.bytes else "-",
        words.times(row.size_ratio) if row.size_ratio else "-",
        parity,
    )
    lines: list[tuple[str, ...]] = []
    for timing in row.timings:
        gain = timing.speed_up
        lines.append(
            (
                *head,
                f"{words.milliseconds(timing.summary.median)} ({words.threads(timing.series.threads)})",
                words.times(gain.value) if gain else "-",
                words.interval(gain) if gain else "-",
                "unstable" if timing.unstable else "",
            )
        )
        head = ("", "", "", "")
    return lines or [(*head, "-", "-", "-", "")]


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    """The first column and the last to the left, the others to the right."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    last = len(head) - 1
    return [
        "  "
        + "  ".join(
            cell.ljust(width) if column in (0, last) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (head, *rows)
    ]


def _pair(pair: tuple[Row, Timing] | None) -> dict[str, Any] | None:
    if pair is None:
        return None
    return {"file": pair[0].name, **_timing(pair[1])}


def _row(row: Row) -> dict[str, Any]:
    file = row.file
    return {
        "group": row.group,
        "file": row.name,
        "runtime": row.runtime,
        "precision": row.precision,
        "bytes": file.bytes if file else None,
        "size_ratio": row.size_ratio,
        "error": file.error if file else None,
        "parity": {
            "psnr_min": _finite(file.parity.psnr_min),
            "max_abs": _finite(file.parity.max_abs),
            "worst": file.parity.worst,
            "threshold_psnr": file.parity.threshold_psnr,
            "passed": file.parity.passed,
        }
        if file and file.parity
        else None,
        "delegation": asdict(file.delegation) if file and file.delegation else None,
        "latency": [_timing(timing) for timing in row.timings],
    }


def _timing(timing: Timing) -> dict[str, Any]:
    series = timing.series
    return {
        "threads": series.threads,
        "init_ms": series.init_ms,
        "first_ms": series.first_ms,
        **{f"{k}_ms": getattr(timing.summary, k) for k in ("median", "p90", "p99", "iqr")},
        "cv": timing.summary.cv,
        "samples": timing.summary.count,
        "peak_rss_mb": series.peak_rss_mb,
        "speed_up": timing.speed_up.as_json() if timing.speed_up else None,
        "over_fp32": timing.over_fp32.as_json() if timing.over_fp32 else None,
        "unstable": timing.unstable,
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
