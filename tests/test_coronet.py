"""Channel classes, hypernetworks, landing and materialising, against closed forms and each other."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Small
from torch import nn

from compressor.budget import Budget
from compressor.coronet.hypernet import EMBEDDING, FORMS, HyperNetwork, _Contract
from compressor.coronet.importance import sensitivity, starting_latent
from compressor.coronet.landing import MINIMUM, always_kept, cost_model, land
from compressor.coronet.materialise import shrink_spec, shrink_state, silence
from compressor.cost import count
from compressor.errors import UsageError
from compressor.generators.spec import GeneratorSpec
from compressor.graph import trace
from compressor.surgery import resize

SHAPE = (1, 3, 16, 16)


def network(seed: int = 0, norm: str = "instance") -> nn.Module:
    torch.manual_seed(seed)
    module = Small(norm=norm).eval()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):  # statistics and affine that a removed channel would show in
            nn.init.normal_(part.weight)
            nn.init.normal_(part.bias)
            nn.init.normal_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.5, 2.0)
    return module


def pruned(module: nn.Module, keep: np.ndarray) -> nn.Module:
    graph = trace(module, SHAPE)
    spec = shrink_spec(GeneratorSpec("custom", {}), graph, keep)
    small = resize(copy.deepcopy(module), spec.widths, spec.splits)
    small.load_state_dict(shrink_state(module.state_dict(), module, graph, keep))
    return small.eval()


def test_channels_that_meet_in_a_sum_are_one_class():
    graph = trace(network(), SHAPE)
    head = graph.layers["head"].outputs
    for name in ("body.0.last", "body.1.last", "attention.up"):
        assert np.array_equal(graph.layers[name].outputs, head)
    assert np.array_equal(graph.layers["attention.down"].inputs, head)
    assert not graph.kept_whole


def test_split_concatenation_and_depthwise_are_followed():
    graph = trace(network(), SHAPE)
    made = graph.layers["body.0.first"].outputs
    swapped = np.concatenate([made[4:], made[:4]])
    assert graph.layers["body.0.depthwise"].kind == "depthwise"
    assert np.array_equal(graph.layers["body.0.depthwise"].inputs, swapped)
    assert np.array_equal(graph.layers["body.0.last"].inputs, swapped)
    assert [len(part) for part in graph.splits["split"]] == [4, 8]
    joined = np.concatenate([graph.layers["skip"].outputs, graph.layers["up"].outputs])
    assert np.array_equal(graph.layers["fuse"].inputs, joined)


def test_pixel_shuffle_ties_blocks_of_four():
    graph = trace(network(), SHAPE)
    assert np.array_equal(graph.layers["fuse"].outputs, np.repeat(graph.layers["tail"].inputs, 4))


def test_pictures_are_never_pruned():
    graph = trace(network(), SHAPE)
    assert not graph.prunable[graph.layers["head"].inputs].any()
    assert not graph.prunable[graph.layers["tail"].outputs].any()


def test_what_cannot_be_followed_is_named_and_kept():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Conv2d(3, 8, 3, padding=1)
            self.b = nn.Conv2d(8, 8, 3, padding=1, groups=2)
            self.c = nn.Conv2d(8, 3, 1)

        def forward(self, x):
            return self.c(self.b(self.a(x)).cumsum(1))

    graph = trace(Odd().eval(), SHAPE)
    assert graph.kept_whole == (
        ("cumsum", ".cumsum() in the network's forward: it mixes its channels with each other"),
    )
    assert not graph.prunable[graph.layers["b"].outputs].any()
    assert graph.prunable[graph.layers["a"].outputs].all()


@pytest.mark.parametrize("metric", ["macs", "parameters", "bytes"])
@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
def test_cost_model_equals_the_count_of_the_pruned_network(metric, norm):
    module = network(norm=norm)
    graph = trace(module, SHAPE)
    model = cost_model(graph, module, metric)
    everything = np.ones(graph.classes, bool)
    assert model(everything) == getattr(count(module, SHAPE), metric)
    keep = land(np.random.default_rng(1).random(graph.classes), graph, model, model(everything) // 2)
    assert model(keep) == getattr(count(pruned(module, keep), SHAPE), metric)


def test_marginal_is_the_difference_of_two_costs():
    module = network()
    graph = trace(module, SHAPE)
    model = cost_model(graph, module, "macs")
    everything = np.ones(graph.classes, bool)
    for index in range(graph.classes):
        without = everything.copy()
        without[index] = False
        assert model(everything) - model(without) == pytest.approx(model.marginal()[index])


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000), share=st.floats(0.3, 0.95), norm=st.sampled_from(["instance", "batch", "none"])
)
def test_small_network_equals_the_silenced_large_one(seed, share, norm):
    module = network(seed, norm)
    graph = trace(module, SHAPE)
    model = cost_model(graph, module, "macs")
    scores = np.random.default_rng(seed).random(graph.classes)
    keep = land(scores, graph, model, int(share * model(np.ones(graph.classes, bool))))
    weights = {name: value for name, value in module.state_dict().items() if name.endswith("weight")}
    x = torch.rand(2, 3, 16, 16)
    large = torch.func.functional_call(module, silence(weights, graph, keep), (x,))
    assert torch.allclose(pruned(module, keep)(x), large, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_warm_start_reproduces_the_network(form):
    module = network()
    graph = trace(module, SHAPE)
    latent = np.random.default_rng(0).uniform(0.5, 1.5, graph.classes)
    hyper = HyperNetwork(module, graph, latent, form)
    x = torch.rand(1, 3, 16, 16)
    made = torch.func.functional_call(module, hyper.weights(), (x,))
    assert (made - module(x)).abs().max() < 1e-6


def test_published_form_computes_its_equations():
    """O_ij = W2_ij (Z_ij w1_ij + b1_ij) + b2_ij with Z = z z^T + b0, written out for one kernel."""
    module = network()
    graph = trace(module, SHAPE)
    hyper = HyperNetwork(module, graph, np.ones(graph.classes), "dhp")
    with torch.no_grad():
        for parameter in hyper.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    index = hyper.convolutions.index("head")
    part = hyper.parts[str(index)]
    i, j = 2, 5
    z = hyper.latent[graph.layers["head"].inputs[i]] * hyper.latent[graph.layers["head"].outputs[j]]
    latent = z + part.latent_bias[j, i]
    embedding = latent * part.embed[j, i] + part.embed_bias[j, i]
    assert embedding.shape == (EMBEDDING,)
    kernel = part.explicit[j, i] @ embedding + part.explicit_bias[j, i]
    assert torch.allclose(hyper.weights()["head.weight"][j, i].flatten(), kernel, atol=1e-6)


def test_gradients_of_the_published_form_are_those_of_its_sums():
    explicit = torch.randn(3, 2, 4, EMBEDDING, dtype=torch.float64, requires_grad=True)
    embedding = torch.randn(3, 2, EMBEDDING, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(_Contract.apply, (explicit, embedding))
    summed = (explicit * embedding[..., None, :]).sum(3)
    assert torch.allclose(_Contract.apply(explicit, embedding), summed)


@pytest.mark.parametrize("form", FORMS)
def test_fused_adam_is_adam_on_kernels_of_any_memory_order(form):
    """Kernels of transposed convolutions lie in memory in the convolution's own order."""
    module = network()
    graph = trace(module, SHAPE)
    x, ends = torch.rand(1, 3, 16, 16), []
    for fused in (False, True):
        hyper = HyperNetwork(module, graph, np.ones(graph.classes), form)
        optimiser = torch.optim.Adam(hyper.parameters(), lr=1e-2, fused=fused)
        for _ in range(4):
            optimiser.zero_grad()
            torch.func.functional_call(module, hyper.weights(), (x,)).square().mean().backward()
            optimiser.step()
        ends.append(hyper.state_dict())
    up = hyper.parts[str(hyper.convolutions.index("up"))]
    assert not all(parameter.is_contiguous() for parameter in up.parameters())
    assert all(torch.allclose(value, ends[1][name], atol=1e-5) for name, value in ends[0].items())


def test_collapsed_form_is_the_published_one():
    """A = W2 w1 and C = W2 (b0 w1 + b1) + b2 give the same weights for any latent entries."""
    module = network()
    graph = trace(module, SHAPE)
    dhp = HyperNetwork(module, graph, np.ones(graph.classes), "dhp")
    collapsed = HyperNetwork(module, graph, np.ones(graph.classes), "collapsed")
    with torch.no_grad():
        for parameter in dhp.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        for key, part in dhp.parts.items():
            slope = torch.einsum("oikm,oim->oik", part.explicit, part.embed)
            inner = part.latent_bias[..., None] * part.embed + part.embed_bias
            offset = torch.einsum("oikm,oim->oik", part.explicit, inner) + part.explicit_bias
            collapsed.parts[key].slope.copy_(slope)
            collapsed.parts[key].offset.copy_(offset)
        collapsed.latent.copy_(dhp.latent)
    ours, theirs = collapsed.weights(), dhp.weights()
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-5) for name in theirs)


def test_landing_never_passes_the_target_and_keeps_the_best():
    module = network()
    graph = trace(module, SHAPE)
    model = cost_model(graph, module, "macs")
    whole = model(np.ones(graph.classes, bool))
    scores = np.random.default_rng(2).random(graph.classes)
    for share in (0.9, 0.7, 0.5, 0.3):
        keep = land(scores, graph, model, int(share * whole))
        assert model(keep) <= share * whole
        for group in np.unique(graph.groups[graph.prunable]):
            assert keep[graph.groups == group].sum() >= min(MINIMUM, (graph.groups == group).sum())


def test_impossible_budget_names_the_smallest():
    module = network()
    graph = trace(module, SHAPE)
    model = cost_model(graph, module, "macs")
    scores = np.ones(graph.classes)
    smallest = model(always_kept(scores, graph))
    with pytest.raises(UsageError, match=f"{smallest:,}"):
        land(scores, graph, model, smallest - 1)
    assert model(land(scores, graph, model, smallest)) == smallest


def test_sensitivity_of_a_linear_network_is_known():
    """Two 1x1 convolutions: removing hidden channel h moves output o by w2[o,h] w1[h] x."""
    first, second = nn.Conv2d(1, 6, 1, bias=False), nn.Conv2d(6, 1, 1, bias=False)
    module = nn.Sequential(first, second).eval()
    graph = trace(module, (1, 1, 8, 8))
    picture = torch.rand(1, 1, 8, 8)
    measured = sensitivity(module, graph, lambda step: picture, probes=400)
    product = (first.weight.flatten() * second.weight.flatten()).abs().detach().numpy()
    expected = product * float(picture.square().mean().sqrt())
    assert measured[graph.layers["0"].outputs] == pytest.approx(expected, rel=0.2)


def test_starting_latent_orders_by_importance_for_cost():
    latent = starting_latent(
        np.array([3.0, 1.0, 2.0, 9.0]), np.array([9.0, 4.0, 1.0, 1.0]), np.array([True] * 3 + [False])
    )
    assert list(latent) == [1.0, 0.5, 1.5, 1.0]


@pytest.mark.parametrize(
    ("text", "metric", "share", "amount"),
    [
        ("macs=50%", "macs", 0.5, None),
        ("MACS = 2.5G", "macs", None, 2_500_000_000),
        ("params=350k", "parameters", None, 350_000),
        ("bytes=1.8MB", "bytes", None, 1_800_000),
    ],
)
def test_budgets_are_read(text, metric, share, amount):
    budget = Budget.parse(text)
    assert (budget.metric, budget.share, budget.amount) == (metric, share, amount)


@pytest.mark.parametrize(
    "text",
    ["", "macs", "macs=0%", "macs=100%", "flops=50%", "macs=1.8MB", "macs=-5%", "params=0"],
)
def test_bad_budgets_are_refused(text):
    with pytest.raises(UsageError):
        Budget.parse(text)


@pytest.mark.parametrize("text", [f"params={'9' * 400}", f"macs={'9' * 305}G"])
def test_budgets_beyond_any_float_are_refused(text):
    with pytest.raises(UsageError):
        Budget.parse(text)


def test_budget_already_met_is_refused():
    with pytest.raises(UsageError, match="already"):
        Budget.parse("params=2M").target(1_000_000)
