"""An ONNX file given other widths: conversion takes a second, and one file serves all widths of a layer."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx
    from torch import nn

_FREE = {
    *("Conv", "ConvTranspose", "InstanceNormalization", "Relu", "LeakyRelu", "Tanh", "Add", "Cast"),
    *("Resize", "DepthToSpace"),
}  # nodes that hold no width but in the weights and norms below


def resizable(model: onnx.ModelProto) -> bool:
    """Whether `resized` can give a converted file other widths."""
    return all(node.op_type in _FREE for node in model.graph.node)


def resized(model: onnx.ModelProto, module: nn.Module, inputs: int, outputs: int) -> onnx.ModelProto:
    """A copy of a file with the weights of another module, which differs in widths alone.

    Args:
        model: `resizable`, its weights named after their modules.
        module: the other one.
        inputs, outputs: its channels.
    """
    from onnx import numpy_helper
    from torch import nn

    work, state = copy.deepcopy(model), module.state_dict()
    layers = dict(module.named_modules())
    for constant in work.graph.initializer:
        if constant.name in state:
            old = numpy_helper.to_array(constant)
            values = state[constant.name].numpy().astype(old.dtype)
            constant.CopyFrom(numpy_helper.from_array(values, constant.name))
    channels = {"": 0}  # of every tensor that a norm may read
    for index, node in enumerate(work.graph.node):
        layer = layers.get(node.input[1].removesuffix(".weight")) if len(node.input) > 1 else None
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            channels[node.output[0]] = layer.out_channels
            for attribute in node.attribute:
                if attribute.name == "group":
                    attribute.i = layer.groups
        elif node.op_type == "InstanceNormalization":
            width = channels[node.input[0]]
            for place, value in ((1, 1), (2, 0)):
                kind = next(c.data_type for c in work.graph.initializer if c.name == node.input[place])
                name, dtype = f"norm_{index}_{place}", np.float16 if kind == 10 else np.float32
                work.graph.initializer.append(numpy_helper.from_array(np.full(width, value, dtype), name))
                node.input[place] = name
    used = {name for node in work.graph.node for name in node.input}
    kept = [constant for constant in work.graph.initializer if constant.name in used]
    del work.graph.initializer[:]
    work.graph.initializer.extend(kept)
    del work.graph.value_info[:]
    work.graph.input[0].type.tensor_type.shape.dim[1].dim_value = inputs
    work.graph.output[0].type.tensor_type.shape.dim[1].dim_value = outputs
    return work
