"""Original against compressed, in each runtime and precision, from bench.json of latency sessions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.ci.compare import find_sessions
from benchmarks.ci.rows import device_of
from benchmarks.report.findings import BASELINE
from benchmarks.samples import BenchResult, Series
from benchmarks.statistics import STABILITY_RULE, Ratio, speed_up
from benchmarks.tables.model import Column, Row, Table, Value, decimals
from benchmarks.tables.records import speeds


def build(folders: Sequence[Path], record: Path) -> Table:
    """The table of some folders of sessions, or without any, of what our benchmarks recorded.

    Each file of another group stands against the original's of the same runtime, precision and threads in the
    same session, and against the original's FP32 file.

    Raises:
        GateError, PocketganError: a folder holds no session, or a damaged or emulated one.
    """
    rows = [row for folder in folders for result in find_sessions(folder) for row in _rows(folder, result)]
    notes = [
        "ratio: the original's median over the file's, taken in the same rounds, with its 95 % interval; "
        "over FP32: the same to the original's FP32 file",
        STABILITY_RULE,
    ]
    if not folders:
        rows = speeds(record)
        notes = [
            "ratio: the original's FP32 file over this one, in one session of the machine in the record",
            "your own: pocketgan bench RUN/export --output-dir OUT, then pocketgan table latency OUT",
        ]
    if not rows:
        notes.append("nothing was found: name folders of latency sessions, or a record with --record DIR")
    columns = (
        Column("device", "device", str),
        Column("runtime", "runtime", str),
        Column("precision", "precision", str),
        Column("threads", "threads", str),
        Column("original_ms", "original ms", decimals(2)),
        Column("ms", "this ms", decimals(2)),
        Column("ratio", "ratio", decimals(2)),
        Column("low", "low", decimals(2)),
        Column("high", "high", decimals(2)),
        Column("over_fp32", "over FP32", decimals(2)),
    )
    apart = ("runtime", "precision", "threads")
    return Table("Latency, original against compressed", columns, tuple(rows), "ratio", tuple(notes), apart)


def _rows(folder: Path, result: BenchResult) -> Iterator[Row]:
    of = {(s.runtime, s.precision, s.threads): s for s in result.series if s.group == BASELINE}
    for series in result.series:
        if series.group == BASELINE:
            continue
        original = of.get((series.runtime, series.precision, series.threads))
        whole = of.get((series.runtime, "fp32", series.threads))
        figures: dict[str, Value] = {
            "device": device_of(result.document),
            "runtime": series.runtime,
            "precision": series.precision,
            "threads": series.threads,
            "ms": series.summary.median,
        }
        if original is not None:
            ratio = _ratio(original, series)
            figures |= {"original_ms": original.summary.median, "ratio": ratio.value}
            figures |= {"low": ratio.low, "high": ratio.high}
        if whole is not None:
            figures["over_fp32"] = _ratio(whole, series).value
        unstable = series.summary.unstable or (original.summary.unstable if original else None)
        told = [f"unstable: {unstable}"] if unstable else []
        told += [] if original else ["no file of the original like it in this session"]
        ended = str(result.document.get("ended", ""))[:10]
        where = result.path.parent.relative_to(folder) if result.path.parent != folder else Path()
        name = f"{where}/{series.group}" if where.parts else series.group
        yield Row(
            f"{name}/{series.file}", "measured", figures, ", ".join([*told, *([ended] if ended else [])])
        )


def _ratio(before: Series, after: Series) -> Ratio:
    return speed_up(before.samples_ms, after.samples_ms, paired=before.block == after.block)
