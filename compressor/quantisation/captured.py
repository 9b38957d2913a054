"""The network as a flat graph of ATen operations, as INT8 planning and export read it.

`torch.export` turns any generator into it, ours or the user's, an `nn.Module` or an fx
`GraphModule`, module calls and functional calls alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import fx, nn

from compressor.errors import PocketganError


def free_sides(multiple: int) -> dict[int, Any]:
    """`torch.export`'s dynamic shapes of a (N, C, H, W) input: any height and width that is a multiple."""
    from torch.export import Dim

    height, width = Dim("height"), Dim("width")
    return {2: multiple * height, 3: multiple * width} if multiple > 1 else {2: height, 3: width}


def capture(module: nn.Module, example: torch.Tensor, multiple: int | None = None) -> fx.GraphModule:
    """Trace a network in eval mode for inputs of the example's shape, or of any height and width.

    Args:
        module: takes one (N, C, H, W) tensor and returns one; it is left untouched, and the graph
            shares its parameters.
        example: an input; the graph is specialised to its shape and dtype.
        multiple: then height and width stay open, and may be any multiples of it.

    Raises:
        PocketganError: the network cannot be traced, does not map one tensor to one, or cannot take other
            sides than the example's.
    """
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        with torch.no_grad():
            shapes = None if multiple is None else (free_sides(multiple),)
            graph = torch.export.export(module, (example,), dynamic_shapes=shapes).module(check_guards=False)
    except Exception as error:  # torch.export raises errors of many kinds for what it cannot follow
        raise PocketganError(
            "this network cannot be traced for export",
            got=f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}",
            fix="look for Python control flow over tensor values, or a wrong input size, in its forward()"
            if multiple is None
            else f"its code may fix its sides (export it without --dynamic), or need other multiples than "
            f"{multiple} (--multiple)",
        ) from error
    finally:
        for part in training:
            part.training = True
    assert isinstance(graph, fx.GraphModule)
    inputs = [node for node in graph.graph.nodes if node.op == "placeholder"]
    outputs: Any = graph.graph.output_node().args[0]
    outputs = list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]
    if len(inputs) != 1 or len(outputs) != 1 or not isinstance(outputs[0], fx.Node):
        raise PocketganError(
            "a generator must take one picture tensor and return one",
            got=f"{len(inputs)} inputs, {len(outputs)} outputs",
            fix="wrap it in a module whose forward(x) returns the picture alone",
        )
    # An ordinary module again: torch.export's refuses eval(), and its code unpacks nested inputs.
    graph.graph.output_node().args = (outputs[0],)
    graph.graph.set_codegen(fx.graph.CodeGen())
    return fx.GraphModule(graph, graph.graph).eval()


def calls(graph: fx.GraphModule, *operations: Any) -> Iterator[fx.Node]:
    """The nodes that call one of the given operations (OpOverloads or functions), in order."""
    for node in list(graph.graph.nodes):
        if node.op == "call_function" and node.target in operations:
            yield node


def shape(node: fx.Node) -> tuple[int, ...]:
    """The shape of a node's tensor, recorded when it was traced."""
    return tuple(int(side) for side in node.meta["val"].shape)


def argument(node: fx.Node, position: int, default: Any = None) -> Any:
    """A positional argument of a call, or its default where the call leaves it out.

    ATen calls made by `torch.export` carry keyword arguments only after their last positional one.
    """
    if position < len(node.args):
        return node.args[position]
    schema = getattr(node.target, "_schema", None)
    if schema is not None and schema.arguments[position].name in node.kwargs:
        return node.kwargs[schema.arguments[position].name]
    return default


def pair(values: list[int]) -> list[int]:
    """A call's (vertical, horizontal) setting, where one number may stand for both."""
    return list(values) * 2 if len(values) == 1 else list(values)


def constant(graph: fx.GraphModule, node: fx.Node | None) -> torch.Tensor | None:
    """The parameter or buffer that a `get_attr` node names; None for any other node, and for none."""
    if node is None or node.op != "get_attr":
        return None
    value: Any = graph
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return value.detach()


def layer_name(convolution: fx.Node) -> str:
    """The module a convolution came from, told by its weight's name: "model.1" of "model.1.weight"."""
    weight: Any = convolution.args[1]
    return str(weight.target).removesuffix(".weight")
