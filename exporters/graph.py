"""The captured graph (`compressor.quantisation.captured`), and how rewrites change it.

All rewrites and exports start from it, so a rewrite is written once for any network. A rewrite
replaces a node by a call to a plain Python function of tensors (the thing its tests prove equal);
the exporters trace through that function when they take the graph over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from compressor.quantisation.captured import argument, calls, capture, constant, layer_name, pair, shape

__all__ = [
    "add_constant",
    "argument",
    "calls",
    "capture",
    "constant",
    "layer_name",
    "pair",
    "replace",
    "set_weight",
    "shape",
]


def replace(node: fx.Node, function: Callable[..., torch.Tensor], *args: Any) -> None:
    """Make a node call `function(*args)` instead; its users, name and recorded shape stay."""
    node.target, node.args, node.kwargs = function, args, {}


def add_constant(graph: fx.GraphModule, before: fx.Node, name: str, value: torch.Tensor) -> fx.Node:
    """Add a buffer to the graph and a `get_attr` node for it in front of the node `before`."""
    name = name.replace(".", "_")
    while hasattr(graph, name):
        name += "_"
    graph.register_buffer(name, value)
    with graph.graph.inserting_before(before):
        node = graph.graph.get_attr(name)
    node.meta["val"] = value
    return node


def set_weight(
    graph: fx.GraphModule, convolution: fx.Node, weight: torch.Tensor, bias: torch.Tensor | None
) -> None:
    """Give a convolution of the graph another weight, under the old one's name, and another bias or none.

    The module that was captured keeps its own: the graph's attributes are replaced, not written to.
    A weight that other nodes read too is left to them, and the new one gets a name of its own.
    """
    old: Any = convolution.args[1]
    path, _, leaf = str(old.target).rpartition(".")
    readers = [
        reader
        for node in graph.graph.nodes
        if node.op == "get_attr" and node.target == old.target
        for reader in node.users
    ]
    if readers == [convolution]:
        setattr(graph.get_submodule(path), leaf, nn.Parameter(weight, requires_grad=False))
        node = old
    else:
        node = add_constant(graph, convolution, f"{old.target}_of_{convolution.name}", weight)
    bias_node = None
    if bias is not None:
        bias_node = add_constant(graph, convolution, f"{layer_name(convolution)}_bias", bias)
    rest = convolution.args[3:]
    convolution.args = (convolution.args[0], node, bias_node, *rest)
    convolution.kwargs = {key: value for key, value in convolution.kwargs.items() if key != "bias"}
