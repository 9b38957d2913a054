"""What INT8 costs and gains, as a curve: quality of each division that its plan tried, and what it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.report.findings import Row, Timing
from exporters.drop import Point


@dataclass(frozen=True)
class Step:
    """One point of the curve.

    Attributes:
        point: a division of the convolutions and the quality that imitated INT8 reaches with it.
        latency: median ms, measured of the division that the file has and estimated of others, or None.
    """

    point: Point
    latency: float | None


@dataclass(frozen=True)
class Trade:
    """The curve of one INT8 file.

    Attributes:
        steps: from most integers to most floats.
        threads: of the latencies; None without any.
        float_latency: median ms of the same generator's FP32 file; None without timings.
    """

    steps: tuple[Step, ...]
    threads: int | None = None
    float_latency: float | None = None


def trade(row: Row, rows: Sequence[Row]) -> Trade | None:
    """The curve of a file whose plan said what it tried, or None.

    Between the two files that were measured, latency is taken to grow evenly with the multiply-adds in float.

    Args:
        row: the file.
        rows: all of the report.
    """
    points = row.file.trade if row.file else ()
    chosen = next((point for point in points if point.chosen), None)
    if chosen is None:
        return None
    pair = _pair(row, rows)
    if pair is None or chosen.share >= 1:  # all in float: there is no slope
        return Trade(tuple(Step(point, None) for point in points))
    integer, whole = (timing.summary.median for timing in pair)

    def latency(point: Point) -> float:
        return integer + (whole - integer) * (point.share - chosen.share) / (1 - chosen.share)

    return Trade(tuple(Step(point, latency(point)) for point in points), pair[0].series.threads, whole)


def _pair(row: Row, rows: Sequence[Row]) -> tuple[Timing, Timing] | None:
    """Timings of a file and of its FP32 sibling in the same runtime, with as many threads."""
    for other in rows:
        if (other.group, other.runtime, other.precision) == (row.group, row.runtime, "fp32"):
            for timing in row.timings:
                for beside in other.timings:
                    if timing.series.threads == beside.series.threads:
                        return timing, beside
    return None
