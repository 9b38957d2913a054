"""Static INT8 for onnxruntime: convolutions between QuantizeLinear and DequantizeLinear (QDQ).

Activations are uint8 with one scale a tensor, weights int8 with one a channel, biases int32. Only
convolutions are quantised: onnxruntime has no integer kernels for transposed convolutions, instance
norms or PReLU. The first and last convolutions stay float, which costs little time and keeps most of
the picture.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from exporters.calibration import Ranges
from exporters.onnx import INPUT, OUTPUT

if TYPE_CHECKING:
    import onnx

_BIAS_LIMIT = float(2**31 - 1) / 2  # int32 biases keep a bit of headroom for the accumulator


def convolutions(model: onnx.ModelProto) -> tuple[list[str], list[str]]:
    """Names of the convolutions to quantise, and of those kept float.

    Kept float: the first (no convolution before it), the last (none after it) and those that see a
    single pixel (channel attention). Where that is all there are, all are quantised.
    """
    readers, makers = _readers(model), _makers(model)
    constants = {constant.name for constant in model.graph.initializer}
    everything = [n for n in model.graph.node if n.op_type == "Conv" and n.input[1] in constants]
    sizes = _spatial_sizes(model)
    chosen = [
        node
        for node in everything
        if _reaches(node, lambda n: [makers[i] for i in n.input if i in makers])
        and _reaches(node, lambda n: [r for o in n.output for r in readers.get(o, [])])
        and sizes.get(node.output[0], 2) > 1
    ]
    chosen = chosen or everything
    names = {node.name for node in chosen}
    kept = [n.name for n in model.graph.node if _is_convolution(n) and n.name not in names]
    return [node.name for node in chosen], kept


def measure(model: onnx.ModelProto, names: Iterable[str], pictures: Iterable[np.ndarray]) -> Ranges:
    """The ranges of all tensors that quantising these convolutions would round.

    Args:
        model: in float.
        names: of convolutions.
        pictures: inputs (1, C, H, W); one is held at a time.
    """
    from onnx import helper

    from exporters.runtime import onnx_session

    tensors = sorted({tensor for node in _named(model, names) for tensor in _rounded(model, node)})
    watched = copy.deepcopy(model)
    watched.graph.output.extend(helper.make_empty_tensor_value_info(t) for t in tensors if t != INPUT)
    session, ranges = onnx_session(watched.SerializeToString()), Ranges()
    asked = [tensor for tensor in tensors if tensor != INPUT]
    for picture in pictures:
        if INPUT in tensors:
            ranges.update_tensor(INPUT, picture)
        for name, values in zip(asked, session.run(asked, {INPUT: picture}), strict=True):
            ranges.update_tensor(name, values)
    return ranges


def quantise(
    model: onnx.ModelProto, names: Iterable[str], bounds: Mapping[str, tuple[float, float]]
) -> onnx.ModelProto:
    """A copy of the model in which the named convolutions run on integers.

    Args:
        model: in float.
        names: the convolutions.
        bounds: (low, high) of each tensor that `measure` reported.
    """
    work = copy.deepcopy(model)
    editor = _Editor(work, bounds)
    chosen = {node.name for node in _named(work, names)}
    after = {_result(work, node): node for node in _named(work, names)}
    for node in list(work.graph.node):
        if node.name in chosen:
            editor.quantise_convolution(node)
        editor.nodes.append(node)
        for tensor in list(node.output):
            if tensor in after:
                editor.round_result(node, tensor)
    del work.graph.node[:]
    work.graph.node.extend(editor.nodes)
    _drop_unused_constants(work)
    return work


def layer_names(model: onnx.ModelProto, names: Iterable[str]) -> list[str]:
    """The modules that convolutions of these node names came from, told by their weights' names."""
    return [
        node.input[1].removesuffix("_equalised").removesuffix("_weight").removesuffix(".weight")
        for node in _named(model, names)
    ]


class _Editor:
    """Rewrites nodes one by one into `nodes`, adding constants to the model as it goes."""

    def __init__(self, model: onnx.ModelProto, bounds: Mapping[str, tuple[float, float]]):
        from onnx import numpy_helper

        self.model, self.bounds = model, bounds
        self.nodes: list[onnx.NodeProto] = []
        self.constants = {c.name: numpy_helper.to_array(c) for c in model.graph.initializer}
        self.rounded: dict[str, str] = {}  # tensor -> its dequantised form

    def quantise_convolution(self, node: onnx.NodeProto) -> None:
        entry = node.input[0]
        scale, _ = _uint8(*self.bounds[entry])
        weight = self.constants[node.input[1]]
        bias = self.constants[node.input[2]] if len(node.input) > 2 and node.input[2] else None
        scales = _weight_scales(weight, bias, scale)
        node.input[0] = self.round_entry(entry)
        node.input[1] = self.stored(
            f"{node.name}_weight",
            np.clip(np.rint(weight / scales[:, None, None, None]), -127, 127),
            np.int8,
            scales,
        )
        if bias is not None:
            node.input[2] = self.stored(
                f"{node.name}_bias", np.rint(bias / (scales * scale)), np.int32, scales * scale
            )

    def round_entry(self, tensor: str) -> str:
        if tensor not in self.rounded:
            self.round(tensor, tensor, f"{tensor}_dequantised")
        return self.rounded[tensor]

    def round_result(self, node: onnx.NodeProto, tensor: str) -> None:
        """Round what a convolution gives, under its own name, so that all readers see it rounded."""
        if tensor == OUTPUT:
            return
        for index, name in enumerate(node.output):
            if name == tensor:
                node.output[index] = f"{tensor}_raw"
        self.round(f"{tensor}_raw", tensor, tensor)

    def round(self, source: str, tensor: str, result: str) -> None:
        from onnx import helper

        scale, zero = _uint8(*self.bounds[tensor])
        scale_name = self.add(f"{tensor}_scale", np.float32(scale))
        zero_name = self.add(f"{tensor}_zero", np.uint8(zero))
        level = f"{tensor}_quantised"
        self.nodes += [
            helper.make_node("QuantizeLinear", [source, scale_name, zero_name], [level], f"{tensor}_Q"),
            helper.make_node("DequantizeLinear", [level, scale_name, zero_name], [result], f"{tensor}_DQ"),
        ]
        self.rounded[tensor] = result

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
    readers = _readers(model).get(node.output[0], [])
    if len(readers) == 1 and readers[0].op_type == "Relu":
        return readers[0].output[0]
    return node.output[0]


def _rounded(model: onnx.ModelProto, node: onnx.NodeProto) -> list[str]:
    return [node.input[0], _result(model, node)]


def _named(model: onnx.ModelProto, names: Iterable[str]) -> list[onnx.NodeProto]:
    wanted = set(names)
    return [node for node in model.graph.node if node.name in wanted]


def _is_convolution(node: onnx.NodeProto) -> bool:
    return node.op_type in ("Conv", "ConvTranspose")


def _readers(model: onnx.ModelProto) -> dict[str, list[onnx.NodeProto]]:
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for tensor in node.input:
            readers.setdefault(tensor, []).append(node)
    return readers


def _makers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {tensor: node for node in model.graph.node for tensor in node.output}


def _reaches(node: onnx.NodeProto, neighbours) -> bool:
    """Whether another convolution lies in the direction that `neighbours` walks."""
    seen: set[str] = set()
    ahead = neighbours(node)
    while ahead:
        other = ahead.pop()
        if _is_convolution(other):
            return True
        if other.name not in seen:
            seen.add(other.name)
            ahead += neighbours(other)
    return False


def _spatial_sizes(model: onnx.ModelProto) -> dict[str, int]:
    """Height times width of every four-dimensional tensor."""
    import onnx

    sizes = {}
    for value in onnx.shape_inference.infer_shapes(model).graph.value_info:
        sides = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if len(sides) == 4 and all(sides):
            sizes[value.name] = sides[2] * sides[3]
    return sizes


def _drop_unused_constants(model: onnx.ModelProto) -> None:
    used = {tensor for node in model.graph.node for tensor in node.input}
    kept = [constant for constant in model.graph.initializer if constant.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
