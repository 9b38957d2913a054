"""Runs an exported file on pictures as (N, C, H, W), whichever runtime and layout it is made for."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import numpy as np

from compressor.agd.teachers.runtimes import dequantised, quantised
from exporters.departures import Asked, Departure, departures
from exporters.result import Delegation

Run = Callable[[np.ndarray], np.ndarray]


def threads_here() -> int:
    """The processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_onnx(model: bytes) -> Run:
    """onnxruntime's CPU provider over a model of one NCHW float input and output."""
    session = onnx_session(model)
    name = session.get_inputs()[0].name
    return lambda pictures: session.run(None, {name: np.ascontiguousarray(pictures, np.float32)})[0]


def onnx_session(model: bytes):
    """An onnxruntime session on the CPU that logs errors only."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads_here()
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def open_tflite(model: bytes) -> Run:
    """LiteRT with XNNPACK over a model of one NHWC input and output; integers go by scale and zero point."""
    interpreter = tflite_interpreter(model)
    entry, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

    def run(pictures: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(entry["index"], quantised(np.moveaxis(pictures, 1, 3), entry))
        interpreter.invoke()
        made = dequantised(interpreter.get_tensor(result["index"]), result)
        return np.ascontiguousarray(np.moveaxis(made, 3, 1))

    return run


def tflite_interpreter(model: bytes, *, keep_tensors: bool = False, delegate: bool = True):
    """A LiteRT interpreter with its tensors allocated.

    Args:
        model: the file's bytes.
        keep_tensors: keep every intermediate result readable.
        delegate: hand what can be to XNNPACK (LiteRT's default).
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=bytes(model),
        num_threads=threads_here(),
        experimental_preserve_all_tensors=keep_tensors,
        experimental_op_resolver_type=OpResolverType.AUTO
        if delegate
        else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    return interpreter


def delegation(model: bytes) -> Delegation:
    """Count the nodes of a TFLite file that XNNPACK takes, and the partitions they fall into."""
    return examine(model)[0]


def examine(model: bytes, asked: Callable[[], Asked] = tuple) -> tuple[Delegation, tuple[Departure, ...]]:
    """Count what XNNPACK takes of a TFLite file, as `delegation`, and name each exception.

    A node belongs to a partition when one of the partition's results depends on it through nothing
    but the partition's own inputs and constants.

    Args:
        model: the file's bytes.
        asked: what of the network moves axes (`exporters.departures`).
    """
    interpreter = tflite_interpreter(model)
    operations = interpreter._get_ops_details()
    partitions = [op for op in operations if op["op_name"] == "DELEGATE"]
    nodes = [op for op in operations if op["op_name"] != "DELEGATE"]
    maker: Mapping[int, dict] = {int(out): node for node in nodes for out in node["outputs"]}
    taken: set[int] = set()
    for partition in partitions:
        entries = {int(entry) for entry in partition["inputs"]}
        open_ends = [int(out) for out in partition["outputs"]]
        while open_ends:
            node = maker.get(open_ends.pop())
            if node is None or node["index"] in taken:
                continue
            taken.add(node["index"])
            open_ends += [int(entry) for entry in node["inputs"] if int(entry) not in entries]
    tensors = interpreter.get_tensor_details()
    names = {int(tensor["index"]): str(tensor["name"]) for tensor in tensors}
    wide = {int(tensor["index"]) for tensor in tensors if tensor["dtype"] is np.int16}
    counts = Delegation(nodes=len(nodes), delegated=len(taken), partitions=len(partitions))
    return counts, departures(nodes, names, taken, asked, wide)
