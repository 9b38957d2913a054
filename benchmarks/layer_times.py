"""Timings of single layers on one device, each measured once and kept in a file.

A layer is exported alone, at some widths and one picture size, as its network would be (rewrites, precision
and all), and timed in its real runtime. What is kept goes by device: this machine's id is made of its
processor, cores, runtime, runtime's version and threads, so timings are never used where they were not
taken. A phone is one more `Timer`, with an id of its own (`benchmarks.phone_meter`).
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from benchmarks.resized import resizable, resized
from compressor.errors import UsageError
from compressor.files import read_json, write_json

if TYPE_CHECKING:
    from torch import nn

FORMAT = "pocketgan.layer_times/1"
KINDS = {"onnxruntime": "onnx", "litert": "tflite"}
_FEWEST, _MOST, _SECONDS = 7, 60, 0.15  # runs of one layer, and for how long it is run


class Timer(Protocol):
    """A device that can run a file."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What the timings depend on beside the file; JSON types."""

    @property
    def runtime(self) -> str:
        """ "onnxruntime" or "litert"."""

    def time(self, path: Path) -> float:
        """Median nanoseconds of one inference."""


@dataclass(frozen=True)
class LocalTimer:
    """This machine's CPU.

    Attributes:
        runtime: "onnxruntime" or "litert".
        threads: threads an operator may use.
    """

    runtime: str
    threads: int = 1

    @property
    def identity(self) -> Mapping[str, Any]:
        from devices.host import facts
        from devices.runtimes import versions

        host = facts()
        return {
            **{"cpu": host.cpu, "architecture": host.architecture, "usable_cores": host.usable_cores},
            **{"runtime": self.runtime, "version": versions().get(self.runtime, "unknown")},
            "threads": self.threads,
        }

    def time(self, path: Path) -> float:
        from devices.runtimes import open_session

        session = open_session(path, self.threads)
        shape = [side or 1 for side in session.input_shape]
        values = session.encode(np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32))
        session.run(values)
        taken: list[int] = []
        until = time.monotonic() + _SECONDS
        while len(taken) < _FEWEST or (len(taken) < _MOST and time.monotonic() < until):
            began = time.perf_counter_ns()
            session.run(values)
            taken.append(time.perf_counter_ns() - began)
        return float(median(taken))


@dataclass(frozen=True)
class LayerShape:
    """One convolution at one place of a network.

    Attributes:
        module: "conv" or "transposed".
        kernel, stride, padding, dilation, output_padding: as PyTorch has them.
        depthwise: as many groups as channels; inputs equal outputs.
        groups: of a grouped convolution that is not depthwise; 1 otherwise.
        bias: there is one.
        size: height and width of its input.
        precision: "fp32", "fp16" or "int8".
    """

    module: str
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    output_padding: tuple[int, int]
    depthwise: bool
    groups: int
    bias: bool
    size: tuple[int, int]
    precision: str

    def key(self, inputs: int, outputs: int) -> str:
        """A name that says all of it."""
        groups = inputs if self.depthwise else self.groups
        pairs = {
            **{"k": self.kernel, "s": self.stride, "p": self.padding, "d": self.dilation},
            "o": self.output_padding,
        }
        shape = " ".join(f"{name}{a}x{b}" for name, (a, b) in pairs.items())
        bias = " bias" if self.bias else ""
        return (
            f"{self.module} {self.precision} {shape} g{groups}{bias} {inputs}->{outputs} "
            f"at {self.size[0]}x{self.size[1]}"
        )

    def build(self, inputs: int, outputs: int) -> nn.Module:
        """The layer with fresh weights, in a network of its own."""
        from torch import nn

        settings: dict[str, Any] = {
            **{"kernel_size": self.kernel, "stride": self.stride, "padding": self.padding},
            **{"dilation": self.dilation, "bias": self.bias},
            "groups": inputs if self.depthwise else self.groups,
        }
        if self.module == "transposed":
            settings["output_padding"] = self.output_padding
            return nn.Sequential(nn.ConvTranspose2d(inputs, outputs, **settings)).eval()
        return nn.Sequential(nn.Conv2d(inputs, outputs, **settings)).eval()


class LayerTimes:
    """The table of one device; new timings are written to the file as they come."""

    def __init__(self, timer: Timer, file: Path | None = None):
        self.timer, self.file = timer, file or default_file()
        self.identity = dict(timer.identity)
        self.device = " ".join(f"{name}={value}" for name, value in self.identity.items())
        self._latest: _Exports | None = None
        self.measured = 0  # timings taken by this object
        self._known = self._read().get(self.device, {}).get("nanoseconds", {})

    def __call__(self, shape: LayerShape, inputs: int, outputs: int) -> float:
        """Nanoseconds of the layer at these widths, from the file or measured now."""
        return self.of(shape.key(inputs, outputs), lambda: self._exports(shape)(inputs, outputs))

    def of(self, key: str, make: Callable[[], bytes]) -> float:
        """Nanoseconds of anything that goes by a name, from the file or measured now.

        Args:
            key: says all that its time depends on beside the device.
            make: its file's content for the timer's runtime.
        """
        if key not in self._known:
            with tempfile.TemporaryDirectory(prefix="pocketgan-layer-") as folder:
                path = Path(folder) / f"layer.{KINDS[self.timer.runtime]}"
                path.write_bytes(make())
                self._known[key] = self.timer.time(path)
            self.measured += 1
            self._write()
        return float(self._known[key])

    def _exports(self, shape: LayerShape) -> _Exports:
        if self._latest is None or self._latest.shape != shape:
            self._latest = _Exports(shape, self.timer.runtime)
        return self._latest

    def _read(self) -> dict[str, Any]:
        if not self.file.exists():
            return {}
        document = read_json(self.file)
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise UsageError(
                f"{self.file} is no table of layer timings",
                allowed=FORMAT,
                fix="give another --latency-table",
            )
        devices: dict[str, Any] = document["devices"]
        return devices

    def _write(self) -> None:
        devices = self._read()  # another process may have written since
        self._known = {**devices.get(self.device, {}).get("nanoseconds", {}), **self._known}
        devices[self.device] = {"identity": self.identity, "nanoseconds": dict(sorted(self._known.items()))}
        write_json(self.file, {"format": FORMAT, "devices": devices})


def default_file() -> Path:
    """layer_times.json in the user's cache folder (XDG_CACHE_HOME, else ~/.cache)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pocketgan" / "layer_times.json"


class _Exports:
    """Files of one layer at several widths, made as the exporters make whole networks.

    Converting takes seconds. An ONNX file that holds the convolution alone is converted once and given
    other widths (`benchmarks.resized`).
    """

    def __init__(self, shape: LayerShape, runtime: str):
        self.shape, self.kind = shape, KINDS[runtime]
        self._first: Any = None

    def __call__(self, inputs: int, outputs: int) -> bytes:
        from compressor.quantisation.ranges import Bounds
        from exporters import onnx, quantise_onnx, quantise_tflite

        spans = Bounds((-4.0, 4.0), (-4.0, 4.0))
        precision = self.shape.precision
        if self.kind == "onnx":
            model = self._onnx(inputs, outputs)
            if precision == "int8":
                model, _ = quantise_onnx.quantise(model, {"0": spans})
            return onnx.finish(model, {})
        content = self._tflite(inputs, outputs)
        if precision == "int8":
            return quantise_tflite.quantise(content, dict.fromkeys(_results(content), spans))[0]
        return quantise_tflite.half_weights(content) if precision == "fp16" else content

    def _tflite(self, inputs: int, outputs: int) -> bytes:
        from exporters import tflite
        from exporters.graph import capture
        from exporters.rewrite import rewrite_for

        graph = capture(self.shape.build(inputs, outputs), self._example(inputs))
        rewrite_for("litert", graph)
        return tflite.convert(graph, self._example(inputs))

    def _onnx(self, inputs: int, outputs: int) -> Any:
        from exporters import onnx
        from exporters.graph import capture
        from exporters.rewrite import rewrite_for

        module, example = self.shape.build(inputs, outputs), self._example(inputs)
        if self.shape.precision == "fp16":
            module = onnx.half_precision(module)
        if self._first is not None:
            return resized(self._first, module, inputs, outputs)
        graph = capture(module, example)
        rewrite_for("onnxruntime", graph)
        model = onnx.convert(graph, example)
        if resizable(model) and self.shape.groups == 1 and not self.shape.depthwise:
            self._first = model
        return model

    def _example(self, inputs: int) -> Any:
        import torch

        return torch.randn(1, inputs, *self.shape.size, generator=torch.Generator().manual_seed(0))


def _results(content: bytes) -> list[str]:
    """Names of the convolutions' results in a TFLite file; a lone layer's is the file's output's."""
    from exporters import tflite

    tree = tflite.read(content)
    tensors = tree.subgraphs[0].tensors
    return [
        tensors[int(operator.outputs[0])].name.decode()
        for operator in tree.subgraphs[0].operators
        if tflite.operation(tree, operator) in tflite.CONVOLUTIONS
    ]
