"""Bias correction: rounding moves a channel's mean, and the bias takes that back at no cost.

Nagel et al. 2019 (arXiv:1906.04721), section 4.2, measured on pictures: a channel's correction is the mean
over pictures and pixels of the rounded convolution less that in float. Each layer is corrected for its own
rounding, on its input in float. To correct all at once for the layers before them too, pass after pass,
diverges: IMDN fell from 45.8 dB to 33.4 dB in three passes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import fx

from compressor.quantisation.layers import Layer, own_norm
from compressor.quantisation.ranges import Bounds
from exporters import graph as g
from exporters.simulate import Simulated

Shifts = Mapping[str, tuple[float, ...]]
"""By layer, what each output channel's bias is too high by."""


def correctable(graph: fx.GraphModule, chosen: Sequence[Layer]) -> list[Layer]:
    """The layers whose bias matters: a norm on the picture's own statistics subtracts it with the mean."""
    return [layer for layer in chosen if own_norm(graph, layer.node) is None]


def mean_errors(
    graph: fx.GraphModule,
    chosen: Sequence[Layer],
    bounds: Mapping[str, Bounds],
    pictures: Iterable[np.ndarray],
) -> Shifts:
    """By layer the mean error of each output channel, in the layer's own units.

    Args:
        graph: in float.
        chosen: the layers to measure.
        bounds: that they are rounded by.
        pictures: inputs (1, C, H, W); one is held at a time.
    """
    watched, count = _Errors(graph, chosen, bounds), 0
    with torch.no_grad():
        for picture in pictures:
            watched.run(torch.from_numpy(picture))
            count += 1
    return {layer.name: tuple((watched.sums[layer.node] / count).tolist()) for layer in chosen}


def correct(graph: fx.GraphModule, shifts: Shifts) -> None:
    """Take the shifts off a float graph's biases, in place; quantised, these are the files' int32 biases."""
    convolution = torch.ops.aten.conv2d.default
    for node in [node for node in g.calls(graph, convolution) if g.layer_name(node) in shifts]:
        weight, bias = (g.constant(graph, g.argument(node, position)) for position in (1, 2))
        assert weight is not None
        shift = torch.tensor(shifts[g.layer_name(node)])
        g.set_weight(graph, node, weight, -shift if bias is None else bias - shift)
    graph.graph.eliminate_dead_code()
    graph.recompile()


class _Errors(fx.Interpreter):
    """Runs the graph in float, and beside it each chosen convolution as it is rounded."""

    def __init__(self, graph: fx.GraphModule, chosen: Sequence[Layer], bounds: Mapping[str, Bounds]):
        super().__init__(graph)
        self._rounded = Simulated(graph, chosen, bounds)
        self.sums = {layer.node: torch.zeros(()) for layer in chosen}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n in self.sums:
            args, kwargs = self.fetch_args_kwargs_from_env(n)
            error = self._rounded.convolved(n, args, kwargs) - value
            self.sums[n] = self.sums[n] + error.mean((0, 2, 3))
        return value
