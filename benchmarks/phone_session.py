"""What every session on a phone has, whatever runs the files there: checks, turns, heat and clocks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from benchmarks.exported import TimedFile
from benchmarks.samples import now
from benchmarks.statistics import FEWEST
from compressor.errors import PocketganError, UsageError
from compressor.files import claim_folder
from compressor.progress import Progress
from devices.heat import Heat, cool_down, read_frequencies, time_below_top
from devices.phone import PhoneFacts, facts
from devices.transport import Transport

_LONGEST_WAIT = 300.0  # seconds for the phone to cool before a round of turns, if the session has them left


class HasFile(Protocol):
    """Whatever takes turns."""

    @property
    def file(self) -> TimedFile: ...


Entry = TypeVar("Entry", bound=HasFile)


@dataclass(frozen=True)
class Course:
    """How the turns of a session went.

    Attributes:
        rounds: timed inferences of each file.
        cooldowns: before each round of turns: the wait for the phone to cool, and its heat then.
        below_top: see `devices.heat.time_below_top`.
        after: heat at the end.
    """

    rounds: int
    cooldowns: tuple[dict[str, Any], ...]
    below_top: dict[str, float]
    after: Heat

    def as_json(self) -> dict[str, Any]:
        """Under the names of bench.json."""
        return {
            "ended": now(),
            "rounds": self.rounds,
            "heat_after": self.after.as_json(),
            "heat_by_round": list(self.cooldowns),
            "share_below_top_frequency": self.below_top,
        }


def claim(output: Path, threads: Sequence[int] | None, rounds: int, warmup: int, replace: bool) -> list[int]:
    """Check what was asked for and claim the folder of bench.json; returns the thread counts, 1 if none.

    Raises:
        UsageError: a number is out of range.
        PocketganError: the folder holds measurements, and `replace` is not given.
    """
    counts = sorted(set(threads or (1,)))
    if counts[0] < 1 or rounds < FEWEST or warmup < 0:
        raise UsageError(
            "threads are counted from 1, and a median needs rounds",
            got=f"{counts} threads, {rounds} rounds, {warmup} warm-up",
            allowed=f"1 or more threads, {FEWEST} or more rounds, 0 or more warm-up",
        )
    if (output / "bench.json").exists() and not replace:
        raise PocketganError(
            f"{output / 'bench.json'} already holds measurements",
            fix="choose another --output-dir, or measure again in its place: --force",
        )
    claim_folder(output, resume=True)
    return counts


def take_turns(
    device: Transport,
    entries: Sequence[Entry],
    take: Callable[[Entry, int], float],
    progress: Progress,
    *,
    rounds: int,
    turn: int,
    least: int,
    deadline: float,
) -> Course:
    """Give every entry its turns (A B A B), the phone cooled before each round of them.

    Args:
        take: measures one turn of so many inferences; returns the last one's milliseconds.
        rounds: timed inferences of each entry. turn: of these in one turn.
        least: as many are taken even past `deadline` (of `time.monotonic`); none is waited past it.

    Raises:
        DeviceError: the phone failed.
    """
    cooldowns: list[dict[str, Any]] = []
    clocks = read_frequencies(device)
    done = 0
    while done < rounds and (done < least or time.monotonic() < deadline):
        rest = min(_LONGEST_WAIT, max(0.0, deadline - time.monotonic()))
        waited = cool_down(device, most_seconds=rest, progress=progress.note)
        cooldowns.append({"seconds": waited.seconds, "cooled": waited.cooled, **waited.heat.as_json()})
        runs = min(turn, rounds - done)
        for number, entry in enumerate(entries, 1):
            taken = take(entry, runs)
            progress.update(done * len(entries) + number * runs, ms=taken, file=entry.file.path.name)
        done += runs
    below_top = time_below_top(clocks, read_frequencies(device))
    return Course(done, tuple(cooldowns), below_top, facts(device).heat)


def described(known: PhoneFacts, cores: str) -> dict[str, Any]:
    """The phone under the names of bench.json; `machine` under those that reports know from HostFacts."""
    count = sum(len(cluster.cores) for cluster in known.clusters) or None
    mask = mask_of(known, cores)
    return {
        "machine": {
            "cpu": f"{known.chip}, {known.cores}",
            "architecture": "aarch64",
            "cores": count,
            "logical_cores": count,
            "governor": known.clusters[-1].governor if known.clusters else None,
            "system": f"Android {known.android} on {known.maker} {known.model}".strip(),
        },
        "device": known.as_json(),
        "cores": cores,
        "affinity": None if mask is None else f"{mask:x}",
        "heat_before": known.heat.as_json(),
    }


def mask_of(known: PhoneFacts, cores: str) -> int | None:
    """The bit mask of "fast" cores, where the phone tells; None for all."""
    return known.clusters[-1].mask if cores == "fast" and known.clusters else None
