"""Times layers, operators and whole networks on a phone, for budgets of latency; tables are filled from here.

The same runner, cooling and turns as `benchmarks.on_phone`. A table goes by the kind of phone (model, chip,
system build), not by its serial, so that a twin may go on with it.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.latency_meter import LocalMeter
from benchmarks.on_phone import bench_on_phone
from benchmarks.phone_session import mask_of
from benchmarks.samples import BenchResult
from compressor.files import sha256
from devices.heat import cool_down
from devices.phone import facts
from devices.runner.bundle import prepare
from devices.runner.run import Runner
from devices.runtimes import open_session
from devices.transport import DeviceError, Transport, Workspace

if TYPE_CHECKING:
    from compressor.agd.space import SearchSpace
    from compressor.generators import Generator

_WARMUP, _RUNS = 3, 20  # of one layer or operator
_SECONDS = 120.0  # that these may take


class PhoneTimer:
    """A phone's processor; a `Timer` of `benchmarks.layer_times`.

    A context manager that may be entered again: the runner stays on the phone until the outermost is left.

    Args:
        device: the phone.
        runtime: "onnxruntime" or "litert".
        threads: threads of an inference.
        cores: "all", or "fast" for the fastest cluster only.
        allow_emulated: take times of an emulated processor; their table is one of its own.

    Raises:
        GateError: the processor is emulated, and that was not asked for.
        DeviceError: the phone failed.
    """

    def __init__(
        self,
        device: Transport,
        runtime: str,
        threads: int = 1,
        *,
        cores: str = "all",
        allow_emulated: bool = False,
    ):
        self.device, self.runtime, self.threads = device, runtime, threads
        self._allow_emulated, self._depth, self._stack = allow_emulated, 0, contextlib.ExitStack()
        self._runner: Runner | None = None
        self._bundle, known = prepare(runtime), facts(device)
        self._mask = mask_of(known, cores)
        with self:
            emulated = self._opened().tested.emulated
        self.identity: Mapping[str, Any] = {
            **{"phone": f"{known.maker} {known.model}".strip(), "chip": known.chip, "soc": known.soc},
            **{"build": known.fingerprint, "cores": cores},
            **{"runtime": runtime, "version": self._bundle.version, "threads": threads},
            **({"emulated": True} if emulated else {}),
        }

    def __enter__(self) -> PhoneTimer:
        self._depth += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._runner = None
            self._stack.close()

    def time(self, path: Path) -> float:
        """Median nanoseconds of one inference, the phone cooled before; nothing of the file stays there."""
        session = open_session(path)
        shape = [side or 1 for side in session.input_shape]
        values = session.encode(np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32))
        with self:
            runner = self._opened()
            cool_down(self.device)
            try:
                measured, _ = runner.measure(
                    path,
                    values,
                    threads=self.threads,
                    warmup=_WARMUP,
                    runs=_RUNS,
                    affinity=self._mask,
                    timeout=_SECONDS,
                )
            finally:
                self._forget(sha256(path), hashlib.sha256(values.tobytes()).hexdigest())
        return 1e6 * median(measured.samples_ms)

    def _opened(self) -> Runner:
        if self._runner is None:
            work = self._stack.enter_context(Workspace(self.device))
            self._runner = Runner(work, self._bundle, allow_emulated=self._allow_emulated)
        return self._runner

    def _forget(self, *digests: str) -> None:
        """Hundreds of files and their inputs would fill the phone."""
        with contextlib.suppress(DeviceError):  # never hides why a measurement failed
            self.device.shell(["rm", "-rf", *(f"{self.device.root}/objects/{digest}" for digest in digests)])


class PhoneMeter(LocalMeter):
    """A phone's processor, one runtime, precision and number of threads.

    Args:
        device: the phone.
        cores, allow_emulated: see `PhoneTimer`.
        runtime, precision, threads, images, options: see `LocalMeter`.
    """

    def __init__(
        self,
        device: Transport,
        runtime: str,
        precision: str,
        threads: int,
        images: Sequence[Path],
        *,
        cores: str = "all",
        allow_emulated: bool = False,
        **options: Any,
    ):
        self.device, self._cores, self._allow_emulated = device, cores, allow_emulated
        super().__init__(runtime, precision, threads, images, **options)

    def _timer(self) -> PhoneTimer:
        self._phone = PhoneTimer(
            self.device, self.runtime, self.threads, cores=self._cores, allow_emulated=self._allow_emulated
        )
        return self._phone

    def _session(self) -> PhoneTimer:
        return self._phone

    def _bench(self, folders: Sequence[Path], output: Path) -> BenchResult:
        return bench_on_phone(
            folders,
            self.device,
            output=output,
            threads=[self.threads],
            rounds=self.rounds,
            max_seconds=self.max_seconds,
            cores=self._cores,
            allow_emulated=self._allow_emulated,
        )


@dataclass(frozen=True)
class Profiled:
    """What `profile` found.

    Attributes:
        table: the file.
        device: whose timings these are.
        measured: timings taken now.
        spaces: by name, nanoseconds of the cheapest and the dearest network as their operators sum up.
        layers: by name, how many layers of a generator have their timings.
        seconds: it took.
    """

    table: Path
    device: Mapping[str, Any]
    measured: int
    spaces: Mapping[str, tuple[float, float]]
    layers: Mapping[str, int]
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """All of it as one JSON object."""
        return {**vars(self), "table": str(self.table), "device": dict(self.device)}


def profile(
    meter: LocalMeter, spaces: Sequence[SearchSpace] = (), generators: Sequence[Generator] = ()
) -> Profiled:
    """Fill a device's table with what searches in some spaces and prunings of some generators look up.

    Every timing is kept as it comes: after an interruption the same call goes on.

    Raises:
        DeviceError: the phone failed.
    """
    from compressor.agd.latency import latency_table
    from compressor.graph import trace

    began = time.monotonic()
    ranges, layers = {}, {}
    for space in spaces:
        low, high = latency_table(space, meter.operators, most=meter.most).range()
        ranges[space.name] = (float(low), float(high))
    for generator in generators:
        graph = trace(generator.module, generator.spec.image.input_shape)
        layers[str(generator.path)] = len(meter.tables(generator, graph))
    times = meter.times
    return Profiled(times.file, meter.identity, times.measured, ranges, layers, time.monotonic() - began)
