"""What the figures of a run say: ratios with their intervals, checks, and the verdict in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from benchmarks.exported import precision_of
from benchmarks.report import words
from benchmarks.report.run_folder import RunFolder
from benchmarks.samples import Series
from benchmarks.statistics import Ratio, Summary, speed_up
from exporters.result import GIVEN, PRECISIONS, ExportedFile

BASELINE = "original"


@dataclass(frozen=True)
class Timing:
    """One series with what it is compared to.

    Attributes:
        speed_up: against the original's FP32 file in the same runtime with as many threads.
        over_fp32: against the same generator's FP32 file, likewise.
        unstable: why a verdict is refused: this series' reason, or that of what it is compared to.
    """

    series: Series
    summary: Summary
    speed_up: Ratio | None
    over_fp32: Ratio | None
    unstable: str | None


@dataclass(frozen=True)
class Row:
    """One exported file, and all that is known of it.

    Attributes:
        size_ratio: the original's FP32 file of the same format over this one, in bytes.
        file: of export.json; None for a file that was only timed.
        timings: by number of threads.
    """

    group: str
    name: str
    runtime: str
    precision: str
    file: ExportedFile | None
    size_ratio: float | None
    timings: tuple[Timing, ...]

    @property
    def usable(self) -> bool:
        """The file is there and did not fail its parity check."""
        return self.file is None or self.file.passed

    @property
    def left_out(self) -> Mapping[str, int]:
        """Operators that XNNPACK leaves to LiteRT's own kernels, by name, as the latency session saw them."""
        delegation = self.timings[0].series.delegation if self.timings else None
        return (delegation or {}).get("kept") or {}


@dataclass(frozen=True)
class Check:
    """One line of the verdict.

    Attributes:
        passed: None where nothing can be said.
        serious: whether a failure is the product's, not only the measurement's.
    """

    name: str
    passed: bool | None
    text: str
    serious: bool = True


@dataclass(frozen=True)
class Remark:
    """What a file of lower precision gains over the same generator's FP32 file.

    Attributes:
        verdict: "faster", "slower" or "same" where all stable series agree, "mixed" where they do not,
            "open" where none is stable.
        details: the ratios with their intervals, in words.
    """

    row: Row
    verdict: str
    details: str


@dataclass(frozen=True)
class Findings:
    """What a report says at a glance.

    Attributes:
        subject: the group that is judged ("compressed"), or None without exports and timings.
        rows: the subject's files first, then the others'.
        fastest: the usable file and timing of greatest speed-up over the original.
        alike: the FP32 file of greatest speed-up, which is the compression's own share.
        smallest: the usable file of greatest size ratio.
        psnr_median, ssim_mean: over the held-out pictures.
    """

    subject: str | None
    rows: tuple[Row, ...]
    fastest: tuple[Row, Timing] | None
    alike: tuple[Row, Timing] | None
    smallest: Row | None
    psnr_median: float | None
    ssim_mean: float | None
    checks: tuple[Check, ...]


def find(run: RunFolder) -> Findings:
    """Compute every figure of the report from what the run folder holds."""
    rows = _rows(run)
    groups = list(dict.fromkeys(row.group for row in rows))
    others = [group for group in groups if group != BASELINE]
    subject = "compressed" if "compressed" in groups else next(iter(others or groups), None)
    rank = {group: number for number, group in enumerate(groups)}
    rows = sorted(rows, key=lambda row: (row.group != subject, rank[row.group]))
    own = [row for row in rows if row.group == subject and row.usable]
    timed = [(row, t) for row in own for t in row.timings if t.speed_up is not None]
    sized = [row for row in own if row.size_ratio is not None]
    images = run.evaluation.images if run.evaluation else ()
    return Findings(
        subject=subject,
        rows=tuple(rows),
        fastest=max(timed, key=_gain, default=None),
        alike=max((pair for pair in timed if pair[0].precision == "fp32"), key=_gain, default=None),
        smallest=max(sized, key=lambda row: row.size_ratio or 0, default=None),
        psnr_median=median(image.psnr for image in images) if images else None,
        ssim_mean=fmean(image.ssim for image in images) if images else None,
        checks=tuple(_checks(run, rows)),
    )


def _gain(pair: tuple[Row, Timing]) -> tuple[bool, float]:
    """Stable series first: an unstable one never outshines them."""
    timing = pair[1]
    return timing.unstable is None, timing.speed_up.value if timing.speed_up else 0.0


def _rows(run: RunFolder) -> list[Row]:
    series = run.bench.series if run.bench else ()
    timed, plain = _timed(run), _gathered(series, lambda s: (s.group, s.runtime, s.threads, s.precision))
    names: dict[str, list[str]] = {}
    for group, name in timed:
        names.setdefault(group, []).append(name)
    baseline = {f.runtime: f.bytes for f in _files(run, BASELINE) if f.precision == "fp32" and f.bytes}
    rows: list[Row] = []
    for group in sorted({*run.exports, *names}):
        described = {file.file: file for file in _files(run, group)}
        for name in sorted({*described, *names.get(group, ())}, key=_order):
            file, every = described.get(name), timed.get((group, name), [])
            example = every[-1] if every else None
            runtime = file.runtime if file else example.runtime if example else ""
            own = [s for s in every if not _stale(s, file)]
            rows.append(
                Row(
                    group=group,
                    name=name,
                    runtime=runtime,
                    precision=file.precision if file else example.precision if example else "",
                    file=file,
                    size_ratio=baseline[runtime] / file.bytes
                    if file and file.bytes and runtime in baseline
                    else None,
                    timings=tuple(_timing(s, plain) for s in sorted(own, key=lambda s: s.threads)),
                )
            )
    return rows


def _files(run: RunFolder, group: str) -> Iterable[ExportedFile]:
    return run.exports[group].files if group in run.exports else ()


def _order(name: str) -> tuple[bool, int, str]:
    precision = precision_of(name)
    place = len(PRECISIONS) if precision is None else PRECISIONS.index(precision)
    return name.endswith(".tflite"), place, name


def _stale(series: Series, file: ExportedFile | None) -> bool:
    """The timings are of another file than the one that is there now."""
    return bool(file and file.sha256 and series.sha256 and file.sha256 != series.sha256)


def _gathered(series: Iterable[Series], by: Callable[[Series], Any]) -> dict[Any, list[Series]]:
    found: dict[Any, list[Series]] = {}
    for each in series:
        found.setdefault(by(each), []).append(each)
    return found


def _timed(run: RunFolder) -> dict[tuple[str, str], list[Series]]:
    """The series of each (group, file)."""
    return _gathered(run.bench.series if run.bench else (), lambda s: (s.group, s.file))


def _timing(series: Series, everything: Mapping[Any, Sequence[Series]]) -> Timing:
    """`everything`: by group, runtime, threads and precision."""

    def partner(group: str) -> Series | None:
        for other in everything.get((group, series.runtime, series.threads, "fp32"), ()):
            if (group, other.file) != (series.group, series.file):
                return other
        return None

    def ratio(other: Series | None) -> Ratio | None:
        if other is None:
            return None
        return speed_up(other.samples_ms, series.samples_ms, paired=other.block == series.block)

    original = partner(BASELINE) if series.group != BASELINE else None
    own = partner(series.group)
    summary = series.summary
    reason = summary.unstable
    for name, other in (("original", original), ("FP32 file", own)):
        if reason is None and other is not None and (theirs := other.summary.unstable):
            reason = f"the {name}'s {theirs}"
    return Timing(series, summary, ratio(original), ratio(own), reason)


def busy(run: RunFolder) -> str | None:
    """What else the machine did when the latency session began, if that was enough to matter."""
    document = run.bench.document if run.bench else {}
    load, cores = document.get("load_before"), (document.get("machine") or {}).get("usable_cores")
    if not isinstance(load, int | float) or not isinstance(cores, int) or load < 0.5 * cores:
        return None
    return f"The machine was busy before the session began: load {load:.1f} on {cores} usable cores."


def _checks(run: RunFolder, rows: list[Row]) -> Iterable[Check]:
    yield _budget_check(run)
    if run.only_search:
        return
    files = [row.file for row in rows if row.file and row.file.kind != GIVEN]
    if files:
        good = sum(file.passed for file in files)
        yield Check("Parity", good == len(files), f"{good} of {len(files)} files agree with PyTorch")
    else:
        yield Check("Parity", None, "nothing was exported")
    timings = [timing for row in rows for timing in row.timings]
    if timings:
        shaky = sum(timing.summary.unstable is not None for timing in timings)
        yield Check(
            "Stability",
            shaky == 0,
            f"{len(timings) - shaky} of {len(timings)} latency series are stable",
            serious=False,
        )
    else:
        yield Check("Stability", None, "nothing was measured")
    timed = _timed(run)
    stale = {
        row.name for row in rows if any(_stale(s, row.file) for s in timed.get((row.group, row.name), ()))
    }
    if stale:
        yield Check(
            "Currency", False, f"timed before their last export: {', '.join(sorted(stale))}; measure again"
        )


def _budget_check(run: RunFolder) -> Check:
    whole = run.whole
    if run.pareto:
        met = sum(found.share <= 1 for found in run.pareto.found)
        return Check(
            "Budget", met == len(run.pareto.found), f"{met} of {len(run.pareto.found)} networks keep to it"
        )
    if whole is None:
        return Check("Budget", None, "pruning has not run")
    if whole.share is None:
        used = words.percent(whole.reached[whole.metric] / whole.target)
        return Check("Budget", whole.within, f"asked {whole.asked}, {used} of it is used")
    reached = f"{words.percent(whole.share)} of the original's {words.METRICS[whole.metric]}"
    return Check("Budget", whole.within, f"asked {whole.asked}, reached {reached}")


def precision_remarks(findings: Findings) -> list[Remark]:
    """Plain words on what each lower precision gains here over FP32, for the judged generator."""
    remarks = []
    for row in findings.rows:
        if row.group != findings.subject or row.precision == "fp32":
            continue
        told = [(t, t.over_fp32) for t in row.timings if t.over_fp32 is not None]
        if not told:
            continue
        verdicts = {ratio.verdict for timing, ratio in told if timing.unstable is None} or {"open"}
        details = [
            f"{words.times(ratio.value)} {words.interval(ratio)} with {words.threads(timing.series.threads)}"
            + (", unstable" if timing.unstable else "")
            for timing, ratio in told
        ]
        remarks.append(Remark(row, verdicts.pop() if len(verdicts) == 1 else "mixed", "; ".join(details)))
    return remarks
