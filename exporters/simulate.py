"""INT8 arithmetic imitated in PyTorch, so that it can be planned once for every runtime.

Both runtimes round the same three things of a convolution: its input and its output to 256 levels
of one scale a tensor, its weight to 255 levels of one scale an output channel. On the same pictures
the imitation is within a few tenths of a dB of the files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx

from exporters import graph as g
from exporters.calibration import Method, TensorRange

_RELUS = (torch.ops.aten.relu.default, torch.ops.aten.relu_.default)


@dataclass(frozen=True)
class Bounds:
    """The (low, high) that 8 bits span at a convolution's input and output."""

    input: tuple[float, float]
    output: tuple[float, float]


@dataclass(frozen=True)
class Layer:
    """A convolution that may be quantised.

    Attributes:
        name: of the module it came from.
        node: its call.
        result: the call whose value is rounded: the convolution, or the ReLU that alone reads it.
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
    aten = torch.ops.aten
    kinds = (aten.conv2d.default, aten.conv_transpose2d.input)
    everything = [n for n in g.calls(graph, *kinds) if g.constant(graph, n.args[1]) is not None]  # type: ignore[arg-type]
    plain = [n for n in everything if n.target is aten.conv2d.default]
    chosen = [
        node
        for node in plain
        if _beyond(node, "all_input_nodes", kinds)
        and _beyond(node, "users", kinds)
        and g.shape(node)[2] * g.shape(node)[3] > 1
    ] or plain
    names = Counter(g.layer_name(node) for node in everything)
    chosen = [node for node in chosen if names[g.layer_name(node)] == 1]  # a shared weight has no one name
    kept = {g.layer_name(node): None for node in everything if node not in chosen}
    return [_layer(graph, node) for node in chosen], list(kept)


def _layer(graph: fx.GraphModule, node: fx.Node) -> Layer:
    weight = g.constant(graph, node.args[1])  # type: ignore[arg-type]
    assert weight is not None
    reader = next(iter(node.users)) if len(node.users) == 1 else None
    result = reader if reader is not None and reader.target in _RELUS else node
    height, width = g.shape(node)[2:]
    return Layer(g.layer_name(node), node, result, height * width * weight.numel())


def _beyond(node: fx.Node, direction: str, kinds: tuple[Any, ...]) -> bool:
    """Whether another convolution lies before (all_input_nodes) or after (users) a node."""
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


class Observed(fx.Interpreter):
    """Runs the graph and gathers the ranges of every layer's input and output, one tensor at a time."""

    def __init__(self, graph: fx.GraphModule, chosen: Iterable[Layer]):
        super().__init__(graph)
        self._inputs = {layer.node: layer.name for layer in chosen}
        self._outputs = {layer.result: layer.name for layer in chosen}
        self.inputs = {name: TensorRange() for name in self._inputs.values()}
        self.outputs = {name: TensorRange() for name in self._outputs.values()}

    def run_node(self, n: fx.Node) -> Any:
        if n in self._inputs:
            self.inputs[self._inputs[n]].update(self.env[n.args[0]].numpy())  # type: ignore[index]
        value = super().run_node(n)
        if n in self._outputs:
            self.outputs[self._outputs[n]].update(value.numpy())
        return value

    def bounds(self, method: Method) -> dict[str, Bounds]:
        """The bounds of every layer by one method."""
        return {
            name: Bounds(self.inputs[name].bounds(method), self.outputs[name].bounds(method))
            for name in self.inputs
        }


def observe(graph: fx.GraphModule, chosen: Iterable[Layer], pictures: Iterable[np.ndarray]) -> Observed:
    """Gather ranges over pictures (1, C, H, W), of which one is held at a time."""
    observed = Observed(graph, chosen)
    with torch.no_grad():
        for picture in pictures:
            observed.run(torch.from_numpy(picture))
    return observed


class Simulated(fx.Interpreter):
    """The graph with some of its convolutions rounded as INT8 rounds them; call it on a picture array."""

    def __init__(self, graph: fx.GraphModule, chosen: Iterable[Layer], bounds: Mapping[str, Bounds]):
        super().__init__(graph)
        self._nodes = {layer.node: bounds[layer.name] for layer in chosen}
        self._results = {layer.result: bounds[layer.name] for layer in chosen}
        self._weights = {node: _rounded_weight(g.constant(graph, node.args[1])) for node in self._nodes}  # type: ignore[arg-type]

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return self.run(torch.from_numpy(picture)).numpy()

    def run_node(self, n: fx.Node) -> Any:
        if n in self._nodes:
            entry, _, *rest = self.fetch_args_kwargs_from_env(n)[0]
            value = n.target(rounded(entry, self._nodes[n].input), self._weights[n], *rest, **n.kwargs)  # type: ignore[operator]
        else:
            value = super().run_node(n)
        return rounded(value, self._results[n].output) if n in self._results else value


def rounded(values: torch.Tensor, bounds: tuple[float, float]) -> torch.Tensor:
    """Values on 256 even levels over bounds that hold zero, one of which is zero."""
    low, high = bounds
    scale = max((high - low) / 255, 1e-12)
    zero = round(-low / scale)
    return (torch.round(values / scale).add_(zero).clamp_(0, 255).sub_(zero)).mul_(scale)


def _rounded_weight(weight: torch.Tensor | None) -> torch.Tensor:
    assert weight is not None
    scales = weight.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-12) / 127
    return torch.round(weight / scales) * scales
