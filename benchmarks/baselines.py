"""What CoroNet is compared with: one fraction for all layers, and Torch-Pruning's own choices of channels.

A baseline chooses channels; cutting them out and training what remains is the same code for all, so that
nothing but the choice, and when it is made, differs.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from compressor.coronet.landing import MINIMUM
from compressor.coronet.materialise import shrink_spec, shrink_state
from compressor.generators import Generator
from compressor.graph import ChannelGraph

# Torch-Pruning's criteria by our name: the class, and whether channels of all layers are ranked together.
# A local ranking takes the same fraction of every layer; Torch-Pruning's default.
CRITERIA: dict[str, tuple[str, dict[str, Any], bool]] = {
    "tp-magnitude": ("MagnitudeImportance", {"p": 2}, False),
    "tp-magnitude-global": ("GroupMagnitudeImportance", {"p": 2}, True),
    "tp-taylor": ("GroupTaylorImportance", {}, False),
    "tp-taylor-global": ("GroupTaylorImportance", {}, True),
}
PROBES = 8  # batches that the data-driven criteria see


def cut(generator: Generator, graph: ChannelGraph, keep: np.ndarray) -> Generator:
    """The generator with only the channel classes where `keep` (classes,) bool is true, not trained."""
    spec = shrink_spec(generator.spec, graph, keep)
    module = spec.build()
    module.load_state_dict(shrink_state(generator.module.state_dict(), generator.module, graph, keep))
    return replace(generator, spec=spec, module=module)


def uniform(
    generator: Generator, graph: ChannelGraph, cost: Callable[[np.ndarray], int], target: int
) -> np.ndarray:
    """The same fraction of every latent vector, its channels with the largest kernels.

    What the last whole step of the fraction leaves of the budget is filled vector by vector.

    Returns:
        (classes,) bool.
    """
    scores = magnitude(generator.module, graph)
    vectors = []
    for group in np.unique(graph.groups[graph.prunable]):
        members = np.flatnonzero(graph.prunable & (graph.groups == group))
        vectors.append(members[np.argsort(-scores[members], kind="stable")])

    def kept(fraction: float) -> np.ndarray:
        keep = ~graph.prunable
        for members in vectors:
            keep[members[: max(MINIMUM, int(len(members) * fraction))]] = True
        return keep

    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(kept(middle)) <= target else (low, middle)
    keep = kept(low)
    for members in sorted(vectors, key=len, reverse=True):
        rest = members[~keep[members]]
        if len(rest):
            keep[rest[0]] = True
            if cost(keep) > target:
                keep[rest[0]] = False
    return keep


def magnitude(module: nn.Module, graph: ChannelGraph) -> np.ndarray:
    """(classes,) root of the summed squares of the kernels that make a channel."""
    total = np.zeros(graph.classes)
    for layer in graph.convolutions():
        if layer.kind == "fixed":
            continue
        weight = module.get_parameter(f"{layer.name}.weight").detach()
        made = weight.transpose(0, 1) if layer.kind == "transposed" else weight
        np.add.at(total, layer.outputs, made.flatten(1).square().sum(1).cpu().numpy())
    return np.sqrt(total)


def torch_pruning(
    name: str,
    generator: Generator,
    graph: ChannelGraph,
    cost: Callable[[np.ndarray], int],
    target: int,
    batch: Callable[[int], torch.Tensor],
) -> np.ndarray:
    """Torch-Pruning's choice under the budget: its ratio is bisected, since it cannot be told MACs.

    Args:
        name: of `CRITERIA`.
        batch: input pictures by number, for the criteria that look at gradients.

    Returns:
        (classes,) bool.
    """
    gradients = _gradients(generator.module, batch) if "taylor" in name else {}
    choose = functools.partial(_chosen, name, generator, graph, batch(0), gradients)
    low, high, best = 0.0, 1.0, None
    for _ in range(12):
        ratio = (low + high) / 2
        keep = choose(ratio)
        if cost(keep) <= target:
            high = ratio
            best = keep if best is None or cost(keep) > cost(best) else best
        else:
            low = ratio
    assert best is not None
    return best


def _chosen(
    name: str,
    generator: Generator,
    graph: ChannelGraph,
    example: torch.Tensor,
    gradients: dict[str, torch.Tensor],
    ratio: float,
) -> np.ndarray:
    import torch_pruning

    kind, arguments, together = CRITERIA[name]
    module, parts = without_splits(generator.module)
    module.eval().requires_grad_(True)
    importance = getattr(torch_pruning.importance, kind)(**arguments)
    layers = {layer.name: layer.outputs for layer in graph.convolutions()}
    for part, (whole, start, stop) in parts.items():
        layers[part] = layers[whole][start:stop]
    pruner = torch_pruning.pruner.BasePruner(
        module,
        example,
        importance,
        global_pruning=together,
        pruning_ratio=ratio,
        max_pruning_ratio=0.95,
        ignored_layers=[
            part
            for layer, part in module.named_modules()
            if layer in layers and not graph.prunable[layers[layer]].any()
        ],
    )
    for layer, parameter in module.named_parameters():
        if layer in gradients:
            parameter.grad = gradients[layer].clone()
    pruner.step()
    keep = np.ones(graph.classes, bool)
    for root, is_output, indices in pruner.DG.pruning_history():
        assert is_output, root
        alive = layers[root][keep[layers[root]]]
        keep[alive[np.array(indices, int)]] = False
    return keep | ~graph.prunable


def without_splits(module: nn.Module) -> tuple[nn.Module, dict[str, tuple[str, int, int]]]:
    """A copy in which a convolution whose output is split is one convolution for each part.

    Torch-Pruning 1.6.1 leaves a network with splits of fixed sizes (IMDN) unable to run; on this form,
    which computes the same, it works.

    Returns:
        The copy, and for each new convolution by name (the old one's name, first, last output + 1).
    """
    traced = fx.symbolic_trace(copy.deepcopy(module))
    parts: dict[str, tuple[str, int, int]] = {}
    for split in [node for node in traced.graph.nodes if node.target is torch.split]:
        sizes: Any = split.args[1]
        activation: Any = split.args[0]
        convolution: Any = activation.args[0]
        whole = traced.get_submodule(convolution.target)
        for index, start in enumerate(np.cumsum([0, *sizes[:-1]]).tolist()):
            name, stop = f"{convolution.target}_part{index}", start + sizes[index]
            traced.add_submodule(name, _part(whole, start, stop))
            parts[name] = (convolution.target, start, stop)
            with traced.graph.inserting_before(split):
                made = traced.graph.call_module(name, convolution.args)
                followed = traced.graph.node_copy(activation, {convolution: made}.__getitem__)
            for user in [user for user in split.users if user.args[1] == index]:
                user.replace_all_uses_with(followed)
    traced.graph.eliminate_dead_code()
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced, parts


def _part(whole: Any, start: int, stop: int) -> nn.Conv2d:
    part = copy.deepcopy(whole)
    part.out_channels = stop - start
    part.weight = nn.Parameter(whole.weight.detach()[start:stop].clone())
    if whole.bias is not None:
        part.bias = nn.Parameter(whole.bias.detach()[start:stop].clone())
    return part


def _gradients(module: nn.Module, batch: Callable[[int], torch.Tensor]) -> dict[str, torch.Tensor]:
    """Gradients of random projections of the output: a loss against the original's own pictures has none."""
    noise = torch.Generator().manual_seed(0)
    module = without_splits(module)[0].eval().requires_grad_(True)
    for probe in range(PROBES):
        output = module(batch(probe))
        (output * torch.randn(output.shape, generator=noise)).mean().backward()
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
