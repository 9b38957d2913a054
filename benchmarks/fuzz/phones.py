"""Fuzzed: what phones and the programs on them print."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.fuzz.mutations import each_of, some_text, some_tree
from benchmarks.fuzz.target import Files, Target
from compressor.errors import GateError
from devices.transport import Completed, Transport

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

_CPU = "/sys/devices/system/cpu"
ANSWERS = {  # by file of an input: what the phone is asked, and what a good one says
    "getprop": (
        "[ro.soc.model]: [SM8650-AC]\n[ro.product.manufacturer]: [Acme]\n[ro.product.model]: [Acme\nEight]\n"
        "[ro.build.version.release]: [14]\n[ro.build.version.sdk]: [34]\n[ro.kernel.qemu]: [0]\n"
        "[ro.board.platform]: [pineapple]\n[ro.product.cpu.abi]: [arm64-v8a]\n"
    ),
    "dumpsys thermalservice": (
        "Thermal Status: 1\nCached temperatures:\n\tTemperature{mValue=40.5, mType=0, mName=AP, mStatus=0}\n"
        "Current temperatures from HAL:\n\tTemperature{mValue=-3.1, mType=2, mName=battery, mStatus=1}\n"
    ),
    "dumpsys battery": "Current Battery Service state:\n  status: 2\n  level: 83\n  temperature: 301\n",
    "dumpsys power": "POWER MANAGER\n  mWakefulness=Awake\n",
    "cpufreq": "".join(
        f"cpu{core} cpuinfo_min_freq 364800\ncpu{core} cpuinfo_max_freq {2265600 + core // 2}\n"
        f"cpu{core} scaling_governor walt\ncpu{core} related_cpus {core // 2 * 2} {core // 2 * 2 + 1}\n"
        for core in range(4)
    ),
    "time_in_state": f"{_CPU}/cpu0/cpufreq/stats/time_in_state\n364800 100\n2265600 50\n"
    f"{_CPU}/cpu7/cpufreq/stats/time_in_state\n480000 1\n3302400 0\n",
    "df": "Filesystem 1K-blocks Used Available Use% Mounted on\n/dev/block/dm-9 236 99 137 42% /data\n",
}
_CLASSIC = """\
STARTING!
INFO: Replacing 31 out of 33 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 3 partitions.
count=1 curr=1357602
count=50 first=1249964 curr=1240143 min=1238588 max=1249964 avg=1.24027e+06 std=2565 p5=1 median=12 p95=124

Inference timings in us: Init: 5579, First inference: 1357602, Warmup (avg): 1.3e+06, Inference (avg): 1.2e+06
Memory footprint delta from the start of the tool (MB): init=6.36 overall=109.848
Overall peak memory footprint (MB) via periodic monitoring: 112.113
"""
_LITERT = """\
INFO: Replacing 33 out of 33 node(s) with delegate (DispatchDelegate) node, yielding 1 partitions.
========== BENCHMARK RESULTS ==========
Model initialization: 125.20 ms
Warmup (avg):         1.60 ms (1 runs)
First inference:      1.60 ms
Inference (avg):      1.18 ms (20 runs)
Inference (min):      1103 us
Inference (p95):      1.3 ms
Peak memory usage (MB): 88.5
"""
_RUNNER = {
    "format": "pocketgan.runner/1",
    "runtime": "litert",
    "version": "2.3",
    "threads": 1,
    "init_ms": 1.5,
    "first_ms": 2.5,
    "warmup_ms": [2.0],
    "samples_ms": [1.0, 1.5],
    "peak_rss_kb": 900,
    "base_rss_kb": 800,
    "process_threads": 1,
    "input": {"shape": [1, 4, 4, 3], "dtype": "float32"},
    "output": {"shape": [1, 4, 4, 2], "dtype": "float32"},
    "output_fnv1a64": "ab",
    "fully_accelerated": True,
    "emulated": False,
}


class Telling(Transport):
    """A phone whose answers are the files of a folder; one that has no answer says nothing."""

    def __init__(self, folder: Path):
        self.serial, self.root, self._folder = "R3CX", "/data/local/tmp/pocketgan", folder

    def shell(
        self,
        argv: Sequence[str],
        *,
        timeout: float = 30.0,
        cwd: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Completed:
        line = " ".join(argv)
        name = next((known for known in ("time_in_state", "cpufreq", "df") if known in line), line)
        path = self._folder / name
        return Completed(0, path.read_bytes() if path.exists() else b"", b"", 0.0)

    def put(
        self,
        local: Path,
        remote: str,
        *,
        timeout: float,
        mode: int = 0o755,
        watch: Callable[[int], None] | None = None,
    ) -> None:
        raise NotImplementedError("nothing is written to it")

    def get(self, remote: str, local: Path, *, timeout: float) -> None:
        raise NotImplementedError("it holds no files")

    def size(self, remote: str) -> int | None:
        return None


def _answers() -> SearchStrategy[Files]:
    files = {name: text.encode() for name, text in ANSWERS.items()}
    return each_of(files, lambda _, content: some_text(content.decode()))


def _ask(folder: Path) -> None:
    from benchmarks.phone_session import described
    from devices.heat import read_frequencies, time_below_top
    from devices.phone import facts
    from devices.transport import Workspace

    phone = Telling(folder)
    known = facts(phone)
    json.dumps(described(known, "fast"), allow_nan=False)
    shares = time_below_top({}, read_frequencies(phone))
    if not all(0 <= share <= 1 for share in shares.values()):
        raise AssertionError(f"shares of time outside 0 to 1: {shares}")
    Workspace(phone).free_bytes()


def _output(text: str) -> SearchStrategy[Files]:
    return some_text(text).map(lambda content: {"stdout": content})


def _read_tool(folder: Path) -> None:
    from devices.benchmark_model import parse, require_full_delegation

    found = parse((folder / "stdout").read_text(encoding="utf-8", errors="replace"))
    json.dumps(found.as_json(), allow_nan=False)
    with contextlib.suppress(GateError):  # that is what it is for
        require_full_delegation(found)


def _documents() -> SearchStrategy[Files]:
    from hypothesis import strategies as st

    lines = some_tree(_RUNNER).map(lambda tree: json.dumps(tree).encode())
    whole = st.one_of(lines, lines, some_text(json.dumps(_RUNNER)))
    return whole.map(lambda content: {"stdout": content})


def _read_runner(folder: Path) -> None:
    from devices.runner.run import parse

    text = (folder / "stdout").read_text(encoding="utf-8", errors="replace")
    json.dumps(parse(text, 0, b"", warmup=1, runs=2).as_json(), allow_nan=False)


TARGETS = {
    "phone": Target("getprop, dumpsys, cpufreq, time_in_state, df", _answers, _ask),
    "benchmark_model": Target("benchmark_model, classic", lambda: _output(_CLASSIC), _read_tool),
    "benchmark_litert": Target("benchmark_model, LiteRT's", lambda: _output(_LITERT), _read_tool),
    "runner": Target("our runner's document", _documents, _read_runner),
}
