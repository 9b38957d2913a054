"""A session in a process of its own: its peak memory is the file's alone, and its crash hurts nobody.

`python -m devices.isolated` is the child; `IsolatedSession` is the parent's handle on it. They talk
in lines of JSON over the child's standard input and output. The child ends when its input closes,
so it does not outlive a parent that was killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Any

import numpy as np

from compressor.errors import PocketganError
from compressor.memory import memory_mb

MEMORY = (
    "peak resident set (VmHWM) of a process that holds this one session, Python and the runtime "
    "included; base is the resident set just before the file is loaded"
)
INPUT = "uniform random values in the input range, the same seed for every file"


class IsolatedSession:
    """Loads one exported file in a new process.

    Attributes:
        facts: runtime, version, input_shape, layout, dtype, delegation, init_ms (loading the file,
            imports excluded) and base_rss_mb.

    Raises:
        PocketganError: as `devices.runtimes.open_session`, or the process died.
    """

    def __init__(
        self,
        path: Path,
        threads: int,
        *,
        shape: tuple[int, int, int, int] | None = None,
        value_range: tuple[float, float] = (-1.0, 1.0),
        seed: int = 0,
    ):
        self._path = path
        self._complaints: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        task = {"path": str(path), "threads": threads, "shape": shape, "range": value_range, "seed": seed}
        home = str(Path(__file__).resolve().parent.parent)
        search = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
        self._child = subprocess.Popen(
            [sys.executable, "-m", "devices.isolated", json.dumps(task)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            env={**os.environ, "PYTHONPATH": search},
            start_new_session=True,  # Ctrl-C goes to the parent, which closes the children in order
        )
        try:
            self.facts: dict[str, Any] = self._answer()
        except BaseException:
            self.close()
            raise

    def run(self, times: int = 1) -> list[float]:
        """Run the file `times` times in a row; milliseconds of each, from input array to output array."""
        return self._ask({"run": times})["ms"]

    def peak_rss_mb(self) -> float:
        """Peak resident memory of the child so far, in MiB."""
        return self._ask({"memory": True})["peak_rss_mb"]

    def cpu_seconds(self) -> float:
        """CPU time the child has used so far."""
        return self._ask({"cpu": True})["cpu_seconds"]

    def close(self) -> None:
        """End the child."""
        with contextlib.suppress(OSError):
            if self._child.stdin:
                self._child.stdin.close()
        try:
            self._child.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        if self._child.stdout:
            self._child.stdout.close()
        self._complaints.close()

    def __enter__(self) -> IsolatedSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(json.dumps(request).encode() + b"\n")
            self._child.stdin.flush()
        except OSError as error:
            raise self._died() from error
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line.endswith(b"\n"):
            raise self._died()
        answer = json.loads(line)
        if "error" in answer:
            raise PocketganError(
                answer["error"], got=answer["got"], allowed=answer["allowed"], fix=answer["next"]
            )
        return answer

    def _died(self) -> PocketganError:
        code = self._child.wait()
        self._complaints.seek(0)
        said = self._complaints.read().decode("utf-8", "replace").strip().splitlines()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        killed = code == -signal.SIGKILL
        return PocketganError(
            f"the runtime died with {self._path}",
            got=f"{how}; {said[-1][:300]}" if said else how,
            fix="memory may have run out: try fewer files or a smaller --size"
            if killed
            else "the file may be damaged: export it again",
        )


def _serve(task: dict[str, Any], requests: IO[bytes], answers: IO[bytes]) -> None:
    """The child's whole life: load, then answer until the parent hangs up."""
    from devices.runtimes import RUNTIMES, open_session

    def say(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()

    path = Path(task["path"])
    try:
        match RUNTIMES.get(path.suffix.lower()):  # imported here, so that init_ms is the file's alone
            case "onnxruntime":
                import onnxruntime  # noqa: F401
            case "litert":
                import ai_edge_litert.interpreter  # noqa: F401
    except ImportError:
        pass  # open_session says it better
    base = memory_mb("VmRSS")
    try:
        began = time.perf_counter_ns()
        session = open_session(path, task["threads"])
        init = (time.perf_counter_ns() - began) / 1e6
        shape = _closed_shape(session.input_shape, session.layout, task["shape"])
        low, high = task["range"]
        values = session.encode(np.random.default_rng(task["seed"]).uniform(low, high, shape))
        facts = {
            "runtime": session.runtime,
            "version": session.version,
            "input_shape": list(shape),
            "layout": session.layout,
            "dtype": str(session.dtype),
            "delegation": session.delegation.as_json() if session.delegation else None,
            "init_ms": init,
            "base_rss_mb": base,
        }
        say(facts)
        for line in requests:
            request = json.loads(line)
            if "run" in request:
                timings = []
                for _ in range(request["run"]):
                    began = time.perf_counter_ns()
                    session.run(values)
                    timings.append((time.perf_counter_ns() - began) / 1e6)
                say({"ms": timings})
            elif "memory" in request:
                say({"peak_rss_mb": memory_mb("VmHWM")})
            else:
                say({"cpu_seconds": time.process_time()})
    except PocketganError as error:
        say(error.as_json())


def _closed_shape(shape: tuple[int, ...], layout: str, wanted: list[int] | None) -> tuple[int, ...]:
    """Fill dimensions that the file leaves open from `wanted` (N, C, H, W)."""
    if 0 not in shape:
        return shape
    if wanted is None or len(shape) != 4:
        raise PocketganError(
            "the file leaves its picture's size open", got=shape, fix="export it with a fixed --size"
        )
    ordered = wanted if layout == "NCHW" else [wanted[0], wanted[2], wanted[3], wanted[1]]
    return tuple(side or ordered[axis] for axis, side in enumerate(shape))


def main() -> None:
    """Keep the real standard output for answers; whatever the runtimes print goes to standard error."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _serve(json.loads(sys.argv[1]), sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
