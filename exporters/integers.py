"""Files whose convolutions run on integers: static and dynamic INT8, and w8a16.

Static INT8 follows a plan (`exporters.int8`). The other two search nothing: in float stay the convolutions
that stay so before a plan's search, the first, the last and transposed ones. Dynamic INT8 leaves grouped ones
too: XNNPACK has no kernel for them, onnxruntime a slow one.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from compressor.quantisation.layers import layers
from exporters import graph as g
from exporters import onnx as onnx_files
from exporters import quantise_onnx, quantise_tflite
from exporters import tflite as tflite_files
from exporters.bias import correct
from exporters.byte_pictures import take_bytes
from exporters.made import Made
from exporters.rewrite import normalise, rewrite_for
from exporters.simulate import observe

if TYPE_CHECKING:
    import onnx
    from torch import fx

    from exporters.job import Job

WIDE_OPSET = 21
"""The first of ONNX's opsets that quantises to 16 bits."""

_HALF_FROM = 4096  # float weights of so many numbers or more are stored as float16
_SLOW = {
    "onnx": "onnxruntime has no integer kernels for 16-bit activations: it computes in float32, so this file "
    "is smaller, not faster",
    "tflite": "XNNPACK has no kernels for 16-bit activations: LiteRT's own run them, slowly",
}


def static(job: Job, kind: str) -> Made:
    """INT8 as the job's plan has it.

    Args:
        job: the generator.
        kind: "onnx" or "tflite".

    Raises:
        PocketganError: a converter failed.
    """
    plan = job.plan
    told = {"trade": plan.trade}
    if kind == "onnx":
        graph, notes = job.equalised_for(job.multiple) if job.dynamic else job.equalised
        graph = copy.deepcopy(graph)
        correct(graph, plan.shifts)
        rounded, found = quantise_onnx.quantise(job.to_onnx(graph), plan.bounds)
        told |= _told(plan.bounds, plan.kept, found, *notes, *plan.notes)
        return job.onnx_file(_halved(rounded), "int8-static", **told)
    graph, notes = job.equalised
    graph = copy.deepcopy(graph)
    correct(graph, plan.shifts)
    rewrite_for("litert", graph)
    if job.io != "float32":
        take_bytes(graph, job.input_range, job.output_range)
    model = tflite_files.convert(graph, job.example)
    content, found = quantise_tflite.quantise(model, plan.bounds, io=job.io)
    told |= _told(plan.bounds, plan.kept, found, *notes, *plan.notes)
    return job.tflite_file(content, "int8-static", io=job.io, **told)


def dynamic(job: Job, kind: str) -> Made:
    """INT8 whose activations are rounded by each picture's own range; arguments as `static`."""
    graph = _graph(job)
    chosen, kept = layers(graph)
    grouped = [layer.name for layer in chosen if g.argument(layer.node, 6, 1) != 1]
    names = [layer.name for layer in chosen if layer.name not in grouped]
    if kind == "onnx":
        model, found = quantise_onnx.dynamic(job.onnx_model, names)
        return job.onnx_file(_halved(model), "int8-dynamic", **_told(names, [*kept, *grouped], found))
    content, found = quantise_tflite.dynamic(job.tflite_model, names)
    return job.tflite_file(content, "int8-dynamic", **_told(names, [*kept, *grouped], found))


def wide(job: Job, kind: str) -> Made:
    """w8a16: 16-bit activations span all that calibration pictures show; arguments as `static`."""
    graph = _graph(job)
    chosen, kept = layers(graph)
    bounds = observe(graph, chosen, job.inputs(job.calibrate)).bounds("minmax")
    if kind == "onnx":
        opset = max(job.opset, WIDE_OPSET)
        whole = job.onnx_model if opset == job.opset else job.to_onnx(job.graph(job.multiple), opset)
        model, found = quantise_onnx.quantise(whole, bounds, bits=16)
        return job.onnx_file(_halved(model), "w8a16", **_told(bounds, kept, found, _SLOW[kind]))
    content, found = quantise_tflite.quantise(job.tflite_model, bounds, bits=16)
    return job.tflite_file(content, "w8a16", **_told(bounds, kept, found, _SLOW[kind]))


def _graph(job: Job) -> fx.GraphModule:
    graph = job.graph()
    normalise(graph)
    return graph


def _halved(model: onnx.ModelProto) -> onnx.ModelProto:
    return onnx_files.store_half(model, at_least=_HALF_FROM)


def _told(names: Collection[str], kept: Collection[str], found: set[str], *notes: str) -> dict[str, Any]:
    """What to say of a file: layers that lost their name in conversion stayed float too."""
    lost = [name for name in names if name not in found]
    if lost:
        notes = (f"{len(lost)} layers stayed float, since they could not be told apart in the file", *notes)
    return {"notes": notes, "float_layers": (*kept, *lost)}
