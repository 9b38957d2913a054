"""Latency of exported files on this machine: interleaved rounds, raw samples kept."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.exported import TimedFile, list_files
from benchmarks.samples import FORMAT, BenchResult, Series, now, read_bench
from benchmarks.statistics import FEWEST
from compressor.errors import PocketganError, UsageError
from compressor.files import claim_folder, sha256, write_json
from compressor.progress import Progress
from devices.host import facts, usable_cores
from devices.isolated import INPUT, MEMORY, IsolatedSession

__all__ = ["BenchResult", "Series", "bench", "read_bench"]

_SETTLE_BELOW = 50.0  # ms; faster files get an untimed run first, since a turn finds their caches cold
_REST = 0.01  # seconds between turns, so that the last session's threads are asleep
_RESERVE = 0.12  # share of memory that stays free; sessions beyond it are measured in a block of their own


def bench(
    folders: Sequence[Path],
    *,
    output: Path,
    threads: Sequence[int] | None = None,
    rounds: int = 30,
    warmup: int = 3,
    max_seconds: float = 300.0,
    seed: int = 0,
    replace: bool = False,
    resume: bool = False,
) -> BenchResult:
    """Time every exported file in some folders, in turns, and write output/bench.json.

    Each file and thread count gets a process with one session. After loading, first run and
    warm-up, each round gives every session one timed inference in turn (A B A B), so that whatever
    disturbs the machine disturbs all alike. Files under 50 ms get an untimed inference before each
    timed one. Should memory not hold all sessions at once, they are measured in blocks.

    Args:
        folders: export folders, or a folder of such folders.
        output: folder for bench.json.
        threads: threads per inference; default 1 and all usable cores.
        rounds: timed inferences for each series.
        warmup: untimed inferences between the first and the rounds (fewer when they take long).
        max_seconds: stop the rounds early after this long; every series still gets 5 samples.
        seed: of the random input picture.
        replace: measure again though output/bench.json exists.
        resume: return the existing bench.json when it is of the same files and thread counts.

    Raises:
        UsageError: a number is out of range.
        PocketganError: bench.json exists (and neither flag is given), or a file cannot be run.
    """
    counts = _checked_counts(threads, rounds, warmup, max_seconds)
    files = list_files(folders)
    hashes = {file.path: sha256(file.path) for file in files}
    path = output / "bench.json"
    if path.exists() and resume and (earlier := _same(path, files, hashes, counts)):
        return earlier
    if path.exists() and not (resume or replace):
        raise PocketganError(
            f"{path} already holds measurements",
            fix="choose another --output-dir, or measure again in its place: --force",
        )
    claim_folder(output, resume=True)
    queue = [(count, file) for count in counts for file in files]
    every, began, before = len(queue), time.monotonic(), _load()
    runtimes: dict[str, str] = {}
    series: list[Series] = []
    blocks = 0
    with Progress("bench", every * rounds) as progress:
        while queue:
            with contextlib.ExitStack() as stack:
                turns = _load_block(stack, queue, warmup, max_seconds / (3 * every), seed, progress)
                queue = queue[len(turns) :]
                runtimes |= {t.session.facts["runtime"]: t.session.facts["version"] for t in turns}
                deadline = time.monotonic() + max_seconds * len(turns) / every
                _take_turns(turns, rounds, deadline, progress, len(series) * rounds)
                series += [turn.series(blocks, hashes[turn.file.path]) for turn in turns]
                blocks += 1
        progress.update(every * rounds)
    document = {
        "format": FORMAT,
        "ended": now(),
        "machine": facts().as_json(),
        "runtimes": runtimes,
        "order": "interleaved" if blocks == 1 else f"interleaved in {blocks} blocks (memory)",
        "rounds": min(len(item.samples_ms) for item in series),
        "rounds_asked": rounds,
        "warmup": warmup,
        "seconds": time.monotonic() - began,
        "input": f"{INPUT} ({seed})",
        "memory": MEMORY,
        "settle_below_ms": _SETTLE_BELOW,
        "rest_ms": _REST * 1e3,
        "load_before": before,
        "load_after": _load(),
    }
    result = BenchResult(path, document, tuple(series))
    write_json(path, result.as_json())
    return result


@dataclass
class _Turn:
    """One session waiting for its turns."""

    file: TimedFile
    threads: int
    session: IsolatedSession
    first: float
    warmup: list[float]
    samples: list[float] = field(default_factory=list)

    def take(self) -> float:
        """One timed inference, after an untimed one where caches matter; its milliseconds."""
        settle = median(self.warmup or [self.first]) < _SETTLE_BELOW
        self.samples.append(self.session.run(2 if settle else 1)[-1])
        return self.samples[-1]

    def series(self, block: int, digest: str) -> Series:
        facts = self.session.facts
        return Series(
            group=self.file.group,
            file=self.file.path.name,
            runtime=facts["runtime"],
            precision=self.file.precision,
            threads=self.threads,
            init_ms=facts["init_ms"],
            first_ms=self.first,
            warmup_ms=tuple(self.warmup),
            samples_ms=tuple(self.samples),
            peak_rss_mb=self.session.peak_rss_mb(),
            base_rss_mb=facts["base_rss_mb"],
            block=block,
            sha256=digest,
            delegation=facts["delegation"],
        )


def _load_block(
    stack: contextlib.ExitStack,
    queue: Sequence[tuple[int, TimedFile]],
    warmup: int,
    seconds: float,
    seed: int,
    progress: Progress,
) -> list[_Turn]:
    """Load and warm up as many sessions of the queue as memory holds, at least one."""
    turns: list[_Turn] = []
    for threads, file in queue:
        if turns and not _memory_left():
            progress.note(f"bench: memory holds {len(turns)} sessions at once; the others follow in turn")
            break
        session = IsolatedSession(
            file.path, threads, shape=file.shape, value_range=file.value_range, seed=seed
        )
        stack.enter_context(session)
        turn = _Turn(file, threads, session, session.run()[0], [])
        began = time.monotonic()
        while len(turn.warmup) < warmup and (not turn.warmup or time.monotonic() - began < seconds):
            turn.warmup += session.run()
        turns.append(turn)
    return turns


def _take_turns(turns: Sequence[_Turn], rounds: int, deadline: float, progress: Progress, done: int) -> None:
    """Give every session one turn a round, until the rounds or (after 5) the time are used up."""
    for number in range(rounds):
        if number >= FEWEST and time.monotonic() > deadline:
            progress.note(f"bench: stopped after {number} of {rounds} rounds, as --max-seconds asks")
            return
        for turn in turns:
            taken = turn.take()
            time.sleep(_REST)
            done += 1
            progress.update(done, ms=taken, file=turn.file.path.name)


def _checked_counts(threads: Sequence[int] | None, rounds: int, warmup: int, max_seconds: float) -> list[int]:
    counts = sorted(set(threads)) if threads else sorted({1, usable_cores()})
    if counts[0] < 1 or counts[-1] > 1024:
        raise UsageError("threads are counted from 1", got=counts, allowed="1 to 1024")
    if rounds < FEWEST:
        raise UsageError("too few rounds for a median", got=rounds, allowed=f"{FEWEST} or more")
    if warmup < 0 or not max_seconds > 0:
        raise UsageError(
            "warm-up runs and the time limit cannot be negative", got=f"{warmup} runs, {max_seconds} s"
        )
    return counts


def _same(
    path: Path, files: Sequence[TimedFile], hashes: dict[Path, str], counts: Sequence[int]
) -> BenchResult | None:
    """The earlier result, if it measured just these files and thread counts."""
    earlier = read_bench(path)
    had = {(item.group, item.file, item.sha256, item.threads) for item in earlier.series}
    wanted = {(file.group, file.path.name, hashes[file.path], n) for file in files for n in counts}
    return earlier if had == wanted else None


def _memory_left() -> bool:
    import psutil

    memory = psutil.virtual_memory()
    return memory.available > _RESERVE * memory.total


def _load() -> float | None:
    """The system's one-minute load average, where it has one."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None
