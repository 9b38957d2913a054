"""What a latency session hands over: its raw samples and its circumstances, as bench.json."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.statistics import Summary, summarise
from compressor.errors import GateError, PocketganError
from compressor.files import read_json
from compressor.typed import fields_of, typed
from devices.runtimes import Delegation

FORMAT = "pocketgan.bench/1"
EMULATED = f"{FORMAT}+emulated"
"""The format of a session on an emulated processor; whoever reads only FORMAT refuses it."""


@dataclass(frozen=True)
class Series:
    """All that was measured of one file with one number of threads; times in milliseconds.

    Attributes:
        group: "compressed", "original" or a folder's name.
        file: its name in the folder, "generator-fp32.onnx".
        runtime: "onnxruntime" or "litert".
        precision: "fp32", "fp16", "int8", or "unknown" for a foreign file.
        threads: threads of an inference.
        init_ms: loading the file, once.
        first_ms: the first inference.
        warmup_ms: the untimed ones after it.
        samples_ms: the timed inferences, entry i from round i of its block.
        block: sessions of one block ran interleaved; only these compare round by round.
        peak_rss_mb, base_rss_mb: MiB, as `memory` of the document says.
        sha256: of the file.
        delegation: counts of `devices.runtimes.Delegation`, for LiteRT; of Google's tool {"replaced": what
            each delegate took over}.
    """

    group: str
    file: str
    runtime: str
    precision: str
    threads: int
    init_ms: float
    first_ms: float
    warmup_ms: tuple[float, ...]
    samples_ms: tuple[float, ...]
    peak_rss_mb: float | None
    base_rss_mb: float | None = None
    block: int = 0
    sha256: str | None = None
    delegation: dict[str, Any] | None = None

    @cached_property
    def summary(self) -> Summary:
        """Statistics of the timed inferences, computed when they are first asked for."""
        return summarise(self.samples_ms)


@dataclass(frozen=True)
class BenchResult:
    """One session of measurements.

    Attributes:
        path: bench.json.
        document: what it holds besides the series: machine, runtimes, order, rounds, disturbance.
        series: one for each file and number of threads.
    """

    path: Path
    document: dict[str, Any]
    series: tuple[Series, ...]

    def as_json(self) -> dict[str, Any]:
        """The document of bench.json, raw samples included."""
        return {**self.document, "series": [asdict(item) for item in self.series]}


_CIRCUMSTANCES: dict[str, Any] = {  # of a session, those that others read
    "machine": dict[str, Any] | None,
    "device": dict[str, Any] | None,
    "runtimes": dict[str, str],
    "load_before": float | None,
    "load_after": float | None,
    "heat_after": dict[str, Any] | None,
    "heat_by_round": tuple[dict[str, Any], ...] | None,
    "share_below_top_frequency": dict[str, float] | None,
    "parity": tuple[dict[str, Any], ...] | None,
}


def now() -> str:
    """The time as a session records it: UTC, ISO 8601, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def read_bench(path: Path, *, allow_emulated: bool = False) -> BenchResult:
    """Read bench.json (or the folder that holds it).

    Raises:
        GateError: it was measured on an emulated processor, and that is not allowed.
        PocketganError: it is missing, not JSON, of another format, or holds impossible samples.
    """
    path = path / "bench.json" if path.is_dir() else path
    document = read_json(path)
    emulated = isinstance(document, dict) and document.get("format") == EMULATED
    if emulated and not allow_emulated:
        raise GateError(
            f"{path} was measured on an emulated processor, whose times mean nothing",
            got=f"format {EMULATED}",
            allowed=FORMAT,
            fix="measure on a real device; to try things out: --allow-emulated",
        )
    if not isinstance(document, dict) or (document.get("format") != FORMAT and not emulated):
        got = document.get("format") if isinstance(document, dict) else type(document).__name__
        raise PocketganError(f"{path} is of a format this version does not know", got=got, allowed=FORMAT)
    try:
        series = tuple(_series(item) for item in document["series"])
        circumstances = {
            key: value if key not in _CIRCUMSTANCES else typed(_CIRCUMSTANCES[key], value, key)
            for key, value in document.items()
            if key != "series"
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PocketganError(f"{path} is damaged", got=error, fix="measure again: pocketgan bench") from error
    return BenchResult(path, circumstances, series)


def _series(item: dict[str, Any]) -> Series:
    """One entry of "series"; keys that later versions may add are passed over."""
    series = Series(**fields_of(Series, item))
    if series.delegation is not None and "replaced" not in series.delegation:
        fields_of(Delegation, series.delegation)
    _ = series.summary  # refuses impossible samples
    return series
