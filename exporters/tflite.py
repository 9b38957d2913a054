"""PyTorch to TFLite: litert_torch, channels last, with the network's own names on its layers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from exporters.chatter import kept_quiet

if TYPE_CHECKING:
    import torch
    from torch import fx

CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV")
METADATA = "pocketgan"  # the name of our entry, which is one JSON object
WEIGHT = 1  # the position of a convolution's weight among its inputs


def convert(graph: fx.GraphModule, example: torch.Tensor) -> bytes:
    """A captured graph, rewritten for LiteRT, as a TFLite model of fixed shape, float32 NHWC.

    Raises:
        PocketganError: the converter refuses the network.
    """
    with kept_quiet("converting to TFLite"):
        import litert_torch
        import torch

        last = litert_torch.to_channel_last_io(graph, args=[0], outputs=[0]).eval()
        with torch.no_grad():
            model = litert_torch.convert(last, (example.permute(0, 2, 3, 1).contiguous(),))
        return _named(bytes(model.model_content()), graph)


def read(model: bytes) -> Any:
    """The file as an object tree (`ai_edge_litert`'s ModelT)."""
    from ai_edge_litert.tools import flatbuffer_utils

    return flatbuffer_utils.read_model_from_bytearray(bytearray(model))


def write(tree: Any) -> bytes:
    """The object tree as a file's bytes."""
    from ai_edge_litert.tools import flatbuffer_utils

    return bytes(flatbuffer_utils.convert_object_to_bytearray(tree))


def finish(model: bytes, facts: Mapping[str, str]) -> bytes:
    """The file's bytes with facts about it in its metadata, as one JSON object under "pocketgan"."""
    from ai_edge_litert import schema_py_generated as schema

    tree = read(model)
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(json.dumps(dict(facts)).encode(), np.uint8)
    tree.buffers.append(buffer)
    entry = schema.MetadataT()
    entry.name, entry.buffer = METADATA, len(tree.buffers) - 1
    tree.metadata = [*(tree.metadata or []), entry]
    return write(tree)


def operation(tree: Any, operator: Any) -> str:
    """An operator's builtin name, "CONV_2D"."""
    from ai_edge_litert.tools import flatbuffer_utils

    return str(flatbuffer_utils.opcode_to_name(tree, operator.opcodeIndex))


def picture_input(kind: str) -> int:
    """The position of a convolution's picture among its inputs."""
    return 2 if kind == "TRANSPOSE_CONV" else 0


def constant(tree: Any, index: int) -> np.ndarray | None:
    """A tensor's stored float32 values, or None where it has none."""
    tensor = tree.subgraphs[0].tensors[index]
    data = tree.buffers[tensor.buffer].data
    if data is None or len(data) == 0 or tensor.type != 0:
        return None
    return np.frombuffer(bytes(data), np.float32).reshape(list(tensor.shape))


def constant_types(model: bytes) -> dict[str, int]:
    """How many stored numbers there are of each type, small shape constants left out."""
    from ai_edge_litert.tools import flatbuffer_utils

    tree = read(model)
    counts: Counter[str] = Counter()
    for tensor in tree.subgraphs[0].tensors:
        data = tree.buffers[tensor.buffer].data
        if data is not None and len(data):
            counts[str(flatbuffer_utils.type_to_name(tensor.type)).lower()] += int(
                np.prod([int(side) for side in tensor.shape] if tensor.shape is not None else [1])
            )
    return dict(sorted(counts.items()))


def _named(model: bytes, graph: fx.GraphModule) -> bytes:
    """Name each convolution after the module whose weights it holds, and all else after its operation.

    The converter's own names are many times the wrapper's name and a number, some of them twice;
    calibration and quantisation go by name.
    """
    tree = read(model)
    weights = _weights(graph)
    taken: Counter[str] = Counter()
    boundary = {int(i) for i in [*tree.subgraphs[0].inputs, *tree.subgraphs[0].outputs]}
    tensors = tree.subgraphs[0].tensors
    for operator in tree.subgraphs[0].operators:
        kind = operation(tree, operator)
        name = kind.lower()
        if kind in CONVOLUTIONS:
            index = int(operator.inputs[WEIGHT])
            values = constant(tree, index)
            name = (None if values is None else _owner(values, kind, weights)) or name
        taken[name] += 1
        unique = name if taken[name] == 1 else f"{name}_{taken[name]}"
        if kind in CONVOLUTIONS:
            _rename(tensors, operator.inputs[WEIGHT], f"{unique}.weight", boundary)
        for output in operator.outputs:
            _rename(tensors, output, unique, boundary)
    seen: Counter[str] = Counter()
    for tensor in tensors:
        text = tensor.name.decode() if isinstance(tensor.name, bytes) else str(tensor.name)
        if text.startswith("litert_torch."):
            text = "constant"
        seen[text] += 1
        tensor.name = (text if seen[text] == 1 else f"{text}_{seen[text]}").encode()
    return write(tree)


def _rename(tensors: list[Any], index: int, name: str, boundary: set[int]) -> None:
    if int(index) not in boundary:  # the signature refers to inputs and outputs
        tensors[int(index)].name = name.encode()


def _weights(graph: fx.GraphModule) -> list[tuple[str, np.ndarray]]:
    """Every convolution weight of the graph with its module's name."""
    named = [*graph.named_parameters(), *graph.named_buffers()]
    return [
        (name.removesuffix(".weight"), value.numpy())
        for name, value in ((name, value.detach()) for name, value in named)
        if value.ndim == 4 and value.numel()
    ]


def _owner(values: np.ndarray, kind: str, weights: list[tuple[str, np.ndarray]]) -> str | None:
    """The module whose weight this is, found by its numbers; each is found once."""
    order = {"CONV_2D": (0, 3, 1, 2), "DEPTHWISE_CONV_2D": (3, 0, 1, 2), "TRANSPOSE_CONV": (3, 0, 1, 2)}[kind]
    ours = values.transpose(order)
    for position, (name, weight) in enumerate(weights):
        height, width = weight.shape[2:]
        if weight.shape[:2] == ours.shape[:2] and np.array_equal(ours[:, :, :height, :width], weight):
            del weights[position]
            return name
    return None
