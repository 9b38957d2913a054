"""Single operators of a search space, exported as whole networks are and timed alone."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.layer_times import KINDS, LayerTimes
from benchmarks.resized import resizable, resized
from compressor.progress import Progress

if TYPE_CHECKING:
    import torch

    from compressor.agd.cost import Place
    from compressor.agd.latency import Alone

_SPAN = (-4.0, 4.0)  # what 8 bits span; the arithmetic takes as long whatever they do


def time_operators(times: LayerTimes, precision: str, wanted: Sequence[Alone]) -> list[float]:
    """Nanoseconds of each operator, from the file of timings or measured now.

    Args:
        times: the table of one device.
        precision: "fp32", "fp16" or "int8".
        wanted: the operators.
    """
    files, found = OperatorFiles(times.timer.runtime, precision), []
    with Progress("operator times", len(wanted)) as progress:
        for done, one in enumerate(wanted, 1):
            key = f"operator {precision} {one.signature}"
            found.append(times.of(key, functools.partial(files, one)))
            progress.update(done, measured=str(times.measured))
    return found


class OperatorFiles:
    """Contents of files that hold one operator each.

    Converting takes a second (ONNX) or several (TFLite). An ONNX file is converted once for each kind of
    operator and place and given other widths, where it can be.

    Args:
        runtime: "onnxruntime" or "litert".
        precision: "fp32", "fp16" or "int8"; in INT8 those convolutions are rounded that a whole network's
            would be: not its transposed ones, nor a network's first and last.
    """

    def __init__(self, runtime: str, precision: str):
        self.runtime, self.precision = runtime, precision
        self._converted: dict[tuple[Place, bool], Any] = {}
        self._names: dict[tuple[Place, bool], list[str]] = {}

    def __call__(self, one: Alone) -> bytes:
        from compressor.quantisation.ranges import Bounds
        from exporters import onnx, quantise_onnx, quantise_tflite, tflite
        from exporters.graph import capture
        from exporters.rewrite import rewrite_for

        spans = dict.fromkeys(self._rounded(one), Bounds(_SPAN, _SPAN)) if self.precision == "int8" else {}
        if KINDS[self.runtime] == "onnx":
            model = self._onnx(one)
            return onnx.finish(quantise_onnx.quantise(model, spans)[0] if spans else model, {})
        graph = capture(one.build(), _example(one))
        rewrite_for("litert", graph)
        content = tflite.convert(graph, _example(one))
        if spans:
            tree = tflite.read(content).subgraphs[0]
            if spans.keys() - {tensor.name.decode() for tensor in tree.tensors}:
                # A convolution whose activation is fused and ends the file has the output's name.
                spans[tree.tensors[int(tree.outputs[0])].name.decode()] = Bounds(_SPAN, _SPAN)
            return quantise_tflite.quantise(content, spans)[0]
        return quantise_tflite.half_weights(content) if self.precision == "fp16" else content

    def _onnx(self, one: Alone) -> Any:
        from exporters import onnx
        from exporters.graph import capture
        from exporters.rewrite import rewrite_for

        module = onnx.half_precision(one.build()) if self.precision == "fp16" else one.build()
        if (first := self._converted.get(one.structure)) is not None:
            return resized(first, module, one.inputs, one.outputs)
        graph = capture(module, _example(one))
        rewrite_for("onnxruntime", graph)
        model = onnx.convert(graph, _example(one))
        if resizable(model):
            self._converted[one.structure] = model
        return model

    def _rounded(self, one: Alone) -> list[str]:
        """Its convolutions that an INT8 file may hold as integers."""
        if one.structure not in self._names:
            self._names[one.structure] = _rounded(one)
        return self._names[one.structure]


def _rounded(one: Alone) -> list[str]:
    """The same, told by the operator between two others."""
    from torch import nn

    from compressor.quantisation.layers import layers
    from exporters.graph import capture, layer_name

    class Between(nn.Module):
        """A convolution before the operator if it is not the first, and one after if not the last."""

        def __init__(self) -> None:
            super().__init__()
            self.before = nn.Identity() if one.place.first else nn.Conv2d(one.inputs, one.inputs, 1)
            self.operator = one.build()
            self.after = nn.Identity() if one.place.last else nn.Conv2d(one.outputs, 1, 1)

        def forward(self, x: torch.Tensor) -> Any:
            return self.after(self.operator(self.before(x)))

    chosen, _ = layers(capture(Between().eval(), _example(one)))
    names = [layer_name(layer.node) for layer in chosen]
    return [name.removeprefix("operator.") for name in names if name.startswith("operator.")]


def _example(one: Alone) -> torch.Tensor:
    import torch

    return torch.randn(one.input_shape, generator=torch.Generator().manual_seed(0))
