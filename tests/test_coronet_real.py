"""The exact parts of pruning on real generators: warm start, landing, materialising."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from compressor.coronet.hypernet import FORMS, HyperNetwork
from compressor.coronet.importance import sensitivity, starting_latent
from compressor.coronet.landing import cost_model, land
from compressor.coronet.materialise import shrink_spec, shrink_state, silence
from compressor.cost import count
from compressor.data.images import list_images, read_image, to_tensor
from compressor.generators import Generator, load
from compressor.graph import trace

REAL = {
    "gan_compression_horse2zebra.pth": None,
    "fast_style_la_muse.safetensors": "benchmarks.networks.fast_style:fast_style",
    "realesr-animevideov3.pth": None,
    "IMDN_x4.pth": "benchmarks.networks.imdn:imdn_x4",
}


@pytest.fixture(scope="module", params=REAL, ids=lambda name: Path(name).stem)
def real(request, shared_data) -> tuple[Generator, torch.Tensor]:
    generator = load(shared_data / "weights" / request.param, factory=REAL[request.param])
    picture = read_image(list_images(shared_data / "horse2zebra" / "testA_real")[0])[:64, :64]
    return generator, to_tensor(picture, generator.spec.image.input_range)


def apart(a: torch.Tensor, b: torch.Tensor, generator: Generator) -> float:
    """Largest difference, in units of white minus black."""
    low, high = generator.spec.image.output_range
    return float((a - b).abs().max()) / (high - low)


@torch.no_grad()
def test_warm_start_equals_the_original(real):
    generator, picture = real
    graph = trace(generator.module, generator.spec.image.input_shape)
    assert not graph.kept_whole
    latent = np.random.default_rng(0).uniform(0.5, 1.5, graph.classes)
    for form in FORMS:
        weights = HyperNetwork(generator.module, graph, latent, form).weights()
        made = torch.func.functional_call(generator.module, weights, (picture,))
        assert apart(made, generator.module(picture), generator) < 1e-4


def test_materialised_equals_its_hypernetwork_at_half_the_macs(real):
    generator, picture = real
    graph = trace(generator.module, generator.spec.image.input_shape)
    cost = cost_model(graph, generator.module, "macs")
    whole = cost(np.ones(graph.classes, bool))
    assert whole == count(generator.module, generator.spec.image.input_shape).macs
    importance = sensitivity(generator.module, graph, lambda step: picture, probes=2)
    latent = starting_latent(importance, cost.marginal(), graph.prunable)
    keep = land(latent, graph, cost, whole // 2)
    assert 0.99 * (whole // 2) <= cost(keep) <= whole // 2

    hyper = HyperNetwork(generator.module, graph, latent).weights()
    small = shrink_spec(generator.spec, graph, keep).build()
    state = {**generator.module.state_dict(), **hyper}
    small.load_state_dict(shrink_state(state, generator.module, graph, keep))
    assert count(small, generator.spec.image.input_shape).macs == cost(keep)
    with torch.no_grad():
        masked = torch.func.functional_call(generator.module, silence(hyper, graph, keep), (picture,))
        assert apart(small(picture), masked, generator) < 1e-4
