"""Static INT8 for onnxruntime: convolutions between QuantizeLinear and DequantizeLinear (QDQ).

Activations are uint8 with one scale a tensor, weights int8 with one a channel, biases int32; which
convolutions, and over what bounds, is the plan's affair (`exporters.int8`).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from exporters.onnx import OUTPUT

if TYPE_CHECKING:
    import onnx

    from compressor.quantisation.ranges import Bounds

_BIAS_LIMIT = float(2**31 - 1) / 2  # int32 biases keep a bit of headroom for the accumulator


def quantise(model: onnx.ModelProto, bounds: Mapping[str, Bounds]) -> tuple[onnx.ModelProto, set[str]]:
    """A copy of the model in which the named layers run on integers, and the names that were found.

    Args:
        model: in float, its weights named after their modules: "model.1.weight".
        bounds: by layer, "model.1".
    """
    work = copy.deepcopy(model)
    constants = {constant.name for constant in work.graph.initializer}
    chosen = {
        node.name: bounds[layer]
        for node in work.graph.node
        if node.op_type == "Conv"
        and node.input[1] in constants
        and (layer := node.input[1].removesuffix(".weight")) in bounds
    }
    found = {n.input[1].removesuffix(".weight") for n in work.graph.node if n.name in chosen}
    after = {_result(work, n): chosen[n.name].output for n in work.graph.node if n.name in chosen}
    editor = _Editor(work)
    for node in list(work.graph.node):
        if node.name in chosen:
            editor.quantise_convolution(node, chosen[node.name].input)
        editor.nodes.append(node)
        for tensor in list(node.output):
            if tensor in after and tensor != OUTPUT:
                editor.round_result(node, tensor, after[tensor])
    del work.graph.node[:]
    work.graph.node.extend(editor.nodes)
    _drop_unused_constants(work)
    return work, found


class _Editor:
    """Rewrites nodes one by one into `nodes`, adding constants to the model as it goes."""

    def __init__(self, model: onnx.ModelProto):
        from onnx import numpy_helper

        self.model = model
        self.nodes: list[onnx.NodeProto] = []
        self.constants = {c.name: numpy_helper.to_array(c) for c in model.graph.initializer}
        self.rounded: dict[str, tuple[str, float]] = {}  # tensor -> its dequantised form and scale

    def quantise_convolution(self, node: onnx.NodeProto, bounds: tuple[float, float]) -> None:
        entry = node.input[0]
        if entry not in self.rounded:
            self.round(entry, entry, f"{entry}_dequantised", bounds)
        node.input[0], scale = self.rounded[entry]
        weight = self.constants[node.input[1]]
        bias = self.constants[node.input[2]] if len(node.input) > 2 and node.input[2] else None
        scales = _weight_scales(weight, bias, scale)
        levels = np.clip(np.rint(weight / scales[:, None, None, None]), -127, 127)
        node.input[1] = self.stored(f"{node.name}_weight", levels, np.int8, scales)
        if bias is not None:
            levels = np.rint(bias / (scales * scale))
            node.input[2] = self.stored(f"{node.name}_bias", levels, np.int32, scales * scale)

    def round_result(self, node: onnx.NodeProto, tensor: str, bounds: tuple[float, float]) -> None:
        """Round what a convolution gives, under its own name, so that all readers see it rounded."""
        for index, name in enumerate(node.output):
            if name == tensor:
                node.output[index] = f"{tensor}_raw"
        self.round(f"{tensor}_raw", tensor, tensor, bounds)

    def round(self, source: str, tensor: str, result: str, bounds: tuple[float, float]) -> None:
        from onnx import helper

        scale, zero = _uint8(*bounds)
        scale_name = self.add(f"{tensor}_scale", np.float32(scale))
        zero_name = self.add(f"{tensor}_zero", np.uint8(zero))
        level = f"{tensor}_quantised"
        self.nodes += [
            helper.make_node("QuantizeLinear", [source, scale_name, zero_name], [level], f"{tensor}_Q"),
            helper.make_node("DequantizeLinear", [level, scale_name, zero_name], [result], f"{tensor}_DQ"),
        ]
        self.rounded[tensor] = (result, scale)

    def stored(self, name: str, levels: np.ndarray, kind: type, scales: np.ndarray) -> str:
        """Store integer levels with a scale for each of axis 0, and widen them by a DequantizeLinear."""
        from onnx import helper

        names = [
            self.add(f"{name}_levels", levels.astype(kind)),
            self.add(f"{name}_scales", scales.astype(np.float32)),
            self.add(f"{name}_zeros", np.zeros(len(scales), kind)),
        ]
        self.nodes.append(helper.make_node("DequantizeLinear", names, [name], f"{name}_DQ", axis=0))
        return name

    def add(self, name: str, values: np.ndarray | np.generic) -> str:
        from onnx import numpy_helper

        self.model.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
        return name


def _uint8(low: float, high: float) -> tuple[float, int]:
    """Scale and zero point of 256 levels over [low, high], which holds zero."""
    scale = max((high - low) / 255, 1e-12)
    return float(np.float32(scale)), int(np.clip(round(-low / scale), 0, 255))


def _weight_scales(weight: np.ndarray, bias: np.ndarray | None, entry_scale: float) -> np.ndarray:
    """One scale for each output channel; wide enough for its bias to fit into int32."""
    scales = np.abs(weight).reshape(len(weight), -1).max(1) / 127
    if bias is not None:
        scales = np.maximum(scales, np.abs(bias) / (_BIAS_LIMIT * entry_scale))
    return np.maximum(scales, 1e-12).astype(np.float32)


def _result(model: onnx.ModelProto, node: onnx.NodeProto) -> str:
    """The tensor to round after a convolution: past a ReLU that alone reads it, which then costs nothing."""
    readers = [other for other in model.graph.node if node.output[0] in other.input]
    if len(readers) == 1 and readers[0].op_type == "Relu":
        return readers[0].output[0]
    return node.output[0]


def _drop_unused_constants(model: onnx.ModelProto) -> None:
    used = {tensor for node in model.graph.node for tensor in node.input}
    kept = [constant for constant in model.graph.initializer if constant.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
