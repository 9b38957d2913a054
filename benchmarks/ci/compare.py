"""Two sides of latency sessions, row by row: what got slower, what is missing, and whether CI may pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.ci.gate import GATE_RULE, judge
from benchmarks.ci.rows import Judged, Key, Row, State, is_throttled, key_of, plain, rows_of
from benchmarks.samples import BenchResult, read_bench
from benchmarks.statistics import STABILITY_RULE
from compressor.errors import GateError, PocketganError, UsageError

FORMAT = "pocketgan.compare/1"
_STATES: dict[str, State] = {
    "slower": "failed",
    "missing": "error",
    "unstable": "error",
    "new": "skipped",
    "faster": "passed",
    "same": "passed",
}


@dataclass(frozen=True)
class Allowed:
    """What passes although it is no good result.

    Attributes:
        missing: rows of the baseline that were not measured now.
        unstable: rows without a verdict.
        emulated: timings of an emulated processor.
    """

    missing: bool = False
    unstable: bool = False
    emulated: bool = False


@dataclass(frozen=True)
class Compared:
    """What `compare` found.

    Attributes:
        threshold: as a share.
        baseline, new: the files that were read.
        rows: one for each key of either side.
        notes: circumstances that changed from side to side.
    """

    threshold: float
    baseline: tuple[Path, ...]
    new: tuple[Path, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    def count(self, verdict: str) -> int:
        """Rows of one verdict."""
        return sum(row.judged is not None and row.judged.verdict == verdict for row in self.rows)

    @property
    def problem(self) -> GateError | None:
        """Why CI must not pass, or None."""
        bad = [row for row in self.rows if row.state in ("failed", "error")]
        if not bad:
            return None
        counts = {verdict: self.count(verdict) for verdict in ("slower", "missing", "unstable")}
        told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
        ways = {
            "missing": "where a row may be missing: --allow-missing",
            "unstable": "for rows without a verdict measure more sessions, or --allow-unstable",
        }
        advice = [way for verdict, way in ways.items() if counts[verdict]]
        return GateError(
            f"the new measurements do not pass: {told or f'{len(bad)} failed'}",
            got=f"{bad[0].key.name}: {bad[0].said}",
            allowed=f"less than {self.threshold:.1%} slower, measured and stable",
            fix="; ".join(advice) or None,
        )

    def as_json(self) -> dict[str, Any]:
        """The comparison as one JSON document."""
        verdicts = ("slower", "missing", "unstable", "same", "faster", "new")
        return {
            "format": FORMAT,
            "passed": self.problem is None,
            "threshold": self.threshold,
            "verdicts": {verdict: self.count(verdict) for verdict in verdicts},
            "baseline": [str(path) for path in self.baseline],
            "new": [str(path) for path in self.new],
            "notes": list(self.notes),
            "rules": [GATE_RULE, STABILITY_RULE],
            "rows": [row.as_json() for row in self.rows],
        }


def compare(
    baseline: Path, new: Path, *, threshold: float = 0.05, allowed: Allowed | None = None
) -> Compared:
    """Compare two bench.json files, or two folders that hold one or, for several sessions, many.

    Rows are matched by device (kind of phone, or processor), runtime, precision, model and threads. Sessions
    of one side that measured the same row are taken together.

    Args:
        threshold: the slowdown that must not pass, as a share in (0, 1].

    Raises:
        UsageError: the threshold is out of range.
        GateError: timings of an emulated processor that were not allowed.
        PocketganError: a side holds no measurements, or damaged ones.
    """
    if not 0 < threshold <= 1:
        raise UsageError("the threshold is a slowdown", got=f"{threshold:.1%}", allowed="above 0 % to 100 %")
    allowed = allowed or Allowed()
    sides = [find_sessions(path, allow_emulated=allowed.emulated) for path in (baseline, new)]
    before, after = (_by_key(results) for results in sides)
    rows = [
        _row(key, before.get(key, []), after.get(key, []), threshold, allowed)
        for key in sorted({*before, *after})
    ]
    paths = [tuple(result.path for result in results) for results in sides]
    return Compared(threshold, paths[0], paths[1], tuple(rows), tuple(_changed(*sides)))


def find_sessions(path: Path, *, allow_emulated: bool = False) -> list[BenchResult]:
    """A bench.json, the one in a folder, or all of them below it.

    Raises:
        GateError, PocketganError: see `read_bench`; or there is none.
    """
    if not path.exists():
        raise PocketganError(
            f"there is no {path}",
            allowed="a bench.json, or a folder with one or several below it",
            fix=f"measure: pocketgan bench EXPORT_DIR --output-dir {path}",
        )
    if path.is_dir() and not (path / "bench.json").exists():
        found = sorted(path.rglob("bench.json"))
        if not found:
            raise PocketganError(
                f"{path} holds no measurements",
                allowed="a bench.json, or a folder with one or several below it",
                fix=f"measure: pocketgan bench EXPORT_DIR --output-dir {path}",
            )
        return [read_bench(file, allow_emulated=allow_emulated) for file in found]
    return [read_bench(path, allow_emulated=allow_emulated)]


_Session = tuple[Row, tuple[float, ...]]


def _by_key(results: Sequence[BenchResult]) -> dict[Key, list[_Session]]:
    """Every session of a row: the row by itself, and its samples."""
    found: dict[Key, list[_Session]] = {}
    for result in results:
        for row, series in zip(rows_of(result), result.series, strict=True):
            found.setdefault(key_of(result, series), []).append((row, series.samples_ms))
    return found


def _row(key: Key, before: list[_Session], after: list[_Session], threshold: float, allowed: Allowed) -> Row:
    if not after:
        state: State = "skipped" if allowed.missing else "error"
        return Row(
            key, None, state, "missing: not measured now", judged=Judged("missing", "not measured now")
        )
    last = next((row for row, _ in reversed(after) if row.state == "passed"), after[-1][0])
    differing = next((row for row, _ in after if row.state == "failed"), None)
    if not before:
        judged = Judged("new", "it has no baseline", sessions=(0, len(after)))
    else:
        judged = judge([s for _, s in before], [s for _, s in after], threshold=threshold)
    state = _STATES[judged.verdict]
    if judged.verdict == "unstable" and allowed.unstable:
        state = "skipped"
    said = f"{judged.verdict}: {judged.reason}" if state != "passed" and judged.reason else ""
    if differing is not None:
        state, said = "failed", differing.said
    return Row(key, last.summary, state, said, last.facts, judged)


def _changed(before: Sequence[BenchResult], after: Sequence[BenchResult]) -> list[str]:
    """What differs between the sides beside the files; a verdict stands all the same."""
    notes = []
    for what, look in (
        ("runtimes", lambda d: sorted((d.get("runtimes") or {}).items())),
        ("phone", lambda d: (d.get("device") or {}).get("serial")),
        ("system build", lambda d: (d.get("device") or {}).get("fingerprint")),
        ("frequency governor", lambda d: (d.get("machine") or {}).get("governor")),
        ("cores kept to", lambda d: d.get("affinity")),
        ("throttled by heat", lambda d: "yes" if is_throttled(d) else "no"),
    ):
        had, has = ({str(look(result.document)) for result in side} for side in (before, after))
        if had != has:
            notes.append(plain(f"{what}: {', '.join(sorted(had))} before, {', '.join(sorted(has))} now"))
    return notes
