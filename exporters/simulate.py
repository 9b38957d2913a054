"""INT8 arithmetic imitated in PyTorch, so that it can be planned once for every runtime.

Both runtimes round the same three things of a convolution: its input and its output to 256 levels
of one scale a tensor, its weight to 255 levels of one scale an output channel. On the same pictures
the imitation is within a few tenths of a dB of the files.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import fx

from compressor.quantisation.calibration import Method, TensorRange
from compressor.quantisation.layers import Layer
from compressor.quantisation.ranges import Bounds
from compressor.quantisation.rounding import rounded, rounded_weight
from exporters import graph as g


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

    def see(self, picture: np.ndarray) -> None:
        """Take in one picture (1, C, H, W)."""
        with torch.no_grad():
            self.run(torch.from_numpy(picture))

    def bounds(self, method: Method, also: Observed | None = None) -> dict[str, Bounds]:
        """The bounds of every layer by one method, over the pictures of another one `also`."""

        def of(kind: str, name: str) -> tuple[float, float]:
            found: TensorRange = getattr(self, kind)[name]
            return (found if also is None else found.merged(getattr(also, kind)[name])).bounds(method)

        return {name: Bounds(of("inputs", name), of("outputs", name)) for name in self.inputs}


def observe(graph: fx.GraphModule, chosen: Iterable[Layer], pictures: Iterable[np.ndarray]) -> Observed:
    """Gather ranges over pictures (1, C, H, W), of which one is held at a time."""
    observed = Observed(graph, chosen)
    for picture in pictures:
        observed.see(picture)
    return observed


class Simulated(fx.Interpreter):
    """The graph with some of its convolutions rounded as INT8 rounds them; call it on a picture array.

    Args:
        graph: in float.
        chosen: the convolutions.
        bounds: what they are rounded by.
        shifts: by layer, what is taken off the bias of each output channel (`exporters.bias`).
    """

    def __init__(
        self,
        graph: fx.GraphModule,
        chosen: Sequence[Layer],
        bounds: Mapping[str, Bounds],
        shifts: Mapping[str, Sequence[float]] | None = None,
    ):
        super().__init__(graph)
        self._order = list(graph.graph.nodes)
        self._shifts = {
            layer.node: torch.tensor(shifts[layer.name]).reshape(1, -1, 1, 1)
            for layer in chosen
            if shifts and layer.name in shifts
        }
        self._nodes = {layer.node: bounds[layer.name] for layer in chosen}
        self._results = {layer.result: bounds[layer.name] for layer in chosen}
        self._weights = {node: rounded_weight(g.constant(graph, node.args[1])) for node in self._nodes}  # type: ignore[arg-type]

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return self.run(torch.from_numpy(picture)).numpy()

    def resume(self, env: Mapping[fx.Node, Any], node: fx.Node) -> np.ndarray:
        """The output, computed from a node on with the values that were there before it."""
        self.env = dict(env)
        for each in itertools.dropwhile(lambda other: other is not node, self._order):
            value = self.run_node(each)
            if each.op == "output":
                return value.numpy()
            self.env[each] = value
            for read in self.user_to_last_uses.get(each, ()):
                del self.env[read]
        raise AssertionError("a graph without an output")

    def run_node(self, n: fx.Node) -> Any:
        if n in self._nodes:
            value = self.convolved(n, *self.fetch_args_kwargs_from_env(n))
        else:
            value = super().run_node(n)
        return rounded(value, self._results[n].output) if n in self._results else value

    def convolved(self, n: fx.Node, args: Sequence[Any], kwargs: Mapping[str, Any]) -> torch.Tensor:
        """What a chosen convolution makes of its arguments on rounded numbers, its result not yet rounded."""
        entry, _, *rest = args
        value = n.target(rounded(entry, self._nodes[n].input), self._weights[n], *rest, **kwargs)  # type: ignore[operator]
        return value - self._shifts[n] if n in self._shifts else value
