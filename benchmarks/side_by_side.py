"""Ways of training measured side by side: steps taken in turns, memory in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from benchmarks.statistics import speed_up
from compressor.errors import PocketganError
from compressor.memory import memory_mb

if TYPE_CHECKING:
    import torch

WARM_UP = 2  # first steps of every way, not counted: allocations, pictures read for the first time

Step = Callable[[int], Any]


@dataclass
class Seconds:
    """Of every step of one way: by the clock, and of processor time over all threads.

    On a machine with other work the second says more; on a GPU only the first means anything.
    """

    clock: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)


def in_turns(ways: Mapping[str, Step], steps: int, device: torch.device) -> dict[str, Seconds]:
    """Seconds of every step; in each round every way takes one, in the order given.

    Args:
        ways: by name, what takes a step of that number.
        steps: rounds that are counted, after `WARM_UP` that are not.
    """
    seconds = {name: Seconds() for name in ways}
    for step in range(WARM_UP + steps):
        for name, way in ways.items():
            _wait(device)
            began, busy = time.perf_counter(), time.process_time()
            way(step)
            _wait(device)
            if step >= WARM_UP:
                seconds[name].clock.append(time.perf_counter() - began)
                seconds[name].processor.append(time.process_time() - busy)
    return seconds


def ratio(over: list[float], under: list[float]) -> dict[str, float]:
    """median(over) / median(under) of steps taken in the same rounds, with a 95 % interval; and of the means.

    The means hold what happens only in some steps, as the looks which channels would survive.
    """
    paired = speed_up(over, under)
    means = sum(over) / len(over) * len(under) / sum(under)
    return {"value": paired.value, "low": paired.low, "high": paired.high, "of_means": means}


def memory(make: Callable[[], Step], device: torch.device, steps: int = 3) -> dict[str, float]:
    """What this process needs to make one way of training and take a few steps, in MiB.

    Returns:
        "base": resident before; "peak": most resident so far. On a GPU, of its memory: base is 0.
    """
    import torch

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    base = 0.0 if device.type == "cuda" else memory_mb("VmRSS")
    way = make()
    for step in range(steps):
        way(step)
    if device.type == "cuda":
        return {"base": base, "peak": torch.cuda.max_memory_allocated(device) / (1 << 20)}
    return {"base": base, "peak": memory_mb("VmHWM")}


def memory_apart(module: str, arguments: list[str]) -> dict[str, float]:
    """The JSON object that `python -m MODULE ARGUMENTS` prints last, run as a process of its own."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PocketganError(f"{' '.join(command)} failed", got=done.stderr.strip()[-2000:])
    answer: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def circumstances(module: str, seed: int, threads: int, device: torch.device) -> dict[str, Any]:
    """What a result must say about where it comes from."""
    import torch

    from devices.host import facts

    return {
        "command": ["python", "-m", module, *sys.argv[1:]],
        "date": time.strftime("%Y-%m-%d"),
        "seed": seed,
        "torch": torch.__version__,
        "threads": threads,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "load_average": list(os.getloadavg()),
        "machine": facts().as_json(),
    }


def timed_cells(name: str, row: dict[str, Any], base: str) -> dict[str, str]:
    """A way's cells of the table: its step, and its ratios to the way named `base`."""
    from benchmarks.statistics import summarise

    step, busy = row["step_ratio"], row["processor_ratio"]
    return {
        "way": name,
        "step, median": f"{summarise(row['seconds']).median:.3f} s",
        f"to {base}": f"{step['value']:.3f} [{step['low']:.3f}, {step['high']:.3f}]",
        f"processor time to {base}": f"{busy['value']:.3f} [{busy['low']:.3f}, {busy['high']:.3f}]",
    }


def table(rows: list[dict[str, str]]) -> str:
    """Rows of equal keys as Markdown."""
    lines = ["| " + " | ".join(rows[0]) + " |", "|---" * len(rows[0]) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row.values()) + " |" for row in rows])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)
