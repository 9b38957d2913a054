"""What a CI format shows of a measurement: one row for each device, runtime, precision, model and threads."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from benchmarks.samples import EMULATED, BenchResult, Series
from benchmarks.statistics import Summary
from compressor.errors import PocketganError

State = Literal["passed", "failed", "error", "skipped"]
"""As JUnit has it: `failed` is a fault of what was measured, `error` one of the measuring, and `skipped`
a measurement without a verdict."""
_LONGEST = 400  # characters of a name; Bencher takes 1024 and a table stays readable


@dataclass(frozen=True, order=True)
class Key:
    """What makes two measurements comparable.

    Attributes:
        device: the phone's maker, model and chip, or the machine's processor and cores.
        model: group and file, "compressed/generator-int8.tflite".
    """

    device: str
    runtime: str
    precision: str
    model: str
    threads: int

    @property
    def name(self) -> str:
        """All of it in one line that any format may hold; differs wherever the key does."""
        threads = f"{self.threads} thread{'' if self.threads == 1 else 's'}"
        return plain(f"{self.model} [{self.runtime} {self.precision}, {threads}] on {self.device}")


@dataclass(frozen=True)
class Judged:
    """How a row compares with its baseline; see `benchmarks.ci.gate`.

    Attributes:
        verdict: "faster", "slower", "same", "unstable", "missing" (was not measured now) or "new"
            (has no baseline).
        reason: in words, for every verdict but "same".
        change: new over baseline minus 1, of lower quartiles; above 0 is slower. None without a figure.
        low, high: its 98 % interval.
        p: of the one-sided rank test in the direction of the change.
        baseline_ms, new_ms: medians; of several sessions, the geometric mean of theirs.
        sessions: (baseline, new) that entered the verdict.
    """

    verdict: str
    reason: str | None = None
    change: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    baseline_ms: float | None = None
    new_ms: float | None = None
    sessions: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Row:
    """One line of a table, one test case of JUnit.

    Attributes:
        summary: of the new samples, of several sessions the last stable one's; None when there are none.
        state, said: what CI shall make of it, and why; as raw as names are, so formats write it `plain`.
        facts: other figures, by a name with its unit.
        judged: against a baseline; None without one.
    """

    key: Key
    summary: Summary | None
    state: State
    said: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    judged: Judged | None = None

    def as_json(self) -> dict[str, Any]:
        """The row as one JSON object."""
        return {
            **asdict(self.key),
            "state": self.state,
            "said": self.said,
            "summary": None if self.summary is None else self.summary.as_json(),
            "facts": dict(self.facts),
            "comparison": None if self.judged is None else asdict(self.judged),
        }


def rows_of(result: BenchResult) -> list[Row]:
    """The rows of one session, judged by itself alone: parity on the phone, and stability."""
    parity = {(item["group"], item["file"]): item for item in result.document.get("parity", ())}
    return [_row(result, series, parity.get((series.group, series.file))) for series in result.series]


def row_of_error(name: str, error: PocketganError) -> Row:
    """The row of a session that ended before it measured anything, so that CI shows why."""
    return Row(Key("unknown device", "-", "-", name, 0), None, "error", " ".join(str(error).split()))


def key_of(result: BenchResult, series: Series) -> Key:
    """The key of one series."""
    return Key(
        device_of(result.document),
        series.runtime,
        series.precision,
        f"{series.group}/{series.file}",
        series.threads,
    )


def device_of(document: Mapping[str, Any]) -> str:
    """A phone or machine by its kind; two phones of one kind are the same device here."""
    machine = document.get("machine") or {}
    if device := document.get("device"):
        name = f"{device.get('maker', '')} {device.get('model', '')} ({device.get('chip', '')})".strip()
    else:
        name = f"{machine.get('cpu', 'unknown')} ({machine.get('logical_cores') or '?'} cores)"
    return f"{name}, EMULATED" if is_emulated(document) else name


def is_emulated(document: Mapping[str, Any]) -> bool:
    """Whether no real processor of that kind ran it."""
    return bool(document.get("emulated")) or document.get("format") == EMULATED


def is_throttled(document: Mapping[str, Any]) -> bool:
    """Whether the phone said at any time of the session that heat holds it back."""
    heats = [document.get("heat_after") or {}, *(document.get("heat_by_round") or ())]
    return any(heat.get("status") for heat in heats)


def plain(text: str) -> str:
    """Text on one line that every format may hold.

    Whatever is no visible character (control, direction marks, halves of surrogate pairs, private use) is
    written as Python would, backslashes doubled so that two names never become one. Longer text
    than 400 characters is cut, with a hash of the whole.
    """
    shown = "".join(
        "\\\\" if c == "\\" else c if c.isprintable() else c.encode("unicode_escape").decode() for c in text
    )
    if len(shown) <= _LONGEST:
        return shown
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{shown[: _LONGEST - 14]}… {digest}"


def _row(result: BenchResult, series: Series, parity: Mapping[str, Any] | None) -> Row:
    summary = series.summary
    state: State = "passed"
    said = ""
    if parity is not None and not parity["passed"]:
        state, said = "failed", f"the picture on the device differs: {_decibel(parity)}"
    elif is_emulated(result.document):
        state, said = "skipped", "emulated: the times mean nothing"
    elif summary.unstable is not None:
        state, said = "skipped", f"unstable: {summary.unstable}"
    return Row(key_of(result, series), summary, state, said, _facts(result, series, parity))


def _decibel(parity: Mapping[str, Any]) -> str:
    return f"{parity['psnr']:.1f} dB" if parity.get("psnr") is not None else "it is not a picture"


def _facts(result: BenchResult, series: Series, parity: Mapping[str, Any] | None) -> dict[str, Any]:
    runtimes = result.document.get("runtimes") or {}
    facts = {
        "init_ms": series.init_ms,
        "first_ms": series.first_ms,
        "peak_rss_mib": series.peak_rss_mb,
        "model_sha256": series.sha256,
        "runtime_version": runtimes.get(series.runtime),
        "serial": (result.document.get("device") or {}).get("serial"),
        "parity_max_abs": None if parity is None else parity.get("max_abs"),
        "emulated": True if is_emulated(result.document) else None,
    }
    return {name: value for name, value in facts.items() if value is not None}


def unique(rows: Sequence[Row]) -> list[Row]:
    """The first row of each key; trackers take a name only once."""
    return list({row.key: row for row in reversed(rows)}.values())[::-1]
