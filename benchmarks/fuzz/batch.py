"""Batches of damaged inputs for readers, in this process: `python -m benchmarks.fuzz.batch`.

The process bounds its own memory, stops what takes too long, and watches for programs that a file starts.
The input being read lies in FOLDER/input, so that whoever started us finds it where we died of it.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.fuzz.target import Files, Target
from benchmarks.fuzz.weights import FORBIDDEN
from compressor.errors import PocketganError, missing_extra
from compressor.files import write_json
from compressor.memory import forget_peak, memory_mb

LONGEST = 20.0  # seconds of processor time for one input
MOST_MEMORY = 3 << 30  # bytes that all inputs together may add to the process
HELD_MB = 1024.0  # MiB of resident memory that one input may add
_FREE = 5  # first inputs without a bound of memory: what they import counts too
_STARTS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "subprocess.Popen")
_REPOSITORY = Path(__file__).resolve().parent.parent.parent


class _TooLong(BaseException):
    """An input used up its time; no `except Exception` may swallow that."""


class _RanCode(BaseException):
    """A reader started a program, or ran what a hostile pickle asked for."""


def run(target: Target, examples: int, seed: int, folder: Path) -> dict[str, Any]:
    """Read `examples` damaged inputs.

    Args:
        target: what reads.
        examples: inputs.
        seed: of hypothesis; with the same version of it, the same inputs.
        folder: gets input/, count, and findings/.

    Returns:
        inputs, accepted (read without complaint), refused, seconds, processor_seconds, added_mb (most MiB of
        resident memory that an input added) and findings: kind, place, message, count, input (folder).

    Raises:
        PocketganError: hypothesis is not installed.
    """
    try:
        import hypothesis
        from hypothesis import HealthCheck, Phase, Verbosity, given, settings
    except ImportError as error:
        raise missing_extra("hypothesis", "test") from error
    from click import ClickException

    place, began, busy = folder / "input", time.monotonic(), time.process_time()
    told: dict[str, Any] = {"inputs": 0, "accepted": 0, "refused": 0, "added_mb": 0.0}
    findings: dict[tuple[str, str], dict[str, Any]] = {}
    watch = _Watch()
    sys.addaudithook(watch.hear)

    def one(files: Files) -> None:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        for name, content in files.items():
            (place / name).write_bytes(content)
        (folder / "count").write_text(str(told["inputs"]))
        told["inputs"] += 1
        if told["inputs"] == _FREE:
            _bound_memory()
        forget_peak()
        before = memory_mb("VmRSS")
        try:
            with _limited(LONGEST), watch:
                target.read(place)
            told["accepted"] += 1
        except (PocketganError, ClickException):
            told["refused"] += 1
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            note(error)
        added = memory_mb("VmHWM") - before
        if told["inputs"] > _FREE:
            told["added_mb"] = max(told["added_mb"], round(added, 1))
            if added > HELD_MB:
                note(MemoryError(f"{added:.0f} MiB"))

    def note(error: BaseException) -> None:
        kind, where = type(error).__name__.lstrip("_"), _where(error)
        if (kind, where) not in findings:
            kept = folder / "findings" / str(len(findings))
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(place, kept)
            message = str(error)[:300]
            findings[kind, where] = {
                "kind": kind,
                "place": where,
                "message": message,
                "count": 0,
                "input": kept.name,
            }
        findings[kind, where]["count"] += 1

    quiet = settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
    )
    hypothesis.seed(seed)(quiet(given(target.inputs())(one)))()
    told["seconds"] = round(time.monotonic() - began, 1)
    told["processor_seconds"] = round(time.process_time() - busy, 1)
    return {**told, "findings": list(findings.values())}


class _Watch:
    """Hears of programs started, and of code of hostile pickles, while an input is read."""

    def __init__(self) -> None:
        self._open = False

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._open and (event in _STARTS or (event != "open" and FORBIDDEN in repr(arguments))):
            raise _RanCode(f"{event} {arguments!r}"[:200])

    def __enter__(self) -> None:
        self._open = True

    def __exit__(self, *_: object) -> None:
        self._open = False


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Stop what uses more processor time; what others do on the machine does not count."""

    def stop(*_: object) -> None:
        raise _TooLong(f"{seconds:g} s")

    earlier = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, earlier)


def _bound_memory() -> None:
    with contextlib.suppress(OSError, ValueError):  # no /proc: then HELD_MB alone is looked at
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * os.sysconf("SC_PAGE_SIZE") + MOST_MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _where(error: BaseException) -> str:
    """The innermost line of ours that an error went through."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if (
            path.is_relative_to(_REPOSITORY)
            and "fuzz" not in path.parts
            and "site-packages" not in path.parts
        ):
            return f"{path.relative_to(_REPOSITORY)}:{frame.lineno} {frame.name}"
    return "the reader itself"


def main() -> None:
    """FOLDER EXAMPLES SEED TARGET...: one batch of each, its result in FOLDER/TARGET/batch.json."""
    from benchmarks.fuzz.targets import TARGETS

    for name in sys.argv[4:]:
        folder = Path(sys.argv[1]) / name
        write_json(folder / "batch.json", run(TARGETS[name], int(sys.argv[2]), int(sys.argv[3]), folder))


if __name__ == "__main__":
    main()
