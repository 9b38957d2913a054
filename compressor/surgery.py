"""Changing the widths of a network's layers while its structure stays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn

from compressor.errors import PocketganError

CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
NORMS = (nn.BatchNorm2d, nn.InstanceNorm2d)


def resize(
    module: nn.Module,
    widths: Mapping[str, tuple[int, int]],
    splits: Mapping[str, tuple[int, ...]],
) -> nn.Module:
    """Give layers new channel counts (fresh weights) and channel splits new sizes.

    Args:
        module: the network at its original widths; changed in place.
        widths: (input, output) channels by module name.
        splits: sizes by the name of the split's or chunk's node in the traced graph.

    Returns:
        The same module, or, where splits change, its traced form (`torch.fx.GraphModule`), in
        which the sizes that were written in Python code can be replaced.

    Raises:
        PocketganError: a name or a kind of layer does not fit the network.
    """
    for name, (inputs, outputs) in widths.items():
        try:
            layer = module.get_submodule(name)
        except AttributeError as error:
            raise PocketganError("the widths name a layer that the network lacks", got=name) from error
        _replace(module, name, _resized(name, layer, inputs, outputs))
    return _resplit(module, splits) if splits else module


def _resized(name: str, layer: nn.Module, inputs: int, outputs: int) -> nn.Module:
    device, dtype = next(((p.device, p.dtype) for p in layer.parameters()), (None, None))
    if isinstance(layer, CONVOLUTIONS):
        depthwise = layer.groups > 1 and layer.groups == layer.in_channels
        if layer.groups > 1 and not depthwise:
            raise PocketganError("a grouped convolution cannot change its width", got=name)
        settings: dict[str, Any] = {
            name: getattr(layer, name)
            for name in ("kernel_size", "stride", "padding", "dilation", "padding_mode")
        }
        if isinstance(layer, nn.ConvTranspose2d):
            settings["output_padding"] = layer.output_padding
        groups = inputs if depthwise else 1
        bias = layer.bias is not None
        return type(layer)(inputs, outputs, groups=groups, bias=bias, device=device, dtype=dtype, **settings)
    if isinstance(layer, NORMS):
        names = ("eps", "momentum", "affine", "track_running_stats")
        settings = {name: getattr(layer, name) for name in names}
        return type(layer)(outputs, device=device, dtype=dtype, **settings)
    if isinstance(layer, nn.PReLU):
        return nn.PReLU(outputs, device=device, dtype=dtype)
    raise PocketganError(f"a layer of kind {type(layer).__name__} cannot change its width", got=name)


def _replace(module: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    layer.train(module.get_submodule(name).training)
    setattr(module.get_submodule(parent), leaf, layer)


def _resplit(module: nn.Module, splits: Mapping[str, tuple[int, ...]]) -> nn.Module:
    traced = fx.symbolic_trace(module)
    nodes = {node.name: node for node in traced.graph.nodes}
    for name, sizes in splits.items():
        node = nodes.get(name)
        if node is None:
            raise PocketganError("the splits name a step that the network lacks", got=name)
        # A chunk into unequal parts is a split.
        node.op, node.target = "call_function", torch.split
        node.args, node.kwargs = (node.all_input_nodes[0], list(sizes)), {"dim": 1}
    traced.recompile()
    return traced
