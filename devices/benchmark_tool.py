"""Google's benchmark_model on a phone: which of its dialects a file speaks, what it is told, one run of it.

The program is the user's, given by path; what ran is recorded by its SHA-256. Its classic form
(TensorFlow Lite) and its newer one (LiteRT) share a set of flags, and differ in those of delegates.

https://ai.google.dev/edge/litert/models/measurement
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from compressor.errors import GateError, PocketganError, UsageError
from compressor.files import sha256
from devices.benchmark_model import BenchmarkModel, parse, require_full_delegation
from devices.transport import DeviceError, Workspace

DELEGATES = ("cpu", "gpu", "nnapi", "npu")
_FLAGS = {
    "classic": {"cpu": "--use_xnnpack=true", "gpu": "--use_gpu=true", "nnapi": "--use_nnapi=true"},
    "litert": {"cpu": "--use_cpu=true", "gpu": "--use_gpu=true", "npu": "--use_npu=true"},
}
_GET = "get Google's for Android on arm64: pocketgan data fetch benchmark_model"
_NOTHING_LEFT = ["--use_cpu=false", "--require_full_delegation=true"]  # for LiteRT's, besides our own look


@dataclass(frozen=True)
class Tool:
    """A benchmark_model program for phones.

    Attributes:
        path: on this machine. sha256: of its content.
        dialect: "classic" or "litert".
    """

    path: Path
    sha256: str
    dialect: str


def open_tool(path: Path) -> Tool:
    """Tell a program's dialect by the names of flags that it holds.

    Raises:
        PocketganError: there is no such file, or it is no benchmark_model.
    """
    if not path.is_file():
        raise PocketganError(
            f"there is no file {path}",
            fix=_GET,
        )
    content = path.read_bytes()
    if b"use_npu" in content:
        dialect = "litert"
    elif b"use_xnnpack" in content or b"use_nnapi" in content:
        dialect = "classic"
    else:
        raise PocketganError(
            f"{path.name} is no benchmark_model",
            got=f"{len(content):,} bytes without the names of its flags",
            fix=_GET,
        )
    return Tool(path, sha256(path), dialect)


def delegate_flags(tool: Tool, delegate: str, *, allow_fallback: bool = False) -> list[str]:
    """The flags that ask a tool for a delegate.

    Raises:
        UsageError: this dialect has no such delegate.
    """
    flags = _FLAGS[tool.dialect]
    if delegate not in flags:
        raise UsageError(
            f"this benchmark_model ({tool.dialect}) has no such delegate",
            got=delegate,
            allowed=", ".join(flags),
        )
    if tool.dialect == "classic" or delegate == "cpu":
        return [flags[delegate]]
    return [flags[delegate], *(["--use_cpu=true"] if allow_fallback else _NOTHING_LEFT)]


def run_tool(
    work: Workspace,
    tool: Tool,
    model: Path,
    *,
    delegate: str = "cpu",
    allow_fallback: bool = False,
    threads: int = 1,
    warmup: int = 1,
    runs: int = 5,
    affinity: int | None = None,
    timeout: float = 300.0,
) -> BenchmarkModel:
    """Load one file in a new process on the device and time it.

    Args:
        model: a .tflite file.
        delegate: one of DELEGATES. allow_fallback: it may leave operators to the processor.
        threads, warmup, runs: inside one inference; untimed and timed inferences.
        affinity: bit mask of the cores to stay on, or None.

    Raises:
        UsageError: the tool cannot run such a file, or has no such delegate.
        GateError: the accelerator took over nothing or a part only, and that is not allowed.
        DeviceError: the tool failed, or printed no latency.
        DeviceTimeout, DeviceLost: as `Transport.shell`.
    """
    if model.suffix.lower() != ".tflite":
        raise UsageError(f"benchmark_model cannot run {model.name}", allowed=".tflite")
    command = [work.push(tool.path, digest=tool.sha256), f"--graph={work.push(model)}"]
    command += [f"--num_threads={threads}", f"--num_runs={runs}", f"--warmup_runs={warmup}"]
    command += ["--min_secs=0", "--warmup_min_secs=0", f"--max_secs={timeout:.0f}"]
    command += ["--report_peak_memory_footprint=true"] if tool.dialect == "classic" else []
    command += delegate_flags(tool, delegate, allow_fallback=allow_fallback)
    pinned = ["taskset", f"{affinity:x}", *command] if affinity else command
    done = work.transport.shell(pinned, timeout=timeout, cwd=work.folder)
    said = done.stderr.decode("utf-8", "replace") + "\n" + done.text
    if done.code:
        last = next((line.strip() for line in reversed(said.splitlines()) if line.strip()), "nothing")
        raise DeviceError(
            f"benchmark_model failed on {model.name}",
            got=f"exit code {done.code}: {''.join(letter for letter in last if letter.isprintable())[:300]}",
            fix="try another --delegate, or run it by hand on the phone",
        )
    result = parse(said)
    if delegate != "cpu" and not allow_fallback:
        try:
            require_full_delegation(result)
        except GateError as error:
            raise GateError(
                f"{model.name}: {error.what}", got=error.got, allowed=error.allowed, fix=error.fix
            ) from None
    return result
