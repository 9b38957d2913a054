"""Equalisation of convolutions that feed an instance norm, so that INT8 treats all channels alike.

An instance norm takes out each channel's scale and offset, so a convolution before it may be scaled
per channel and lose its bias: the picture stays, but one scale for all channels of the quantised
tensor then serves each of them. Exact but for eps, which the norm adds to the variance: with s the
divisor of a channel and v its variance, sqrt(v + eps) / s became sqrt(v / s^2 + eps). The norm's
weight makes up for that at the variance measured on the calibration pictures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import fx

from compressor.quantisation.layers import before_own_norms
from compressor.quantisation.start import divisors_of
from exporters import graph as g


def equalise(
    graph: fx.GraphModule,
    pictures: Iterable[torch.Tensor],
    divisors: Mapping[str, Sequence[float]] | None = None,
) -> int:
    """Equalise in place every convolution whose one reader is an instance norm.

    Args:
        graph: captured, its instance norms whole (not yet rewritten).
        pictures: calibration inputs (1, C, H, W), gone through once.
        divisors: by layer, what its channels are to be divided by, where that is known; the other layers
            then stay as they are.

    Returns:
        How many convolutions were changed.
    """
    pairs = [
        (convolution, norm)
        for convolution, norm in before_own_norms(graph)
        if divisors is None or g.layer_name(convolution) in divisors
    ]
    watched = _Watch(graph, [convolution for convolution, _ in pairs])
    if pairs:
        with torch.no_grad():
            for picture in pictures:
                watched.run(picture)
    for convolution, norm in pairs:
        reach, variance = watched.reach[convolution], watched.variance[convolution] / watched.pictures
        known = None if divisors is None else divisors[g.layer_name(convolution)]
        divisor = divisors_of(reach) if known is None else torch.tensor(known)
        _scale(graph, convolution, norm, divisor, variance)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return len(pairs)


def _transposed(convolution: fx.Node) -> bool:
    return convolution.target is torch.ops.aten.conv_transpose2d.input


class _Watch(fx.Interpreter):
    """Runs the graph and keeps each watched channel's largest distance from its mean, and its variance."""

    def __init__(self, graph: fx.GraphModule, watched: list[fx.Node]):
        super().__init__(graph)
        self.reach = {node: torch.zeros(()) for node in watched}
        self.variance = {node: torch.zeros(()) for node in watched}
        self.pictures = 0

    def run(self, *args: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        self.pictures += 1
        return super().run(*args)

    def run_node(self, n: fx.Node) -> torch.Tensor:
        value = super().run_node(n)
        if n in self.reach:
            centred = value - value.mean((2, 3), keepdim=True)
            self.reach[n] = torch.maximum(self.reach[n], centred.abs().amax((0, 2, 3)))
            self.variance[n] = self.variance[n] + centred.square().mean((0, 2, 3))
        return value


def _scale(
    graph: fx.GraphModule, convolution: fx.Node, norm: fx.Node, divisor: torch.Tensor, variance: torch.Tensor
) -> None:
    weight = g.constant(graph, convolution.args[1])  # type: ignore[arg-type]
    assert weight is not None
    shape = (1, -1, 1, 1) if _transposed(convolution) else (-1, 1, 1, 1)
    # Without bias: the norm subtracts the mean, and the bias with it.
    g.set_weight(graph, convolution, weight / divisor.reshape(shape), None)

    eps = float(norm.args[7])  # type: ignore[arg-type]
    made_up = torch.sqrt((variance + eps * divisor.square()) / (variance + eps))
    old = g.constant(graph, norm.args[1])  # type: ignore[arg-type]
    new = made_up if old is None else old * made_up
    norm.args = (
        norm.args[0],
        g.add_constant(graph, norm, f"{g.layer_name(convolution)}_norm", new),
        *norm.args[2:],
    )
