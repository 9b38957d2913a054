"""Latency of TFLite files on a phone by Google's benchmark_model, on its processor, GPU or NPU.

The tool tells a mean of its inferences and no single one, and gives no outputs. So a sample is the mean of
one turn, a process of its own; files take turns as in `benchmarks.on_phone`, and nothing is said of parity.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.exported import TimedFile, list_files
from benchmarks.phone_session import claim, described, mask_of, take_turns
from benchmarks.samples import EMULATED, FORMAT, BenchResult, Series
from benchmarks.statistics import FEWEST
from compressor.errors import GateError, PocketganError
from compressor.files import sha256, write_json
from compressor.progress import Progress
from devices.benchmark_model import BenchmarkModel
from devices.benchmark_tool import delegate_flags, open_tool, run_tool
from devices.phone import facts
from devices.transport import DeviceError, Transport, Workspace

_TURN = 5  # timed inferences in a turn, unless there were too few turns


@dataclass
class _Entry:
    """One file with one number of threads, and what its turns gave."""

    file: TimedFile
    threads: int
    turns: list[BenchmarkModel] = field(default_factory=list)

    def series(self, runtime: str) -> Series:
        first = self.turns[0]
        if first.init_ms is None or first.first_ms is None:
            raise DeviceError(
                "benchmark_model did not tell how long loading and the first inference took",
                fix="use a newer build of it",
            )
        peaks = [turn.peak_mb for turn in self.turns if turn.peak_mb is not None]
        return Series(
            group=self.file.group,
            file=self.file.path.name,
            runtime=runtime,
            precision=self.file.precision,
            threads=self.threads,
            init_ms=first.init_ms,
            first_ms=first.first_ms,
            warmup_ms=() if first.warmup_ms is None else (first.warmup_ms,),
            samples_ms=tuple(turn.average_ms for turn in self.turns),
            peak_rss_mb=max(peaks, default=None),
            sha256=sha256(self.file.path),
            delegation={"replaced": [asdict(item) for item in first.replaced]},
        )


def bench_by_tool(
    folders: Sequence[Path],
    device: Transport,
    program: Path,
    *,
    output: Path,
    delegate: str = "cpu",
    allow_fallback: bool = False,
    threads: Sequence[int] | None = None,
    rounds: int = 30,
    warmup: int = 3,
    max_seconds: float = 300.0,
    cores: str = "all",
    replace: bool = False,
    allow_emulated: bool = False,
) -> BenchResult:
    """Time the TFLite files of some folders with benchmark_model, and write output/bench.json.

    Args:
        program: benchmark_model for Android on arm64.
        delegate: "cpu" (XNNPACK), "gpu", "nnapi" (classic tool) or "npu" (LiteRT's).
        allow_fallback: a delegate may leave operators to the processor; the counts are recorded anyway.
        rounds: timed inferences of each file, five a turn where that gives five turns.
        folders, device, output, threads, warmup, max_seconds, cores, replace: as `bench_on_phone`.
        allow_emulated: measure on Android's emulator; the result is of another format.

    Returns:
        The result; `document` also holds the tool's hash and flags, and all figures of every turn.

    Raises:
        UsageError: a number is out of range, or the tool has no such delegate.
        GateError: an emulator, or a delegate that left operators to the processor.
        PocketganError: bench.json exists, there is no TFLite file, or `program` is no benchmark_model.
        DeviceError: the phone or the tool failed; nothing is written.
    """
    tool = open_tool(program)
    flags = delegate_flags(tool, delegate, allow_fallback=allow_fallback)
    every = list_files(folders)
    files = [file for file in every if file.path.suffix.lower() == ".tflite"]
    if not files:
        raise PocketganError(
            "benchmark_model runs TFLite files, and there is none", got=", ".join(map(str, folders))
        )
    counts = claim(output, threads, rounds, warmup, replace)
    entries = [_Entry(file, count) for count in counts for file in files]
    known, began = facts(device), time.monotonic()
    if known.emulator and not allow_emulated:
        raise GateError(
            f"{device.serial} is Android's emulator, so its times would mean nothing",
            fix="measure on a real phone, or ask for emulated times: --allow-emulated",
        )
    turn = rounds // max(FEWEST, math.ceil(rounds / _TURN))
    with (
        Progress(f"bench on {device.serial}", rounds * len(entries)) as progress,
        Workspace(device, progress=progress.note) as work,
    ):
        if len(files) < len(every):
            progress.note(f"{len(every) - len(files)} files are not TFLite, and left out")

        def take(entry: _Entry, runs: int) -> float:
            measured = run_tool(
                work,
                tool,
                entry.file.path,
                delegate=delegate,
                allow_fallback=allow_fallback,
                threads=entry.threads,
                warmup=warmup,
                runs=runs,
                affinity=mask_of(known, cores),
                timeout=max(60.0, max_seconds),
            )
            entry.turns.append(measured)
            return measured.average_ms

        course = take_turns(
            device,
            entries,
            take,
            progress,
            rounds=rounds,
            turn=turn,
            least=FEWEST * turn,
            deadline=began + max_seconds,
        )
    runtime = f"benchmark_model {delegate}"
    document: dict[str, Any] = {
        "format": EMULATED if known.emulator else FORMAT,
        "emulated": known.emulator,
        **described(known, cores),
        **course.as_json(),
        "runtimes": {runtime: f"{tool.dialect} {tool.sha256[:16]}"},
        "runner": {"benchmark_model": {"sha256": tool.sha256, "dialect": tool.dialect, "flags": flags}},
        "order": f"interleaved, each turn a new process; a sample is the mean of a turn of {turn}",
        "rounds_asked": rounds,
        "warmup": warmup,
        "seconds": time.monotonic() - began,
        "input": "benchmark_model's own random values",
        "memory": "peak memory footprint by benchmark_model's own monitoring",
        "left_out": [file.path.name for file in every if file not in files],
        "turns": [
            {"group": entry.file.group, "file": entry.file.path.name, "threads": entry.threads}
            | {"turns": [measured.as_json() for measured in entry.turns]}
            for entry in entries
        ],
        "parity": [],
        "left_behind": work.left_behind,
    }
    result = BenchResult(output / "bench.json", document, tuple(entry.series(runtime) for entry in entries))
    write_json(result.path, result.as_json())
    return result
