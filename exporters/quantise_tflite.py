"""FP16 weights and static INT8 for TFLite, by ai-edge-quantizer with our own statistics.

Its own calibration is a moving average that depends on the order of the pictures; ours is handed
over ready (`exporters.int8`). Convolutions alone run on integers: quantised norms leave the delegate.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from exporters import tflite
from exporters.chatter import kept_quiet

if TYPE_CHECKING:
    from compressor.quantisation.ranges import Bounds

_HALF_FROM = 4096  # float layers of so many weights or more are stored as float16 in an INT8 file


def half_weights(model: bytes) -> bytes:
    """The model with its constants stored as float16; arithmetic stays float32 where it was."""
    recipe: list[dict[str, Any]] = [_casting(".*", "*")]
    return _quantised(model, recipe, None, "storing half weights")


def quantise(model: bytes, bounds: Mapping[str, Bounds]) -> tuple[bytes, set[str]]:
    """The model with the named layers in int8, and the names that were found.

    Large convolutions that stay float keep their weights as float16, which changes the picture less
    than anything in the others.

    Args:
        model: in float, its convolutions' results named after their modules.
        bounds: by layer.
    """
    tree = tflite.read(model)
    tensors = tree.subgraphs[0].tensors
    statistics: dict[str, dict[str, np.ndarray]] = {}
    found, large = set(), []
    for operator in tree.subgraphs[0].operators:
        kind = tflite.operation(tree, operator)
        if kind not in tflite.CONVOLUTIONS:
            continue
        result, entry = int(operator.outputs[0]), int(operator.inputs[tflite.picture_input(kind)])
        name = tensors[result].name.decode()
        if name in bounds and kind != "TRANSPOSE_CONV":
            found.add(name)
            for index, span in ((entry, bounds[name].input), (result, bounds[name].output)):
                statistics[tensors[index].name.decode()] = _statistics(tensors[index], span)
        elif np.prod(tensors[int(operator.inputs[tflite.WEIGHT])].shape) >= _HALF_FROM:
            large.append(name)
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
    recipe = [
        {"regex": _exactly(found), "operation": kind} | static for kind in ("CONV_2D", "DEPTHWISE_CONV_2D")
    ]
    kinds = ("CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D_TRANSPOSE")
    recipe += [_casting(_exactly(large), kind) for kind in kinds if large]
    return _quantised(model, recipe, statistics, "quantising to INT8"), found


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


def _statistics(tensor: Any, span: tuple[float, float]) -> dict[str, np.ndarray]:
    """Bounds in the form of the quantizer's own calibration results."""
    ones = [1] * len(tensor.shape)
    return {"min": np.full(ones, span[0], np.float32), "max": np.full(ones, span[1], np.float32)}
