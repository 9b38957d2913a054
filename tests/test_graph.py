"""Channel classes of random networks: the pruned network equals the masked one, and costs what was foretold."""

from __future__ import annotations

import copy
import json
import os

import numpy as np
import pytest
import torch
from drawn import KINDS, Drawn, randomised
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from compressor.coronet.hypernet import HyperNetwork
from compressor.coronet.landing import cost_model
from compressor.coronet.materialise import shrink_spec, shrink_state, silence
from compressor.cost import count
from compressor.generators.spec import GeneratorSpec
from compressor.graph import KERNEL_KINDS, ChannelGraph, trace
from compressor.surgery import resize

SHAPE = (1, 3, 8, 8)
EXAMPLES = int(os.environ.get("POCKETGAN_EXAMPLES", "120"))


def mask(graph: ChannelGraph, seed: int, share: float) -> np.ndarray:
    """(classes,) bool: at random, but at least one of every latent vector."""
    draw = np.random.default_rng(seed)
    keep = ~graph.prunable | (draw.random(graph.classes) < share)
    for group in np.unique(graph.groups[graph.prunable]):
        members = np.flatnonzero(graph.prunable & (graph.groups == group))
        keep[draw.choice(members)] = True
    return keep


def pruned(
    module: nn.Module, graph: ChannelGraph, keep: np.ndarray, spec: GeneratorSpec | None = None
) -> tuple[nn.Module, GeneratorSpec]:
    spec = shrink_spec(GeneratorSpec("custom", {}) if spec is None else spec, graph, keep)
    assert GeneratorSpec.from_json(json.loads(json.dumps(spec.as_json()))) == spec
    small = resize(copy.deepcopy(module), spec.widths, spec.splits)
    for part in small.parameters():
        nn.init.constant_(part, torch.nan)  # nothing may stay that was not loaded
    small.load_state_dict(shrink_state(module.state_dict(), module, graph, keep))
    return small.eval(), spec


def masked(module: nn.Module, graph: ChannelGraph, keep: np.ndarray, x: torch.Tensor) -> torch.Tensor:
    """The full network with removed channels at zero where a layer makes them and where one reads them."""

    def gate(value: torch.Tensor, classes: np.ndarray, last: bool) -> torch.Tensor:
        kept = torch.from_numpy(keep[classes]).to(value)
        return value * (kept if last else kept[:, None, None])

    handles = []
    for layer in graph.layers.values():
        part, last = module.get_submodule(layer.name), layer.kind == "linear"
        if layer.kind in KERNEL_KINDS:
            handles.append(
                part.register_forward_pre_hook(lambda _, x, c=layer.inputs, e=last: (gate(x[0], c, e),))
            )
        handles.append(part.register_forward_hook(lambda _, x, y, c=layer.outputs, e=last: gate(y, c, e)))
    try:
        return module(x)
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def check(module: nn.Module, seed: int, share: float, rounds: int = 1) -> ChannelGraph:
    graph = trace(module, SHAPE)
    first, spec = graph, None
    x = torch.rand((2, 3, 8, 12), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for turn in range(rounds):
        keep = mask(graph, seed + turn, share)
        small, spec = pruned(module, graph, keep, spec)
        large = masked(module, graph, keep, x)
        weights = {name: value for name, value in module.named_parameters() if name.endswith("weight")}
        silenced = torch.func.functional_call(module, silence(weights, graph, keep), (x,), tie_weights=False)
        assert torch.allclose(small(x), large, rtol=0, atol=1e-5), "small against masked"
        assert torch.allclose(silenced, large, rtol=0, atol=1e-5), "silenced against masked"
        cost = count(small, SHAPE)
        for metric in ("macs", "parameters"):
            assert cost_model(graph, module, metric)(keep) == getattr(cost, metric), metric
        module, graph = small, trace(small, SHAPE) if turn + 1 < rounds else graph
    return first


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=6),
    data=st.data(),
    seed=st.integers(0, 10**6),
    share=st.sampled_from([0.2, 0.5, 0.8]),
    rounds=st.sampled_from([1, 1, 2]),
)
def test_random_networks_are_pruned_exactly(kinds, data, seed, share, rounds):
    def draw(low: int, high: int) -> int:
        return data.draw(st.integers(low, high))

    check(randomised(Drawn(kinds, draw), seed), seed, share, rounds)
