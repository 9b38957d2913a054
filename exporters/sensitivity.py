"""What each convolution alone does to the picture when it is rounded.

The network is run in float once for a picture; at each layer a branch is taken off, in which that layer is
rounded, and followed to its end. So nothing before the layer is computed again, and no more is held than
the values that are still to be read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import fx

from compressor.quantisation.layers import Layer
from exporters.simulate import Simulated

Branch = Callable[[Layer], Simulated]
"""The graph with one layer rounded."""


def alone(
    graph: fx.GraphModule,
    chosen: Sequence[Layer],
    branch: Branch,
    picture: np.ndarray,
    found: Callable[[Layer, np.ndarray], None],
) -> None:
    """Run each layer alone in INT8.

    Args:
        graph: in float.
        chosen: the layers to try.
        branch: makes the graph that has one of them rounded.
        picture: input (1, C, H, W).
        found: is given each layer with the output that it alone makes.
    """
    trunk = _Trunk(graph, chosen, branch, found)
    with torch.no_grad():
        trunk.run(torch.from_numpy(picture))


class _Trunk(fx.Interpreter):
    """The graph in float, which branches off before every layer."""

    def __init__(
        self,
        graph: fx.GraphModule,
        chosen: Sequence[Layer],
        branch: Branch,
        found: Callable[[Layer, np.ndarray], None],
    ):
        super().__init__(graph)
        self._layers: Mapping[fx.Node, Layer] = {layer.node: layer for layer in chosen}
        self._branch, self._found = branch, found

    def run_node(self, n: fx.Node) -> object:
        if n in self._layers:
            layer = self._layers[n]
            self._found(layer, self._branch(layer).resume(self.env, n))
        return super().run_node(n)
