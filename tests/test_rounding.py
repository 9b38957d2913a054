"""Landing on widths that are multiples of a number."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Small

from compressor.coronet.landing import MINIMUM, cost_model, land
from compressor.errors import UsageError
from compressor.generators import load
from compressor.generators.resnet import ResnetGenerator
from compressor.generators.unet import UnetGenerator
from compressor.graph import ChannelGraph, trace

NETWORKS = {
    "resnet": (lambda: ResnetGenerator(width=64, blocks=9), (1, 3, 64, 64)),
    "unet": (lambda: UnetGenerator(width=64, depth=8), (1, 3, 256, 256)),
    "small": (lambda: Small(channels=24), (1, 3, 16, 16)),
}


def vectors(graph: ChannelGraph) -> list[np.ndarray]:
    return [
        np.flatnonzero(graph.prunable & (graph.groups == group))
        for group in np.unique(graph.groups[graph.prunable])
    ]


@pytest.fixture(scope="module", params=["resnet", "unet"])
def published(request):
    make, shape = NETWORKS[request.param]
    module = make()
    graph = trace(module, shape)
    return graph, cost_model(graph, module, "macs")


@pytest.mark.parametrize("share", [0.75, 0.5, 0.25, 0.1])
def test_published_generators_land_on_multiples_of_8(published, share):
    graph, cost = published
    target = int(share * cost(np.ones(graph.classes, bool)))
    for seed in range(3):
        keep = land(np.random.default_rng(seed).random(graph.classes), graph, cost, target, 8)
        assert 0.99 * target <= cost(keep) <= target
        assert all(keep[members].sum() % 8 == 0 for members in vectors(graph))


def test_the_best_of_every_vector_are_kept(published):
    graph, cost = published
    scores = np.random.default_rng(0).random(graph.classes)
    keep = land(scores, graph, cost, cost(np.ones(graph.classes, bool)) // 2, 8)
    for members in vectors(graph):
        kept, gone = members[keep[members]], members[~keep[members]]
        assert len(gone) == 0 or scores[kept].min() > scores[gone].max()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.floats(0.35, 0.97), multiple=st.sampled_from([2, 4, 8]))
def test_small_networks_stay_near_the_target(seed, share, multiple):
    """Odd widths come in only to reach 1 %; where not even they do, the plain landing bounds the loss."""
    module, shape = Small(channels=24), NETWORKS["small"][1]
    graph = trace(module, shape)
    cost = cost_model(graph, module, "macs")
    target = int(share * cost(np.ones(graph.classes, bool)))
    scores = np.random.default_rng(seed).random(graph.classes)
    keep = land(scores, graph, cost, target, multiple)
    assert cost(keep) <= target
    plain = land(scores, graph, cost, target)
    assert cost(keep) >= min(0.99 * target, cost(plain))
    counts = [(int(keep[m].sum()), len(m)) for m in vectors(graph)]
    assert all(count >= min(MINIMUM, size) for count, size in counts)


def test_multiple_of_1_is_the_plain_landing(published):
    graph, cost = published
    scores = np.random.default_rng(0).random(graph.classes)
    target = cost(np.ones(graph.classes, bool)) // 3
    assert np.array_equal(land(scores, graph, cost, target, 1), land(scores, graph, cost, target))


def test_a_target_below_the_smallest_rounded_network_takes_half_the_multiple(published):
    graph, cost = published
    scores = np.ones(graph.classes)

    def smallest(width: int) -> int:
        keep = ~graph.prunable
        for members in vectors(graph):
            keep[members[:width]] = True
        return cost(keep)

    keep = land(scores, graph, cost, smallest(8) - 1, 8)
    assert 0.99 * (smallest(8) - 1) <= cost(keep) < smallest(8)
    assert all(keep[members].sum() % 4 == 0 for members in vectors(graph))
    with pytest.raises(UsageError, match=f"at least {smallest(MINIMUM):,}"):
        land(scores, graph, cost, smallest(MINIMUM) - 1, 8)


@pytest.mark.parametrize(
    ("name", "factory"),
    [
        ("gan_compression_horse2zebra.pth", None),
        ("fast_style_la_muse.safetensors", "benchmarks.networks.fast_style:fast_style"),
        ("realesr-animevideov3.pth", None),
        ("IMDN_x4.pth", "benchmarks.networks.imdn:imdn_x4"),
    ],
)
def test_real_generators_land_on_multiples_of_8_within_1_percent(shared_data, name, factory):
    generator = load(shared_data / "weights" / name, factory=factory)
    graph = trace(generator.module, generator.spec.image.input_shape)
    cost = cost_model(graph, generator.module, "macs")
    for share in (0.75, 0.5, 0.25):
        target = int(share * cost(np.ones(graph.classes, bool)))
        keep = land(np.random.default_rng(0).random(graph.classes), graph, cost, target, 8)
        assert 0.99 * target <= cost(keep) <= target
        for members in vectors(graph):
            assert keep[members].sum() % 8 == 0 or keep[members].all()


def test_the_benchmark_compares_networks_that_differ_in_rounding_alone():
    """The odd network may not spend more than the rounded one, or its slowness would prove nothing."""
    from benchmarks.rounding import landings, networks
    from compressor.cost import count

    generator = networks()["srvgg"]
    made, facts = landings(generator, 0.5, 0)
    shape = generator.spec.image.input_shape
    assert {name: count(made[name].module, shape).macs for name in made} == {
        name: fact["macs"] for name, fact in facts.items()
    }
    assert 0.99 * facts["rounded"]["macs"] <= facts["odd"]["macs"] <= facts["rounded"]["macs"]
    assert all(width % 8 == 0 for width in facts["rounded"]["widths"])
    assert sum(width % 8 != 0 for width in facts["odd"]["widths"]) > 10
