"""What a latency session hands over: its raw samples and its circumstances, as bench.json."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks.statistics import Summary, summarise
from compressor.errors import GateError, PocketganError
from compressor.files import read_json

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
        delegation: counts of `devices.runtimes.Delegation`, for LiteRT.
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

    @property
    def summary(self) -> Summary:
        """Statistics of the timed inferences, computed now."""
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
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PocketganError(f"{path} is damaged", got=error, fix="measure again: pocketgan bench") from error
    return BenchResult(path, {k: v for k, v in document.items() if k != "series"}, series)


def _series(item: dict[str, Any]) -> Series:
    """One entry of "series"; keys that later versions may add are passed over."""
    known: dict[str, Any] = {key: item[key] for key in Series.__dataclass_fields__ if key in item}
    for key in ("warmup_ms", "samples_ms"):
        known[key] = tuple(float(value) for value in item[key])
    series = Series(**known)
    summarise(series.samples_ms)  # refuses impossible samples
    return series
