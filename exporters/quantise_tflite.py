"""FP16 weights and static INT8 for TFLite, by ai-edge-quantizer with our own statistics.

Its own calibration is a moving average that depends on the order of the pictures; ours is handed
over ready. Convolutions alone run on integers, with the first, the last and the transposed ones
left in float: quantised norms leave the delegate, and those three cost most of the picture.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from exporters import tflite
from exporters.calibration import Ranges
from exporters.chatter import kept_quiet
from exporters.runtime import tflite_interpreter

_HALF_FROM = 4096  # float layers of so many weights or more are stored as float16 in an INT8 file


def half_weights(model: bytes) -> bytes:
    """The model with its constants stored as float16; arithmetic stays float32 where it was."""
    recipe: list[dict[str, Any]] = [_casting(".*", "*")]
    return _quantised(model, recipe, None, "storing half weights")


def convolutions(model: bytes) -> tuple[list[str], list[str]]:
    """Names of the convolutions to quantise, and of those kept float.

    Kept float: transposed ones, the first (no convolution before it), the last (none after it) and
    those that see a single pixel. Where that is all there are, all but transposed ones are quantised.
    """
    tree = tflite.read(model)
    graph = tree.subgraphs[0]
    kinds = [tflite.operation(tree, operator) for operator in graph.operators]
    makers = {int(out): index for index, op in enumerate(graph.operators) for out in op.outputs}
    after_one: set[int] = set()  # operators with a convolution somewhere before them
    before_one: set[int] = set()
    order = range(len(kinds))  # a TFLite file lists operators in the order they run
    for index in order:
        entries = [makers[int(i)] for i in graph.operators[index].inputs if int(i) in makers]
        if any(e in after_one or kinds[e] in tflite.CONVOLUTIONS for e in entries):
            after_one.add(index)
    for index in reversed(order):
        if index in before_one or kinds[index] in tflite.CONVOLUTIONS:
            before_one |= {makers[int(i)] for i in graph.operators[index].inputs if int(i) in makers}

    everything = [i for i in order if kinds[i] in ("CONV_2D", "DEPTHWISE_CONV_2D")]
    chosen = [
        i
        for i in everything
        if i in after_one and i in before_one and not _one_pixel(graph, graph.operators[i])
    ] or everything
    transposed = [i for i in order if kinds[i] == "TRANSPOSE_CONV"]

    def names(operators: Iterable[int]) -> list[str]:
        return [graph.tensors[int(graph.operators[i].outputs[0])].name.decode() for i in operators]

    return names(chosen), names(sorted({*everything, *transposed} - {*chosen}))


def measure(model: bytes, names: Iterable[str], pictures: Iterable[np.ndarray]) -> Ranges:
    """The ranges of all tensors that quantising these convolutions would round.

    Args:
        model: in float.
        names: of convolutions.
        pictures: inputs (1, C, H, W); one is held at a time.
    """
    tensors = _rounded(model, names)
    interpreter = tflite_interpreter(model, keep_tensors=True)
    entry = interpreter.get_input_details()[0]["index"]
    ranges = Ranges()
    for picture in pictures:
        interpreter.set_tensor(entry, np.ascontiguousarray(np.moveaxis(picture, 1, 3)))
        interpreter.invoke()
        for name, index in tensors.items():
            ranges.update_tensor(name, interpreter.get_tensor(index))
    return ranges


def quantise(
    model: bytes, names: Iterable[str], kept: Iterable[str], bounds: Mapping[str, tuple[float, float]]
) -> bytes:
    """The model with the named convolutions in int8; large float ones keep their weights as float16.

    Args:
        model: in float.
        names: the convolutions to quantise.
        kept: those to leave in float.
        bounds: (low, high) of each tensor that `measure` reported.
    """
    tree = tflite.read(model)
    shapes = {tensor.name.decode(): list(tensor.shape) for tensor in tree.subgraphs[0].tensors}
    static = {
        "op_config": {
            "activation_tensor_config": _tensor(8, symmetric=False, granularity="TENSORWISE"),
            "weight_tensor_config": _tensor(8, symmetric=True, granularity="CHANNELWISE"),
            "compute_precision": "INTEGER",
            "explicit_dequantize": False,
            "skip_checks": False,
        },
        "algorithm_key": "min_max_uniform_quantize",
    }
    scope = _exactly(names)
    recipe = [{"regex": scope, "operation": kind} | static for kind in ("CONV_2D", "DEPTHWISE_CONV_2D")]
    large = [name for name in kept if np.prod(shapes.get(f"{name}.weight", [0])) >= _HALF_FROM]
    if large:
        kinds = ("CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D_TRANSPOSE")
        recipe += [_casting(_exactly(large), kind) for kind in kinds]
    statistics = {
        name: {
            "min": np.full([1] * len(shapes[name]), low, np.float32),
            "max": np.full([1] * len(shapes[name]), high, np.float32),
        }
        for name, (low, high) in bounds.items()
    }
    return _quantised(model, recipe, statistics, "quantising to INT8")


def _quantised(model: bytes, recipe: list[dict[str, Any]], statistics: Any, what: str) -> bytes:
    with kept_quiet(what):
        from ai_edge_quantizer import quantizer

        work = quantizer.Quantizer(bytearray(model), recipe)
        result = work.quantize(statistics, enable_progress_bar=False, enable_progress_report=False)
        if result.quantized_model is None:
            raise RuntimeError("the quantizer returned nothing")
        return bytes(result.quantized_model)


def _tensor(bits: int, *, symmetric: bool, granularity: str, dtype: str = "INT") -> dict[str, Any]:
    return {
        "num_bits": bits,
        "symmetric": symmetric,
        "granularity": granularity,
        "dtype": dtype,
        "block_size": 0,
    }


def _casting(scope: str, kind: str) -> dict[str, Any]:
    """A recipe's entry that stores an operation's weights as float16."""
    return {
        "regex": scope,
        "operation": kind,
        "algorithm_key": "float_casting",
        "op_config": {
            "weight_tensor_config": _tensor(16, symmetric=True, granularity="TENSORWISE", dtype="FLOAT"),
            "compute_precision": "FLOAT",
            "explicit_dequantize": True,
            "skip_checks": False,
        },
    }


def _exactly(names: Iterable[str]) -> str:
    """A pattern for operators of exactly these result names (the quantizer ends each with ';')."""
    return "^(" + "|".join(re.escape(name) for name in names) + ");?$"


def _one_pixel(graph: Any, operator: Any) -> bool:
    shape = graph.tensors[int(operator.outputs[0])].shape
    return int(shape[1]) * int(shape[2]) == 1


def _rounded(model: bytes, names: Iterable[str]) -> dict[str, int]:
    """The tensors before and after each of these convolutions, with their indices."""
    tree, wanted, found = tflite.read(model), set(names), {}
    tensors = tree.subgraphs[0].tensors
    for operator in tree.subgraphs[0].operators:
        kind = tflite.operation(tree, operator)
        result = int(operator.outputs[0])
        if kind in tflite.CONVOLUTIONS and tensors[result].name.decode() in wanted:
            for index in (int(operator.inputs[tflite.picture_input(kind)]), result):
                found[tensors[index].name.decode()] = index
    return found
