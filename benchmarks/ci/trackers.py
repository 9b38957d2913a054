"""Rows for services that keep a history: github-action-benchmark and Bencher.

Neither format can say that a measurement is missing; the exit code of `pocketgan compare` and JUnit do.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from benchmarks.ci.rows import Row, plain, unique


def github_benchmark(rows: Sequence[Row]) -> str:
    """For github-action-benchmark's "customSmallerIsBetter": medians in ms, half the middle half as range."""
    return _json(
        [
            {
                "name": row.key.name,
                "unit": "ms",
                "value": row.summary.median,
                "range": f"± {row.summary.iqr / 2:.4g}",
                "extra": _extra(row),
            }
            for row in unique(rows)
            if row.summary is not None
        ]
    )


def bencher(rows: Sequence[Row]) -> str:
    """Bencher Metric Format: the measure `latency` in nanoseconds, with the median's 95 % interval."""
    return _json(
        {
            row.key.name: {
                "latency": {
                    "value": row.summary.median * 1e6,
                    "lower_value": row.summary.low * 1e6,
                    "upper_value": row.summary.high * 1e6,
                }
            }
            for row in unique(rows)
            if row.summary is not None
        }
    )


def _extra(row: Row) -> str:
    """The tooltip of a point: what was measured, line by line."""
    summary = row.summary
    assert summary is not None
    lines = [f"{summary.count} samples, p90 {summary.p90:.4g} ms, p99 {summary.p99:.4g} ms"]
    lines += [f"{name}: {plain(str(value))}" for name, value in row.facts.items()]
    lines += [f"{row.state}: {plain(row.said)}"] if row.said else []
    return "\n".join(lines)


def _json(document: object) -> str:
    return json.dumps(document, indent=2, allow_nan=False) + "\n"
