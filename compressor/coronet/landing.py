"""Landing exactly on a budget: what a choice of channels costs, and the best choice that fits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from compressor.errors import UsageError
from compressor.graph import KERNEL_KINDS, ChannelGraph, LayerChannels
from compressor.surgery import KERNELS, NORMS

MINIMUM = 4  # channels kept in every latent vector, as published (DHP's reference: k = 4)


@dataclass(frozen=True)
class CostModel:
    """The cost of a pruned network as a function of the channel classes kept.

    cost = fixed + sum over layers of pair * kept inputs * kept outputs + sum of each * kept.

    Attributes:
        inputs: (layers, classes) how many input channels of a layer each class holds.
        outputs: (layers, classes) the same for output channels.
        pair: (layers,) cost per pair of channels.
        each: (classes,) cost per channel class by itself (biases, norms, depthwise kernels).
        fixed: cost that no choice changes.
    """

    inputs: np.ndarray
    outputs: np.ndarray
    pair: np.ndarray
    each: np.ndarray
    fixed: int

    def __call__(self, keep: np.ndarray) -> int:
        """Cost of keeping the classes where `keep` (classes,) bool is true."""
        pairs = self.pair @ ((self.inputs @ keep) * (self.outputs @ keep))
        return round(self.fixed + pairs + self.each @ keep)

    def marginal(self) -> np.ndarray:
        """(classes,) what removing one class alone from the full network saves."""
        everything = np.ones(self.inputs.shape[1])
        saved = (self.pair * (self.outputs @ everything)) @ self.inputs
        saved += (self.pair * (self.inputs @ everything)) @ self.outputs
        return saved - self.pair @ (self.inputs * self.outputs) + self.each


def cost_model(graph: ChannelGraph, module: nn.Module, metric: str) -> CostModel:
    """The cost model of a network for "macs", "parameters" or "bytes" (FP32: 4 per parameter)."""
    if metric not in ("macs", "parameters", "bytes"):
        raise ValueError(f"{metric} is no count of weights")
    layers = list(graph.layers.values())
    inputs = np.array([np.bincount(layer.inputs, minlength=graph.classes) for layer in layers], float)
    outputs = np.array([np.bincount(layer.outputs, minlength=graph.classes) for layer in layers], float)
    pair, each = np.zeros(len(layers)), np.zeros(graph.classes)
    measure = _macs if metric == "macs" else _parameters
    for index, layer in enumerate(layers):
        part = module.get_submodule(layer.name)
        pair[index], per_channel = measure(layer, part)
        each += per_channel * outputs[index]
    if metric != "macs":
        sizes = {name: value.numel() for name, value in module.named_parameters()}
        for name, (_, classes) in graph.parameters.items():  # buffers count nothing
            each += np.bincount(classes, minlength=graph.classes) * (sizes.get(name, 0) / len(classes))
    model = CostModel(inputs, outputs, pair, each, 0)
    if metric == "macs":
        everything = model(np.ones(graph.classes))
        return replace(model, fixed=graph.layer_macs + graph.other_macs - everything)
    fixed = sum(value.numel() for value in module.parameters()) - model(np.ones(graph.classes))
    unit = 4 if metric == "bytes" else 1
    return CostModel(inputs, outputs, unit * pair, unit * each, unit * fixed)


def _macs(layer: LayerChannels, part: nn.Module) -> tuple[float, float]:
    """Cost per pair of channels and per output channel."""
    if layer.kind == "depthwise":
        return 0.0, layer.pair_macs
    return (0.0, 0.0) if layer.kind == "fixed" else (layer.pair_macs / layer.groups, 0.0)


def _parameters(layer: LayerChannels, part: nn.Module) -> tuple[float, float]:
    if layer.kind == "fixed" or not isinstance(part, (*KERNELS, *NORMS, nn.PReLU)):
        return 0.0, 0.0
    channels = len(layer.outputs)
    sizes = {name: value.numel() for name, value in part.named_parameters(recurse=False)}
    pair = 0.0
    if layer.kind in KERNEL_KINDS:
        pair = sizes.pop("weight") / (len(layer.inputs) * channels)
    return pair, sum(sizes.values()) / channels


def land(
    scores: np.ndarray,
    graph: ChannelGraph,
    cost: Callable[[np.ndarray], int],
    target: int,
    multiple: int = 1,
) -> np.ndarray:
    """Keep the classes with the largest scores, as much as the target allows and never more.

    One threshold over all latent vectors is bisected; the largest scores under it are then let
    back in wherever they still fit. Every latent vector keeps at least `MINIMUM` channels.

    Args:
        scores: (classes,) how much each class should be kept; only the order counts.
        target: the largest allowed cost.
        multiple: every latent vector keeps a multiple of this many entries (or all it has), as far as
            the result stays within 1 % of the target; see `compressor.coronet.rounding`.

    Returns:
        (classes,) bool.

    Raises:
        UsageError: even the smallest network is too large; says which budget can be reached.
    """
    if multiple > 1:
        from compressor.coronet.rounding import land_rounded

        return land_rounded(scores, graph, cost, target, multiple)
    must = always_kept(scores, graph)
    smallest = cost(must)
    if smallest > target:
        whole = cost(np.ones(graph.classes, bool))
        raise UsageError(
            "this budget cannot be reached",
            got=f"{target:,}",
            allowed=f"at least {smallest:,} ({100 * smallest / whole:.2f} % of the original)",
            fix="ask for a larger budget"
            + (f"; {len(graph.kept_whole)} steps had to be kept whole" if graph.kept_whole else ""),
        )
    order = np.flatnonzero(~must)
    order = order[np.argsort(-scores[order], kind="stable")]
    low, high = 0, len(order)  # how many of the optional classes fit
    while low < high:
        middle = (low + high + 1) // 2
        keep = must.copy()
        keep[order[:middle]] = True
        low, high = (middle, high) if cost(keep) <= target else (low, middle - 1)
    keep = must.copy()
    keep[order[:low]] = True
    for candidate in order[low:]:
        keep[candidate] = True
        if cost(keep) > target:
            keep[candidate] = False
    return keep


def always_kept(scores: np.ndarray, graph: ChannelGraph) -> np.ndarray:
    """(classes,) bool: what cannot be pruned, and the best of each latent vector, `MINIMUM` channels."""
    keep = ~graph.prunable
    for group in np.unique(graph.groups[graph.prunable]):
        members = np.flatnonzero(graph.prunable & (graph.groups == group))
        best = members[np.argsort(-scores[members], kind="stable")]
        before = np.cumsum(graph.channels_each[best]) - graph.channels_each[best]
        keep[best[before < MINIMUM]] = True
    return keep
