"""FP16 weights and integers for TFLite, by ai-edge-quantizer with our own statistics.

Its own calibration is a moving average that depends on the order of the pictures; ours is handed
over ready (`exporters.int8`). Convolutions alone run on integers: quantised norms leave the delegate.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from exporters import tflite
from exporters.byte_pictures import BYTES
from exporters.chatter import kept_quiet

if TYPE_CHECKING:
    from compressor.quantisation.ranges import Bounds

_HALF_FROM = 4096  # float layers of so many weights or more are stored as float16 in an INT8 file


def half_weights(model: bytes) -> bytes:
    """The model with its constants stored as float16; arithmetic stays float32 where it was."""
    recipe: list[dict[str, Any]] = [_casting(".*", "*")]
    return _quantised(model, recipe, None, "storing half weights")


def quantise(
    model: bytes, bounds: Mapping[str, Bounds], bits: int = 8, io: str = "float32"
) -> tuple[bytes, set[str]]:
    """The model with the named layers on integers, weights in int8, and the names that were found.

    Large convolutions that stay float keep their weights as float16, which changes the picture less
    than anything in the others.

    Args:
        model: in float, its convolutions' results named after their modules.
        bounds: by layer.
        bits: of activations, 8 or 16.
        io: the type of input and output; of a model that takes bytes (`exporters.byte_pictures`) also "uint8"
            or "int8".
    """
    tree = tflite.read(model)
    tensors = tree.subgraphs[0].tensors
    statistics: dict[str, dict[str, np.ndarray]] = {}
    found, large = _split(tree, bounds)
    for operator in tree.subgraphs[0].operators:
        result = int(operator.outputs[0])
        if (name := tensors[result].name.decode()) in found:
            entry = int(operator.inputs[tflite.picture_input(tflite.operation(tree, operator))])
            for index, span in ((entry, bounds[name].input), (result, bounds[name].output)):
                statistics[tensors[index].name.decode()] = _statistics(tensors[index], span)
    activations = _tensor(bits, symmetric=bits == 16, granularity="TENSORWISE")
    recipe = [_integer(_exactly(found), kind, activations) for kind in ("CONV_2D", "DEPTHWISE_CONV_2D")]
    if io != "float32":
        ends = [tensors[int(index)] for index in (*tree.subgraphs[0].inputs, *tree.subgraphs[0].outputs)]
        statistics |= {end.name.decode(): _statistics(end, BYTES) for end in ends}
        eight = _tensor(8, symmetric=False, granularity="TENSORWISE")
        recipe += [_integer(".*", kind, eight) for kind in ("INPUT", "OUTPUT")]
    content = _quantised(model, recipe + _halved(large), statistics, "quantising to INT8")
    return (_unsigned(content) if io == "uint8" else content), found


def _unsigned(model: bytes) -> bytes:
    """The model with uint8 in place of int8 at its ends, which it turns into floats and makes of floats."""
    from ai_edge_litert import schema_py_generated as schema

    tree = tflite.read(model)
    graph = tree.subgraphs[0]
    for index in (*graph.inputs, *graph.outputs):
        end = graph.tensors[int(index)]
        end.type = schema.TensorType.UINT8
        end.quantization.zeroPoint = [int(end.quantization.zeroPoint[0]) + 128]
    return tflite.write(tree)


def dynamic(model: bytes, names: Collection[str]) -> tuple[bytes, set[str]]:
    """The model with the named layers' weights in int8, activations rounded by each picture's own range.

    Args:
        model: in float, its convolutions' results named after their modules.
        names: of layers. XNNPACK takes no depthwise ones, which leave its partition.

    Returns:
        The model, and the names that were found.
    """
    found, large = _split(tflite.read(model), names)
    recipe = [_integer(_exactly(found), "CONV_2D", None)] if found else []
    return _quantised(model, recipe + _halved(large), None, "quantising to dynamic INT8"), found


def _split(tree: Any, names: Collection[str]) -> tuple[set[str], list[str]]:
    """Of a model's convolutions those named, and of the others those with large weights."""
    found, large = set(), []
    tensors = tree.subgraphs[0].tensors
    for operator in tree.subgraphs[0].operators:
        kind = tflite.operation(tree, operator)
        if kind not in tflite.CONVOLUTIONS:
            continue
        name = tensors[int(operator.outputs[0])].name.decode()
        if name in names and kind != "TRANSPOSE_CONV":
            found.add(name)
        elif np.prod(tensors[int(operator.inputs[tflite.WEIGHT])].shape) >= _HALF_FROM:
            large.append(name)
    return found, large


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


def _integer(scope: str, kind: str, activations: dict[str, Any] | None) -> dict[str, Any]:
    """A recipe's entry that runs an operation on integers; without `activations` by each picture's range."""
    return {
        "regex": scope,
        "operation": kind,
        "algorithm_key": "min_max_uniform_quantize",
        "op_config": {
            **({} if activations is None else {"activation_tensor_config": activations}),
            "weight_tensor_config": _tensor(8, symmetric=True, granularity="CHANNELWISE"),
            "compute_precision": "INTEGER",
            "explicit_dequantize": False,
            "skip_checks": False,
        },
    }


def _halved(names: list[str]) -> list[dict[str, Any]]:
    """A recipe's entries that store these layers' weights as float16."""
    kinds = ("CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D_TRANSPOSE")
    return [_casting(_exactly(names), kind) for kind in kinds if names]


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


def _statistics(tensor: Any, span: tuple[float, float]) -> dict[str, np.ndarray]:
    """Bounds in the form of the quantizer's own calibration results."""
    ones = [1] * len(tensor.shape)
    return {"min": np.full(ones, span[0], np.float32), "max": np.full(ones, span[1], np.float32)}
