"""What Google's benchmark_model prints, in both of its dialects.

The classic one (TensorFlow Lite) tells figures in microseconds and how many nodes a delegate took:
fewer than all means that the rest ran on the processor, which must never pass as an accelerator's
latency. The newer one (LiteRT) prints milliseconds with a number of runs. A line may carry a prefix
such as `INFO: ` or a logger's; figures may read 1.24e+06. Nothing is guessed: what is not there is
None, and without an average there is no result.

https://ai.google.dev/edge/litert/models/measurement
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass
from typing import Any

from compressor.errors import GateError
from devices.transport import DeviceError

_NUMBER = r"([-+]?(?:\d{1,18}(?:\.\d{0,18})?|\.\d{1,18})(?:[eE][-+]?\d{1,3})?)"
_SECONDS = {"us": 1e-3, "ms": 1.0, "s": 1e3}  # to milliseconds


@dataclass(frozen=True)
class Replaced:
    """One delegate's share of a graph: `delegated` of `nodes` nodes, in `partitions` pieces (if told)."""

    delegate: str
    delegated: int
    nodes: int
    partitions: int | None


@dataclass(frozen=True)
class BenchmarkModel:
    """One run of benchmark_model; times in milliseconds, memory in MB.

    Attributes:
        dialect: "classic" or "litert".
        runs: timed inferences, or None.
        average_ms: their mean; all that the newer dialect tells of them, besides what it prints.
        init_ms, first_ms, warmup_ms: loading, the first inference, the mean of the warm-up.
        minimum_ms, maximum_ms, deviation_ms, median_ms, p5_ms, p95_ms: of the timed inferences.
        peak_mb: memory's peak, by the tool's own monitoring. footprint_mb: its growth from the start.
        replaced: what each delegate took over, in the order printed.
    """

    dialect: str
    runs: int | None
    average_ms: float
    init_ms: float | None
    first_ms: float | None
    warmup_ms: float | None
    minimum_ms: float | None
    maximum_ms: float | None
    deviation_ms: float | None
    median_ms: float | None
    p5_ms: float | None
    p95_ms: float | None
    peak_mb: float | None
    footprint_mb: float | None
    replaced: tuple[Replaced, ...]

    @property
    def partial(self) -> tuple[Replaced, ...]:
        """Delegates that took over only a part of the graph."""
        return tuple(item for item in self.replaced if item.delegated < item.nodes)

    def as_json(self) -> dict[str, Any]:
        """The figures as one JSON object."""
        return asdict(self)


def parse(output: str) -> BenchmarkModel:
    """Read what benchmark_model printed on both of its streams.

    Raises:
        DeviceError: it failed, or there is no average; the last line it printed is quoted.
    """
    lines = output.splitlines()
    totals = _last(lines, rf"Inference timings in us:(.*Inference \(avg\):\s*{_NUMBER}.*)")
    if totals:
        return _classic(lines, totals.group(1))
    average = _last(lines, rf"Inference \(avg\):\s*{_NUMBER}\s*(us|ms|s)\b(?:\s*\((\d{{1,9}}) runs?\))?")
    if not average:
        said = next((line.strip() for line in reversed(lines) if line.strip()), "nothing")
        raise DeviceError(
            "benchmark_model gave no latency",
            got="".join(letter for letter in said if letter.isprintable())[:300],
            fix="run it by hand on the phone, with --verbose=true",
        )
    return BenchmarkModel(
        dialect="litert",
        runs=int(average.group(3)) if average.group(3) else None,
        average_ms=_positive(average.group(1), _SECONDS[average.group(2)]),
        init_ms=_labelled(lines, r"(?:Model initialization|Init(?:ialization)?)"),
        first_ms=_labelled(lines, r"First inference"),
        warmup_ms=_labelled(lines, r"Warm-?up \(avg\)"),
        minimum_ms=_labelled(lines, r"Inference \(min\)"),
        maximum_ms=_labelled(lines, r"Inference \(max\)"),
        deviation_ms=_labelled(lines, r"Inference \(std\)"),
        median_ms=_labelled(lines, r"Inference \((?:median|p50)\)"),
        p5_ms=_labelled(lines, r"Inference \(p5\)"),
        p95_ms=_labelled(lines, r"Inference \(p95\)"),
        peak_mb=_figure(_last(lines, rf"[Pp]eak memory[^:]{{0,80}}:\s*{_NUMBER}")),
        footprint_mb=_overall(lines),
        replaced=_replaced(lines),
    )


def require_full_delegation(result: BenchmarkModel) -> None:
    """Refuse a run whose accelerator left operators to the processor, or took none.

    XNNPACK is the processor: what it takes over is what the accelerator left.

    Args:
        result: of a run that asked for an accelerator.

    Raises:
        GateError: a partial fallback, or no accelerator at all.
    """
    wanted = [item for item in result.replaced if "xnnpack" not in item.delegate.lower()]
    if not wanted:
        raise GateError(
            "the delegate took over nothing: the file ran on the processor",
            fix="look at the phone's log, or measure the processor: --delegate cpu",
        )
    for item in wanted:
        if item.delegated < item.nodes:
            raise GateError(
                f"{item.delegate} runs a part of the file only; the rest ran on the processor",
                got=f"{item.delegated} of {item.nodes} nodes",
                allowed=f"all {item.nodes} nodes",
                fix="allow it: --allow-fallback",
            )


def _classic(lines: list[str], totals: str) -> BenchmarkModel:
    def total(label: str) -> float | None:
        found = re.search(rf"{label}:\s*{_NUMBER}", totals)
        return _positive(found.group(1), 1e-3) if found else None

    average = total(r"Inference \(avg\)")
    if average is None:
        raise DeviceError("benchmark_model gave no latency", got=totals[:300])
    # The first line of counts is of the warm-up; the last one is of what was timed.
    counts = [line for line in lines if re.search(r"\bcount=\d", line)]
    timed = counts[-1] if len(counts) > 1 or total(r"Warmup \(avg\)") is None else ""

    def count(label: str) -> float | None:
        found = re.search(rf"\b{label}={_NUMBER}", timed)
        return _positive(found.group(1), 1e-3) if found else None

    runs = re.search(r"\bcount=(\d{1,9})\b", timed)
    return BenchmarkModel(
        dialect="classic",
        runs=int(runs.group(1)) if runs else None,
        average_ms=average,
        init_ms=total("Init"),
        first_ms=total("First inference"),
        warmup_ms=total(r"Warmup \(avg\)"),
        minimum_ms=count("min"),
        maximum_ms=count("max"),
        deviation_ms=count("std"),
        median_ms=count("median"),
        p5_ms=count("p5"),
        p95_ms=count("p95"),
        peak_mb=_figure(_last(lines, rf"Overall peak memory footprint \(MB\)[^:]{{0,80}}:\s*{_NUMBER}")),
        footprint_mb=_overall(lines),
        replaced=_replaced(lines),
    )


def _replaced(lines: list[str]) -> tuple[Replaced, ...]:
    pattern = re.compile(
        r"Replacing (\d{1,9}) out of (\d{1,9}) node\(s\) with delegate \(([^)]{1,128})\)"
        r"(?:[^,]{0,64}, yielding (\d{1,9}) partitions?)?"
    )
    found = []
    for line in lines:
        if match := pattern.search(line):
            name = "".join(letter for letter in match.group(3) if letter.isprintable())
            pieces = int(match.group(4)) if match.group(4) else None
            found.append(Replaced(name, int(match.group(1)), int(match.group(2)), pieces))
    return tuple(found)


def _overall(lines: list[str]) -> float | None:
    return _figure(_last(lines, rf"Memory footprint delta[^:]{{0,80}}:.{{0,80}}overall={_NUMBER}"))


def _labelled(lines: list[str], label: str) -> float | None:
    found = _last(lines, rf"{label}:\s*{_NUMBER}\s*(us|ms|s)\b")
    return _positive(found.group(1), _SECONDS[found.group(2)]) if found else None


def _last(lines: list[str], pattern: str) -> re.Match[str] | None:
    compiled = re.compile(pattern)
    return next((found for line in reversed(lines) if (found := compiled.search(line[:4096]))), None)


def _figure(found: re.Match[str] | None) -> float | None:
    return _positive(found.group(1), 1.0) if found else None


def _positive(text: str, factor: float) -> float:
    value = float(text) * factor
    if not 0 <= value < math.inf:
        raise DeviceError("benchmark_model printed a figure out of range", got=text[:60])
    return value
