"""Random networks: the pruned network equals the masked one, and costs what was foretold."""

from __future__ import annotations

import copy
import json
import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from drawn import KINDS, Drawn, randomised
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from compressor.coronet.hypernet import FORMS, HyperNetwork
from compressor.coronet.importance import sensitivity
from compressor.coronet.landing import cost_model
from compressor.coronet.materialise import shrink_spec, shrink_state, silence
from compressor.cost import count
from compressor.generators.spec import GeneratorSpec
from compressor.graph import KERNEL_KINDS, ChannelGraph, trace
from compressor.surgery import resize

SHAPE = (1, 3, 8, 8)
EXAMPLES = int(os.environ.get("POCKETGAN_EXAMPLES", "100"))


def mask(graph: ChannelGraph, seed: int, share: float) -> np.ndarray:
    """(classes,) bool: at random, but at least one of every latent vector."""
    draw = np.random.default_rng(seed)
    keep = ~graph.prunable | (draw.random(graph.classes) < share)
    for group in np.unique(graph.groups[graph.prunable]):
        members = np.flatnonzero(graph.prunable & (graph.groups == group))
        keep[draw.choice(members)] = True
    return keep


def pruned(
    module: nn.Module,
    graph: ChannelGraph,
    keep: np.ndarray,
    original: nn.Module | None = None,
    spec: GeneratorSpec | None = None,
) -> tuple[nn.Module, GeneratorSpec]:
    """The small network, built from the original as a file's architecture is."""
    spec = shrink_spec(GeneratorSpec("custom", {}) if spec is None else spec, graph, keep)
    assert GeneratorSpec.from_json(json.loads(json.dumps(spec.as_json()))) == spec
    small = resize(copy.deepcopy(original or module), spec.widths, spec.splits)
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
def check(
    module: nn.Module, seed: int, share: float, rounds: int = 1, size: tuple[int, int] = (8, 12)
) -> ChannelGraph:
    graph = trace(module, SHAPE)
    first, original, spec = graph, module, None
    x = torch.rand((2, 3, *size), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for turn in range(rounds):
        keep = mask(graph, seed + turn, share)
        small, spec = pruned(module, graph, keep, original, spec)
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


def drawn(kinds: list[str], seed: int = 0) -> nn.Module:
    numbers = np.random.default_rng(seed)
    return randomised(Drawn(kinds, lambda low, high: int(numbers.integers(low, high + 1))), seed)


@pytest.mark.parametrize("kind", KINDS)
def test_each_step_alone(kind):
    """All but the steps that must be kept whole is pruned; a norm over all channels, or a buffer that is not
    saved, is named where it is drawn."""
    graph = check(drawn([kind]), 0, 0.5)
    names = dict(graph.kept_whole)
    if kind in ("odd", "count_in_arithmetic", "zeros", "weights_read"):
        assert names
    elif kind not in ("group_norm", "buffer") or not names:
        assert not names
        assert graph.prunable[graph.layers["head"].outputs].all()


def test_linear_layers_over_whole_maps_are_pruned():
    """Flattened maps into a linear layer and back: a channel is H x W columns, or rows, of the weights."""

    class Bottleneck(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down, self.up = nn.Conv2d(3, 6, 2, stride=2), nn.ConvTranspose2d(10, 3, 2, stride=2)
            self.encode, self.maps = nn.Linear(6 * 16, 8), nn.Linear(8, 10 * 16)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = F.relu(self.encode(torch.flatten(F.relu(self.down(x)), 1)))
            return self.up(self.maps(y).view(-1, 10, 4, 4))

    graph = trace(Bottleneck().eval(), SHAPE)
    assert not graph.kept_whole
    made = graph.layers["down"].outputs
    assert np.array_equal(graph.layers["encode"].inputs, np.repeat(made, 16))
    assert np.array_equal(graph.layers["maps"].outputs, np.repeat(graph.layers["up"].inputs, 16))
    for seed in range(3):
        check(randomised(Bottleneck(), seed), seed, 0.5, rounds=2, size=(8, 8))


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_hypernetworks_make_every_kind_of_weight(form):
    module = drawn(["grouped", "grouped_transposed", "depthwise", "se_linear", "shared", "twice_in_sequence"])
    graph = trace(module, SHAPE)
    latent = np.random.default_rng(0).uniform(0.5, 1.5, graph.classes)
    hyper = HyperNetwork(module, graph, latent, form).double()
    x = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    made = torch.func.functional_call(module, hyper.weights(), (x,), tie_weights=False)
    assert torch.allclose(made, module(x), atol=1e-5)


def groups_of_one_class(graph: ChannelGraph, layer: str) -> list[np.ndarray]:
    classes = graph.layers[layer].outputs
    return [np.flatnonzero(classes == each) for each in np.unique(classes)]


def test_grouped_convolutions_keep_equal_groups():
    module = nn.Sequential(nn.Conv2d(3, 12, 1), nn.Conv2d(12, 8, 3, groups=4), nn.Conv2d(8, 3, 1)).eval()
    graph = trace(module, SHAPE)
    assert [list(places) for places in groups_of_one_class(graph, "0")] == [
        [0, 3, 6, 9],
        [1, 4, 7, 10],
        [2, 5, 8, 11],
    ]
    assert [list(places) for places in groups_of_one_class(graph, "1")] == [[0, 2, 4, 6], [1, 3, 5, 7]]
    keep = np.ones(graph.classes, bool)
    keep[graph.layers["0"].outputs[1]] = False
    small, _ = pruned(module, graph, keep)
    assert (small[1].groups, small[1].in_channels, small[1].out_channels) == (4, 8, 8)
    kept = module[1].weight[:, [0, 2]]
    assert torch.equal(small[1].weight, kept)


def test_a_depthwise_convolution_with_several_outputs_loses_whole_groups():
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 8, 3, groups=4), nn.Conv2d(8, 3, 1)).eval()
    graph = trace(module, SHAPE)
    assert np.array_equal(graph.layers["1"].outputs, np.repeat(graph.layers["0"].outputs, 2))
    keep = np.ones(graph.classes, bool)
    keep[graph.layers["0"].outputs[1]] = False
    small, _ = pruned(module, graph, keep)
    assert (small[1].groups, small[1].out_channels) == (3, 6)


def test_group_norms_lose_whole_groups():
    module = nn.Sequential(nn.Conv2d(3, 12, 1), nn.GroupNorm(4, 12), nn.Conv2d(12, 3, 1)).eval()
    graph = trace(module, SHAPE)
    assert np.array_equal(graph.layers["0"].outputs, np.repeat(np.unique(graph.layers["0"].outputs), 3))
    keep = np.ones(graph.classes, bool)
    keep[graph.layers["0"].outputs[0]] = False
    small, _ = pruned(module, graph, keep)
    assert (small[1].num_groups, small[1].num_channels) == (3, 9)


def test_channels_that_cannot_be_tied_are_named():
    """The picture is among what a grouped convolution reads: no group can become narrower."""

    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(3, 3, 1)
            self.b = nn.Conv2d(6, 8, 1, groups=2)
            self.c = nn.Conv2d(8, 3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.c(self.b(torch.cat([x, self.a(x)], 1)))

    graph = trace(Joined().eval(), SHAPE)
    (named,) = graph.kept_whole
    assert named[0] == "b" and "Conv2d b" in named[1] and "equally wide" in named[1]
    assert not graph.prunable[graph.layers["a"].outputs].any()
    assert graph.prunable[graph.layers["b"].outputs].all()
    assert check(randomised(Joined(), 0), 0, 0.5).kept_whole == graph.kept_whole


class Kept(nn.Module):
    """One step between two convolutions, which cannot be pruned through."""

    def __init__(self, step) -> None:
        super().__init__()
        self.a, self.c = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 3, 1)
        self.norm, self.step = nn.LayerNorm(8), step
        self.weight = nn.Parameter(torch.randn(8, 8, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(self.step(self, self.a(x)))


@pytest.mark.parametrize(
    ("step", "name", "reason"),
    [
        (lambda m, x: m.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), "norm", "LayerNorm norm: it mixes"),
        (lambda m, x: F.conv2d(x, m.weight), "conv2d", "torch.conv2d in the network's forward: "),
        (lambda m, x: x.roll(2, 1), "roll", ".roll() in the network's forward: it mixes"),
        (
            lambda m, x: F.normalize(x, dim=1),
            "normalize",
            "torch.normalize in the network's forward: it mixes",
        ),
        (lambda m, x: x[:, ::2].repeat(1, 2, 1, 1), "getitem", "operator.getitem in the network's forward: "),
        (lambda m, x: x * x.size(1), "mul", "the number of channels"),
        (lambda m, x: torch.einsum("nchw,cdij->ndhw", x, m.weight), "einsum", "cannot be followed"),
        (lambda m, x: F.unfold(x, 1).view(1, 8, 8, 12), "unfold", "cannot be followed"),
    ],
)
@torch.no_grad()
def test_what_cannot_be_followed_is_kept_and_named_with_a_reason(step, name, reason):
    module = randomised(Kept(step), 0)
    graph = trace(module, (1, 3, 8, 12))
    assert name in dict(graph.kept_whole) and reason in dict(graph.kept_whole)[name]
    assert not graph.prunable[graph.layers["a"].outputs].any()


@pytest.mark.parametrize("which", ["weight_norm", "spectral_norm"])
def test_layers_whose_weights_are_computed_are_kept(which):
    middle = getattr(nn.utils.parametrizations, which)(nn.Conv2d(8, 8, 3, padding=1))
    module = nn.Sequential(nn.Conv2d(3, 8, 1), middle, nn.Conv2d(8, 6, 1), nn.Conv2d(6, 3, 1))
    graph = check(randomised(module, 0), 0, 0.5)
    ((name, reason),) = graph.kept_whole
    assert name == "1" and "weight or spectral norm" in reason
    assert graph.prunable[graph.layers["2"].outputs].all()


def test_layers_that_share_a_weight_are_kept():
    module = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 3, 1))
    module[2].weight = module[1].weight
    graph = check(randomised(module, 0), 0, 0.5)
    assert dict(graph.kept_whole) == {
        "1": "Conv2d 1: shares weights with 2",
        "2": "Conv2d 2: shares weights with 1",
    }


def test_sensitivity_of_a_grouped_convolution_is_known():
    """1x1 kernels, two groups: a class is one channel of each group, and moves both outputs it reaches."""
    first, second = nn.Conv2d(1, 4, 1, bias=False), nn.Conv2d(4, 2, 1, groups=2, bias=False)
    module = nn.Sequential(first, second).eval()
    graph = trace(module, (1, 1, 8, 8))
    picture = torch.rand(1, 1, 8, 8)
    measured = sensitivity(module, graph, lambda step: picture, probes=600)
    products = (second.weight.reshape(2, 2) * first.weight.reshape(2, 2)).detach()  # (group, place)
    expected = (products.square().sum(0) / 2).sqrt() * picture.square().mean().sqrt()
    assert measured[graph.layers["0"].outputs[:2]] == pytest.approx(expected.numpy(), rel=0.2)
