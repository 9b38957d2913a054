"""The arm64 runner on a device: brought there, tested with a known answer, and run.

The program prints one JSON document. Nothing of it is believed unless all of it is there and in range,
and an output fetched for parity must have the checksum that the program printed.
"""

from __future__ import annotations

import json
import math
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compressor.errors import GateError, UsageError
from devices.runner.bundle import Bundle
from devices.transport import DeviceError, DeviceLost, Workspace

FORMAT = "pocketgan.runner/1"
_TYPES = ("float32", "float16", "int8", "uint8")
_SUFFIXES: Mapping[str, str] = {"onnxruntime": ".onnx", "litert": ".tflite"}


@dataclass(frozen=True)
class Measured:
    """One run of the program: one file, one process.

    Attributes:
        runtime, version, threads: what ran.
        init_ms: opening the runtime and loading the file. first_ms: the first inference.
        warmup_ms, samples_ms: the inferences after it, the runtime's run call alone.
        peak_rss_kb, base_rss_kb: peak resident set, and the set before the runtime was opened.
        process_threads: threads the process had at the end.
        input_shape, input_dtype, output_shape, output_dtype: of the tensors.
        output_fnv1a64: checksum of the output's bytes.
        fully_accelerated: LiteRT: XNNPACK runs all operators; None for ONNX Runtime.
        emulated: no arm64 processor ran this; its times mean nothing.
    """

    runtime: str
    version: str
    threads: int
    init_ms: float
    first_ms: float
    warmup_ms: tuple[float, ...]
    samples_ms: tuple[float, ...]
    peak_rss_kb: int
    base_rss_kb: int
    process_threads: int
    input_shape: tuple[int, ...]
    input_dtype: str
    output_shape: tuple[int, ...]
    output_dtype: str
    output_fnv1a64: str
    fully_accelerated: bool | None
    emulated: bool

    def as_json(self) -> dict[str, Any]:
        """The measurement as one JSON object."""
        return asdict(self)


class Runner:
    """One runtime on one device, for the length of a session.

    Args:
        work: the session on the device.
        bundle: what `devices.runner.bundle.prepare` gathered.
        allow_emulated: run on an emulated processor too; its results stay marked.

    Attributes:
        tested: what the self-test measured.

    Raises:
        DeviceError: the program does not run there, or its self-test gives a wrong answer.
        GateError: the processor is emulated, and that was not asked for.
    """

    def __init__(self, work: Workspace, bundle: Bundle, *, allow_emulated: bool = False):
        self.work, self.bundle = work, bundle
        loader, runner, library = (work.push(path) for path in (bundle.loader, bundle.runner, bundle.library))
        folders = [work.push(path).rpartition("/")[0] for path in bundle.libraries]
        self._command = [loader, "--library-path", ":".join(folders), runner]
        self._command += ["--runtime", bundle.runtime, "--library", library]
        self.tested = self.self_test()
        if self.tested.emulated and not allow_emulated:
            raise GateError(
                f"{work.transport.serial} emulates its processor, so its times would mean nothing",
                fix="measure on a real phone, or ask for emulated times: --allow-emulated",
            )

    def measure(
        self,
        model: Path,
        values: np.ndarray,
        *,
        threads: int = 1,
        warmup: int = 1,
        runs: int = 10,
        affinity: int | None = None,
        timeout: float = 300.0,
        with_output: bool = False,
    ) -> tuple[Measured, np.ndarray | None]:
        """Load one file in a new process on the device and time it.

        Args:
            model: an exported file of this runtime.
            values: the input, of the file's own shape and type.
            threads: threads inside one inference.
            warmup, runs: untimed and timed inferences after the first.
            affinity: bit mask of the cores to stay on, or None.
            with_output: also fetch what the last inference gave.

        Returns:
            The measurement, and the output if it was asked for.

        Raises:
            DeviceError: the program failed, or what it printed is damaged.
            DeviceTimeout, DeviceLost: as `Transport.shell`.
        """
        suffix = _SUFFIXES[self.bundle.runtime]
        if model.suffix.lower() != suffix:
            raise UsageError(f"{self.bundle.runtime} cannot run {model.name}", allowed=suffix)
        with tempfile.TemporaryDirectory() as scratch:
            raw = Path(scratch) / "input.raw"
            raw.write_bytes(np.ascontiguousarray(values).tobytes())
            command = [*self._command, "--model", self.work.push(model), "--input", self.work.push(raw)]
            command += ["--shape", ",".join(map(str, values.shape)), "--threads", str(threads)]
            command += ["--warmup", str(warmup), "--runs", str(runs)]
            name = f"output-{uuid.uuid4().hex[:12]}.raw"
            command += ["--output", f"{self.work.folder}/{name}"] if with_output else []
            pinned = ["taskset", f"{affinity:x}", *command] if affinity else command
            done = self.work.transport.shell(pinned, timeout=timeout, cwd=self.work.folder)
            measured = parse(done.text, done.code, done.stderr, warmup=warmup, runs=runs)
            if measured.input_dtype != values.dtype.name:
                raise UsageError(
                    f"{model.name} takes other elements", got=values.dtype.name, allowed=measured.input_dtype
                )
            if not with_output:
                return measured, None
            self.work.pull(name, Path(scratch) / name)
            data = (Path(scratch) / name).read_bytes()
            self.work.transport.shell(["rm", "-f", f"{self.work.folder}/{name}"])
        if fnv1a64(data) != measured.output_fnv1a64:
            raise DeviceError("the output did not arrive as the device computed it", fix="try again")
        return measured, np.frombuffer(data, measured.output_dtype).reshape(measured.output_shape)

    def self_test(self) -> Measured:
        """Run a tiny network whose answer is known: max(0, W x + b), a 1x1 convolution."""
        model = Path(__file__).parent / f"selftest{_SUFFIXES[self.bundle.runtime]}"
        values, expected = known_answer(self.bundle.runtime)
        measured, output = self.measure(model, values, runs=1, with_output=True, timeout=60)
        if output is None or output.shape != expected.shape or not np.allclose(output, expected, atol=1e-5):
            raise DeviceError(
                f"{self.bundle.runtime} computes wrong answers on {self.work.transport.serial}",
                fix="use another phone; its results cannot be trusted",
            )
        return measured


def known_answer(runtime: str) -> tuple[np.ndarray, np.ndarray]:
    """The self-test's input and its answer, in the runtime's layout (NCHW, NHWC for LiteRT)."""
    weight = np.array([[1, 0.5, -0.25], [-1, 2, 0.125]], np.float32)
    bias = np.array([0.5, -1], np.float32)
    values = ((np.arange(48, dtype=np.float32) * 29) % 48 - 24).reshape(1, 4, 4, 3) / 8
    answer = np.maximum(values @ weight.T + bias, 0)
    if runtime == "litert":
        return values, answer
    return values.transpose(0, 3, 1, 2).copy(), answer.transpose(0, 3, 1, 2)


def parse(text: str, code: int, stderr: bytes, *, warmup: int, runs: int) -> Measured:
    """The program's JSON document, checked.

    Raises:
        DeviceLost: there is no whole document.
        DeviceError: the program says what went wrong, or the figures are out of range.
    """
    last = next((line for line in reversed(text.splitlines()) if line.strip()), "")
    try:
        document = json.loads(last)
    except (ValueError, RecursionError) as error:
        said = stderr.decode("utf-8", "replace").strip().splitlines()
        raise DeviceLost(
            "the runner ended without a result",
            got=f"exit code {code}" + (f": {said[-1][:300]}" if said else ""),
            fix="memory may have run out on the phone: close its apps, or try a smaller file",
        ) from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise DeviceError("the runner printed something else", got=last[:200])
    if "error" in document:
        raise DeviceError("the runner failed", got=str(document["error"])[:500])
    try:
        measured = Measured(
            runtime=str(document["runtime"]),
            version=str(document["version"])[:64],
            threads=_count(document["threads"]),
            init_ms=_time(document["init_ms"]),
            first_ms=_time(document["first_ms"]),
            warmup_ms=tuple(_time(value) for value in document["warmup_ms"]),
            samples_ms=tuple(_time(value) for value in document["samples_ms"]),
            peak_rss_kb=_count(document["peak_rss_kb"]),
            base_rss_kb=_count(document["base_rss_kb"]),
            process_threads=_count(document["process_threads"]),
            input_shape=tuple(_count(side) for side in document["input"]["shape"]),
            input_dtype=_type(document["input"]["dtype"]),
            output_shape=tuple(_count(side) for side in document["output"]["shape"]),
            output_dtype=_type(document["output"]["dtype"]),
            output_fnv1a64=str(document["output_fnv1a64"])[:16],
            fully_accelerated=document.get("fully_accelerated"),
            emulated=document["emulated"] is not False,
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DeviceError("the runner's result is damaged", got=repr(error)[:200]) from error
    if code or len(measured.warmup_ms) != warmup or len(measured.samples_ms) != runs:
        raise DeviceError(
            "the runner's result is not whole",
            got=f"exit code {code}, {len(measured.warmup_ms)} and {len(measured.samples_ms)} runs",
            allowed=f"exit code 0, {warmup} and {runs} runs",
        )
    return measured


def fnv1a64(data: bytes) -> str:
    """The 64-bit FNV-1a checksum in hex. (http://www.isthe.com/chongo/tech/comp/fnv)"""
    value = 14695981039346656037
    for byte in data:
        value = ((value ^ byte) * 1099511628211) & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def _time(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError(f"no time: {value!r}")
    return float(value)


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 48:
        raise ValueError(f"no count: {value!r}")
    return value


def _type(value: object) -> str:
    if value not in _TYPES:
        raise ValueError(f"no element type: {value!r}")
    return str(value)
