"""Times networks on this machine for budgets of latency: whole exported files, and what makes up a table:
layers of a network that is pruned (`compressor.coronet.latency`), operators of a search space
(`compressor.agd.latency`). On a phone: `benchmarks.phone_meter`.
"""

from __future__ import annotations

import contextlib
import copy
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.latency import BenchResult, bench
from benchmarks.layer_times import KINDS, LayerShape, LayerTimes, LocalTimer, Timer
from benchmarks.operator_times import time_operators
from benchmarks.statistics import median_interval, speed_up
from compressor.coronet.latency import LayerTable, Measured
from compressor.errors import UsageError
from compressor.progress import Progress
from compressor.surgery import CONVOLUTIONS
from exporters.parity import THRESHOLDS
from exporters.result import USUAL

if TYPE_CHECKING:
    import torch
    from torch import nn

    from compressor.agd.latency import Alone
    from compressor.generators import Generator
    from compressor.graph import ChannelGraph

_CALIBRATION = 4  # pictures for INT8; the arithmetic takes as long whatever they show
_INT8_GOAL = 40.0
_OPERATORS = {
    "onnxruntime": 500,
    "litert": 150,
}  # timings of a search space; each is converted alone for litert


class LocalMeter:
    """This machine's CPU, one runtime, precision and number of threads; a `Meter` and an `OperatorMeter`.

    Args:
        runtime: "onnxruntime" or "litert".
        precision: "fp32", "fp16" or "int8".
        threads: threads per inference.
        images: pictures, for INT8 calibration.
        table: file of layer timings; the user's cache if None.
        rounds: timed inferences of each file in a comparison.
        max_seconds: a comparison's rounds stop early after this long.
    """

    def __init__(
        self,
        runtime: str,
        precision: str,
        threads: int,
        images: Sequence[Path],
        *,
        table: Path | None = None,
        rounds: int = 31,
        max_seconds: float = 120.0,
    ):
        if runtime not in KINDS:
            raise UsageError("there is no such runtime", got=runtime, allowed=", ".join(KINDS))
        if precision not in USUAL:
            raise UsageError("no latency is budgeted in this", got=precision, allowed=", ".join(USUAL))
        self.runtime, self.precision, self.threads = runtime, precision, threads
        self.images, self.rounds, self.max_seconds = list(images), rounds, max_seconds
        self.most = _OPERATORS[runtime]
        self.times = LayerTimes(self._timer(), table)
        self._wholes: dict[str, float] = {}
        self._files: dict[str, bytes] = {}

    @property
    def identity(self) -> Mapping[str, Any]:
        return {**self.times.identity, "precision": self.precision}

    def tables(self, generator: Generator, graph: ChannelGraph) -> Mapping[str, LayerTable]:
        """Each convolution's timings; those that the table lacks are measured, which takes seconds each."""
        sizes = input_sizes(generator)
        quantised = self._quantised(generator)
        parts = [(layer, generator.module.get_submodule(layer.name)) for layer in graph.convolutions()]
        wanted = [(layer, part) for layer, part in parts if isinstance(part, CONVOLUTIONS)]
        found = {}
        with Progress("layer times", len(wanted)) as progress, self._session():
            for done, (layer, part) in enumerate(wanted, 1):
                precision = self.precision
                if precision == "int8" and layer.name not in quantised:
                    precision = "fp32"
                tables = [
                    self._table(part, layer.kind, size, precision, *_grids(layer, graph))
                    for size in sizes[layer.name]
                ]
                first = tables[0]
                total = np.sum([table.nanoseconds for table in tables], axis=0)
                elements = sum(table.elements for table in tables)
                found[layer.name] = LayerTable(first.inputs, first.outputs, total, elements)
                progress.update(done, measured=self.times.measured)
        return found

    def operators(self, wanted: Sequence[Alone]) -> list[float]:
        with self._session():
            return time_operators(self.times, self.precision, wanted)

    def alone(self, generator: Generator) -> Measured:
        samples = self._timed({"alone": self._file(generator)})["alone"]
        middle, (low, high) = median(samples), median_interval(samples)
        return Measured(1e6 * middle, 1e6 * middle, 1.0, low / middle, high / middle)

    def whole(self, generator: Generator) -> float:
        if generator.sha256 not in self._wholes:
            samples = self._timed({"original": self._original(generator)})["original"]
            self._wholes[generator.sha256] = 1e6 * median(samples)
        return self._wholes[generator.sha256]

    def compare(self, original: Generator, candidate: Generator) -> Measured:
        files = {"original": self._original(original), "pruned": self._file(candidate)}
        samples = self._timed(files)
        before, after = samples["original"], samples["pruned"]
        ratio = speed_up(before, after)
        return Measured(
            1e6 * median(before), 1e6 * median(after), 1 / ratio.value, 1 / ratio.high, 1 / ratio.low
        )

    def _table(
        self,
        part: Any,
        kind: str,
        size: tuple[int, int],
        precision: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
    ) -> LayerTable:
        depthwise = kind == "depthwise"
        shape = layer_shape(part, size, precision, depthwise=depthwise)
        each = part.out_channels // part.in_channels  # results of every channel of a depthwise convolution
        if depthwise:
            inputs = (1,)
        rows = [[self.times(shape, b // each if depthwise else a, b) for b in outputs] for a in inputs]
        pixels, strides = size[0] * size[1], part.stride[0] * part.stride[1]
        elements = pixels * strides if shape.module == "transposed" else pixels // strides
        return LayerTable(tuple(inputs), tuple(outputs), np.array(rows), elements)

    def _quantised(self, generator: Generator) -> set[str]:
        """The layers that an INT8 file may hold as integers."""
        if self.precision != "int8":
            return set()
        import torch

        from compressor.quantisation.captured import capture
        from compressor.quantisation.layers import layers

        chosen, _ = layers(capture(generator.module, torch.zeros(generator.spec.image.input_shape)))
        return {layer.name for layer in chosen}

    def _original(self, generator: Generator) -> bytes:
        if generator.sha256 not in self._files:
            self._files[generator.sha256] = self._file(generator)
        return self._files[generator.sha256]

    def _file(self, generator: Generator) -> bytes:
        from exporters.job import Job

        images = self.images[:_CALIBRATION]
        job = Job(generator, generator.spec.image.size, images, images[:1], _INT8_GOAL)
        return job.make(KINDS[self.runtime], self.precision, THRESHOLDS[self.precision]).content

    def _timed(self, files: Mapping[str, bytes]) -> dict[str, Sequence[float]]:
        """Milliseconds of each file, in turns, each in a process of its own."""
        with contextlib.ExitStack() as stack:
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pocketgan-latency-")))
            for name, content in files.items():
                (place / name).mkdir()
                (place / name / f"generator-{self.precision}.{KINDS[self.runtime]}").write_bytes(content)
            result = self._bench([place / name for name in files], place / "bench")
            return {series.group: series.samples_ms for series in result.series}

    def _timer(self) -> Timer:
        return LocalTimer(self.runtime, self.threads)

    def _session(self) -> contextlib.AbstractContextManager[object]:
        """What is held while many layers are timed."""
        return contextlib.nullcontext()

    def _bench(self, folders: Sequence[Path], output: Path) -> BenchResult:
        return bench(
            folders,
            output=output,
            threads=[self.threads],
            rounds=self.rounds,
            max_seconds=self.max_seconds,
        )


def _grids(layer: Any, graph: ChannelGraph) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Widths to time: three powers of two up to the first that holds all channels, or the one fixed width.

    Powers of two are shared by layers and by the networks that pruning makes of one another. Of a convolution
    in groups, each group has such a width; of a depthwise one, its inputs.
    """
    grids: list[tuple[int, ...]] = []
    units = [layer.groups, layer.groups]
    if layer.kind == "depthwise":
        units = [1, len(layer.outputs) // len(layer.inputs)]
    for ids, unit in zip((layer.inputs, layer.outputs), units, strict=True):
        if layer.kind == "fixed" or not graph.prunable[ids].any():
            grids.append((len(ids),))
        else:
            top = 1 << max(0, len(ids) // unit - 1).bit_length()
            grids.append(tuple(unit * width for width in sorted({max(1, top // 4), max(1, top // 2), top})))
    return grids[0], grids[1]


def _size(picture: torch.Tensor) -> tuple[int, int]:
    height, width = picture.shape[2:]
    return (height, width)


def _padding(part: Any) -> tuple[int, int]:
    if part.padding == "valid":
        return (0, 0)
    if part.padding == "same":
        height, width = (d * (k - 1) // 2 for d, k in zip(part.dilation, part.kernel_size, strict=True))
        return (height, width)
    height, width = part.padding
    return (height, width)


def layer_shape(part: Any, size: tuple[int, int], precision: str, *, depthwise: bool) -> LayerShape:
    """One convolution of a network at one size of its input."""
    return LayerShape(
        module="transposed" if isinstance(part, CONVOLUTIONS[1]) else "conv",
        kernel=tuple(part.kernel_size),
        stride=tuple(part.stride),
        padding=_padding(part),
        dilation=tuple(part.dilation),
        output_padding=tuple(part.output_padding),
        depthwise=depthwise,
        groups=1 if depthwise else part.groups,
        bias=part.bias is not None,
        size=size,
        precision=precision,
    )


def input_sizes(generator: Generator) -> dict[str, list[tuple[int, int]]]:
    """Height and width of every convolution's input, for each of its uses."""
    import torch

    module: nn.Module = copy.deepcopy(generator.module).to("meta").eval()
    found: dict[str, list[tuple[int, int]]] = {}
    for name, part in module.named_modules():
        if isinstance(part, CONVOLUTIONS):
            found[name] = []
            part.register_forward_pre_hook(
                lambda _, args, name=name: found.setdefault(name, []).append(_size(args[0]))
            )
    with torch.no_grad():
        module(torch.empty(generator.spec.image.input_shape, device="meta"))
    return found
