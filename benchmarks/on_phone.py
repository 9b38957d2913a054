"""Latency of exported files on a phone: interleaved turns of our arm64 runner, parity checked there.

Each turn is a process of its own on the phone that loads one file, warms up and is timed a few times;
the files take turns (A B A B), so that heat disturbs all alike. The first turn of each file also brings
its output back, which must be what this machine's runtime gives for the same input.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.exported import TimedFile, list_files
from benchmarks.phone_session import claim, described, mask_of, take_turns
from benchmarks.samples import EMULATED, FORMAT, BenchResult, Series
from benchmarks.statistics import FEWEST
from compressor.errors import GateError, PocketganError
from compressor.files import sha256, write_json
from compressor.metrics.fidelity import psnr
from compressor.progress import Progress
from devices.phone import facts
from devices.runner.bundle import Bundle, prepare
from devices.runner.run import Measured, Runner
from devices.runtimes import Session, open_session
from devices.transport import Transport, Workspace

PARITY_DB: dict[str, float] = {
    "fp32": 60.0,
    "fp16": 45.0,
    "int8": 35.0,
    "int8-dynamic": 35.0,
    "w8a16": 45.0,
    "unknown": 35.0,
}
"""PSNR that a phone's output must reach against this machine's, the same file on the same input."""
MEMORY = "peak resident set (VmHWM) of the runner's process; base is before the runtime is opened"
_TURN = 5  # timed inferences in a turn


@dataclass(frozen=True)
class PhoneParity:
    """One file's output on the phone beside this machine's.

    Attributes:
        max_abs: the largest difference, as a share of the output's range.
        psnr: dB, null in JSON when the outputs are equal.
        passed: PARITY_DB is reached.
    """

    group: str
    file: str
    max_abs: float
    psnr: float
    passed: bool

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "psnr": self.psnr if np.isfinite(self.psnr) else None}


class OtherPicture(GateError):
    """An output on the phone differs from this machine's; `result` was measured and written all the same."""

    def __init__(self, cause: GateError, result: BenchResult):
        super().__init__(cause.what, got=cause.got, allowed=cause.allowed, fix=cause.fix)
        self.result = result


@dataclass
class _Entry:
    """One file with one number of threads, and what its turns gave."""

    file: TimedFile
    threads: int
    digest: str
    values: np.ndarray
    host: Session
    turns: list[Measured] = field(default_factory=list)

    def series(self) -> Series:
        first = self.turns[0]
        return Series(
            group=self.file.group,
            file=self.file.path.name,
            runtime=first.runtime,
            precision=self.file.precision,
            threads=self.threads,
            init_ms=first.init_ms,
            first_ms=first.first_ms,
            warmup_ms=first.warmup_ms,
            samples_ms=tuple(sample for turn in self.turns for sample in turn.samples_ms),
            peak_rss_mb=max(turn.peak_rss_kb for turn in self.turns) / 1024,
            base_rss_mb=first.base_rss_kb / 1024,
            sha256=self.digest,
        )


def bench_on_phone(
    folders: Sequence[Path | TimedFile],
    device: Transport,
    *,
    output: Path,
    threads: Sequence[int] | None = None,
    rounds: int = 30,
    warmup: int = 3,
    max_seconds: float = 300.0,
    cores: str = "all",
    seed: int = 0,
    replace: bool = False,
    allow_emulated: bool = False,
) -> BenchResult:
    """Time every exported file in some folders on a phone, and write output/bench.json.

    Args:
        folders: folders of exported files, or such files themselves.
        output, rounds, warmup, replace: as `benchmarks.latency.bench`.
        device: the phone.
        threads: threads per inference; default 1.
        max_seconds: no new round begins after this long, once every file has 5 samples.
        cores: "all", or "fast" for the fastest cluster only.
        allow_emulated: measure on an emulated processor; the result is of another format.

    Returns:
        The result; `document` also holds the phone, its heat and clocks, and parity on the phone.

    Raises:
        UsageError: a number is out of range.
        GateError: the processor is emulated and that was not asked for.
        OtherPicture: an output on the phone differs from this machine's (bench.json is written all the same).
        PocketganError: bench.json exists, or a file cannot be run.
        DeviceError: the phone failed; nothing is written.
    """
    counts = claim(output, threads, rounds, warmup, replace)
    path = output / "bench.json"
    files = [item for item in folders if isinstance(item, TimedFile)]
    files += list_files(item for item in folders if isinstance(item, Path))
    entries = _entries(files, counts, seed)
    known, began = facts(device), time.monotonic()
    bundles = {runtime: prepare(runtime) for runtime in sorted({entry.file.runtime for entry in entries})}
    parity: list[PhoneParity] = []
    with (
        Progress(f"bench on {device.serial}", rounds * len(entries)) as progress,
        Workspace(device, progress=progress.note) as work,
    ):
        runners = {
            name: Runner(work, bundle, allow_emulated=allow_emulated) for name, bundle in bundles.items()
        }

        def take(entry: _Entry, runs: int) -> float:
            measured, given = runners[entry.file.runtime].measure(
                entry.file.path,
                entry.values,
                threads=entry.threads,
                warmup=warmup,
                runs=runs,
                affinity=mask_of(known, cores),
                timeout=max(60.0, max_seconds),
                with_output=not entry.turns,
            )
            entry.turns.append(measured)
            if given is not None:
                parity.append(_compared(entry, given))
            return measured.samples_ms[-1]

        deadline = began + max_seconds
        course = take_turns(
            device, entries, take, progress, rounds=rounds, turn=_TURN, least=FEWEST, deadline=deadline
        )
    emulated = any(turn.emulated for entry in entries for turn in entry.turns)
    document = {
        "format": EMULATED if emulated else FORMAT,
        "emulated": emulated,
        **described(known, cores),
        "runtimes": {name: bundle.version for name, bundle in bundles.items()},
        "runner": _described(bundles),
        "order": f"interleaved, {_TURN} runs a turn, each turn a new process",
        **course.as_json(),
        "rounds_asked": rounds,
        "warmup": warmup,
        "seconds": time.monotonic() - began,
        "input": f"uniform random values in the input range, the same for every file ({seed})",
        "memory": MEMORY,
        "parity": [item.as_json() for item in parity],
        "left_behind": work.left_behind,
    }
    result = BenchResult(path, document, tuple(entry.series() for entry in entries))
    write_json(path, result.as_json())
    try:
        _refuse_differing(parity, device.serial)
    except GateError as error:
        raise OtherPicture(error, result) from None
    return result


def _entries(files: Sequence[TimedFile], counts: Sequence[int], seed: int) -> list[_Entry]:
    """Every file with every thread count, its input, and this machine's session to compare with."""
    entries = []
    for file in files:
        host = open_session(file.path)
        shape = _closed(host, file)
        low, high = file.value_range
        values = host.encode(np.random.default_rng(seed).uniform(low, high, shape))
        digest = sha256(file.path)
        entries += [_Entry(file, count, digest, values, host) for count in counts]
    return sorted(entries, key=lambda entry: entry.threads)


def _closed(host: Session, file: TimedFile) -> tuple[int, ...]:
    shape = host.input_shape
    if 0 not in shape:
        return shape
    if file.shape is None or len(shape) != 4:
        raise PocketganError(f"{file.path.name} leaves its picture's size open", fix="export it with --size")
    batch, channels, height, width = file.shape
    wanted = file.shape if host.layout == "NCHW" else (batch, height, width, channels)
    return tuple(side or wanted[axis] for axis, side in enumerate(shape))


def _compared(entry: _Entry, given: np.ndarray) -> PhoneParity:
    expected = entry.host.run(entry.values).astype(np.float64)
    spread = float(np.ptp(expected)) or 1.0
    if given.shape != expected.shape or not np.all(np.isfinite(given.astype(np.float64))):
        return PhoneParity(entry.file.group, entry.file.path.name, 1.0, 0.0, False)
    low = float(expected.min())
    ours = (given.astype(np.float64) - low) / spread
    theirs = (expected - low) / spread
    decibel = psnr(ours, theirs)
    least = PARITY_DB.get(entry.file.precision, PARITY_DB["unknown"])
    return PhoneParity(
        entry.file.group,
        entry.file.path.name,
        float(np.abs(ours - theirs).max()),
        float(decibel),
        bool(decibel >= least),
    )


def _refuse_differing(parity: Sequence[PhoneParity], serial: str) -> None:
    for item in parity:
        if not item.passed:
            raise GateError(
                f"{item.file} gives another picture on {serial} than here",
                got=f"{item.psnr:.1f} dB, largest difference {item.max_abs:.1%} of the range",
                allowed=f"PSNR in dB of at least {PARITY_DB}",
                fix="the phone's kernels may be at fault: try the other runtime or precision",
            )


def _described(bundles: dict[str, Bundle]) -> dict[str, Any]:
    """What ran, by content."""
    return {
        name: {
            "runner_sha256": sha256(bundle.runner),
            "library_sha256": sha256(bundle.library),
            "bytes": bundle.bytes,
        }
        for name, bundle in bundles.items()
    }
