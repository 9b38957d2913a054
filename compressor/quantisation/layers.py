"""Which convolutions INT8 takes, and what is rounded at each, read off a captured graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from compressor.quantisation import captured as g

_ATEN = torch.ops.aten
_RELUS = (_ATEN.relu.default, _ATEN.relu_.default)
CONVOLUTIONS = (_ATEN.conv2d.default, _ATEN.conv_transpose2d.input)
_MOVES = (  # of values that stay what they are: what they read and what they give has one range
    _ATEN.reflection_pad2d.default,
    _ATEN.replication_pad2d.default,
    _ATEN.pixel_shuffle.default,
    _ATEN.pixel_unshuffle.default,
    _ATEN.upsample_nearest2d.vec,
    _ATEN.dropout.default,
    _ATEN.contiguous.default,
    _ATEN.clone.default,
)


@dataclass(frozen=True)
class Layer:
    """A convolution that may be quantised.

    Attributes:
        name: of the module it came from.
        node: its call.
        result: the call whose value is rounded: the convolution, or what becomes one with it: a batch norm
            on running statistics, and the ReLU that alone reads either.
        macs: multiply-adds for the captured input.
    """

    name: str
    node: fx.Node
    result: fx.Node
    macs: int


def layers(graph: fx.GraphModule) -> tuple[list[Layer], list[str]]:
    """The convolutions that may be quantised, in order, and the names of those that stay float.

    Float stay transposed convolutions (onnxruntime has no integer kernel for them, and in both
    runtimes they cost most of the picture), the first and the last convolution (likewise), and
    those that see a single pixel (channel attention). If that leaves none, all but the transposed
    are taken.
    """
    everything = [n for n in g.calls(graph, *CONVOLUTIONS) if g.constant(graph, n.args[1]) is not None]  # type: ignore[arg-type]
    plain = [n for n in everything if n.target is _ATEN.conv2d.default]
    chosen = [
        node
        for node in plain
        if leads_to(node, "all_input_nodes", CONVOLUTIONS)
        and leads_to(node, "users", CONVOLUTIONS)
        and g.shape(node)[2] * g.shape(node)[3] > 1
    ] or plain
    names = Counter(g.layer_name(node) for node in everything)
    chosen = [node for node in chosen if names[g.layer_name(node)] == 1]  # a shared weight has no one name
    kept = {g.layer_name(node): None for node in everything if node not in chosen}
    return [_layer(graph, node) for node in chosen], list(kept)


def _layer(graph: fx.GraphModule, node: fx.Node) -> Layer:
    weight = g.constant(graph, node.args[1])  # type: ignore[arg-type]
    assert weight is not None
    norm = folding_norm(graph, node)
    result = node if norm is None else norm
    reader = _only_reader(result)
    if reader is not None and reader.target in _RELUS:
        result = reader
    height, width = g.shape(node)[2:]
    return Layer(g.layer_name(node), node, result, height * width * weight.numel())


def _only_reader(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def leads_to(node: fx.Node, direction: str, kinds: tuple[Any, ...]) -> bool:
    """Whether a call of one of these kinds lies before (all_input_nodes) or after (users) a node."""
    seen: set[fx.Node] = set()
    ahead = list(getattr(node, direction))
    while ahead:
        other = ahead.pop()
        if other.target in kinds:
            return True
        if other not in seen:
            seen.add(other)
            ahead += list(getattr(other, direction))
    return False


def folding_norm(graph: fx.GraphModule, convolution: fx.Node) -> fx.Node | None:
    """The batch norm on running statistics that alone reads a convolution and can be folded into it."""
    norm = _only_reader(convolution)
    if norm is None or norm.target is not _ATEN.batch_norm.default or norm.args[0] is not convolution:
        return None
    own_statistics = norm.args[5]
    transposed = convolution.target is _ATEN.conv_transpose2d.input
    if own_statistics or (transposed and g.argument(convolution, 6, 1) != 1):
        return None
    weight, bias = g.argument(convolution, 1), g.argument(convolution, 2)
    if g.constant(graph, weight) is None or (bias is not None and g.constant(graph, bias) is None):
        return None
    return norm


def own_norm(graph: fx.GraphModule, convolution: fx.Node) -> fx.Node | None:
    """The norm on a picture's own statistics that alone reads a convolution: it undoes scales and offsets."""
    norm = _only_reader(convolution)
    if norm is None or convolution.target not in CONVOLUTIONS or norm.args[:1] != (convolution,):
        return None
    instance = norm.target is _ATEN.instance_norm.default and bool(norm.args[5])
    batch = norm.target is _ATEN.batch_norm.default and bool(norm.args[5]) and g.shape(norm)[0] == 1
    transposed = convolution.target is _ATEN.conv_transpose2d.input
    if not (instance or batch) or (transposed and g.argument(convolution, 6, 1) != 1):
        return None
    return norm if g.constant(graph, g.argument(convolution, 1)) is not None else None


@dataclass(frozen=True)
class Site:
    """What is rounded at a quantised convolution, in terms of a network's modules.

    Attributes:
        name: the convolution's module, an `nn.Conv2d`.
        norm: the batch norm's module that becomes one with it, or None.
        relu: whether a ReLU becomes one with it too: then its range begins at 0.
        norm_eps: eps of the norm on the picture's own statistics that alone reads it, or None; with one,
            each channel may be rounded on a scale of its own, and the bias plays no part.
        input, output: names of the ranges; one for each rounded tensor, whatever reads it.
    """

    name: str
    norm: str | None
    relu: bool
    norm_eps: float | None
    input: str
    output: str


def sites(module: nn.Module, graph: fx.GraphModule) -> list[Site]:
    """Where a network rounds, for all of `layers` that are modules of their own.

    Args:
        module: the network.
        graph: of the same network, captured, not rewritten.
    """
    found = [
        (layer, norm)
        for layer in layers(graph)[0]
        if _called_once(module, layer.name, nn.Conv2d)
        and ((norm := _norm_name(graph, layer)) is None or _called_once(module, norm, nn.BatchNorm2d))
    ]
    shared = Counter(norm for _, norm in found if norm is not None)
    found = [(layer, norm) for layer, norm in found if norm is None or shared[norm] == 1]
    results = {layer.result: f"{layer.name}:output" for layer, _ in found}
    entries: dict[fx.Node, str] = {}
    made = []
    for layer, norm in found:
        source = _source(layer.node.args[0], results)  # type: ignore[arg-type]
        entry = results.get(source) or entries.setdefault(source, f"{layer.name}:input")
        own = own_norm(graph, layer.node)
        made.append(
            Site(
                name=layer.name,
                norm=norm,
                relu=layer.result.target in _RELUS,
                norm_eps=None if own is None else float(own.args[7]),  # type: ignore[arg-type]
                input=entry,
                output=results[layer.result],
            )
        )
    return made


def _called_once(module: nn.Module, name: str, kind: type[nn.Module]) -> bool:
    """Whether a name is that of a plain module of this kind, which does nothing but what the graph shows."""
    try:
        part = module.get_submodule(name)
    except AttributeError:
        return False
    return isinstance(part, kind) and type(part).forward is kind.forward


def _norm_name(graph: fx.GraphModule, layer: Layer) -> str | None:
    norm = folding_norm(graph, layer.node)
    mean: Any = None if norm is None else norm.args[3]
    return None if mean is None else str(mean.target).removesuffix(".running_mean")


def _source(node: fx.Node, results: dict[fx.Node, str]) -> fx.Node:
    """The node whose values these are: past paddings, shuffles and copies, but no rounded result."""
    while node not in results and (node.target in _MOVES or _pads_with_zero(node)):
        before = node.args[0]
        assert isinstance(before, fx.Node)
        node = before
    return node


def _pads_with_zero(node: fx.Node) -> bool:
    return node.target is _ATEN.pad.default and not g.argument(node, 3)


def before_own_norms(graph: fx.GraphModule) -> Iterator[tuple[fx.Node, fx.Node]]:
    """Each convolution whose one reader is a norm on the picture's own statistics, with that norm."""
    for node in g.calls(graph, *CONVOLUTIONS):
        if (norm := own_norm(graph, node)) is not None:
            yield node, norm
