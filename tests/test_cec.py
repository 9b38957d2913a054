"""CEC's evolution of filter masks: finds what is known to be best, keeps budgets, goes on after a stop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import cec
from compressor.budget import Budget
from compressor.coronet.targets import joint_cost
from compressor.files import read_json
from compressor.generators import Generator, GeneratorSpec
from compressor.generators.spec import ImageFormat
from compressor.graph import ChannelGraph, trace

LIVE = {"body.0": [1, 3, 4, 6], "body.2": [0, 2, 5, 7]}  # filters that anything reads
SETTINGS = cec.Settings(population=12, generations=40, mutation=0.08, probes=1)
Job = tuple[Generator, ChannelGraph, Callable[[np.ndarray], int], np.ndarray]


@pytest.fixture
def job() -> Job:
    """A network of two layers of eight filters, half of which nothing reads; and the mask of the others."""
    torch.manual_seed(0)
    arguments = {"features": 8, "convolutions": 1, "scale": 1}
    spec = GeneratorSpec("srvgg", arguments, ImageFormat((0.0, 1.0), (0.0, 1.0), size=(16, 16)))
    module = spec.build()
    graph = trace(module, (1, 3, 16, 16))
    best = ~graph.prunable
    with torch.no_grad():
        for made, read in (("body.0", "body.2"), ("body.2", "body.4")):
            best[graph.layers[made].outputs[LIVE[made]]] = True
            dead = [number for number in range(8) if number not in LIVE[made]]
            module.get_submodule(read).weight[:, dead] = 0  # type: ignore[index, operator]
    generator = Generator(spec, module, Path("tiny"), "0" * 64)
    cost, _ = joint_cost(graph, module, Budget.parse("macs=50%"))
    return generator, graph, cost, best


def pictures(number: int) -> torch.Tensor:
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(number))


def test_evolution_finds_the_filters_that_matter(job: Job, tmp_path: Path) -> None:
    generator, graph, cost, best = job
    target = cost(best)
    found = cec.evolve(generator, graph, cost, target, pictures, tmp_path, 0, SETTINGS)
    np.testing.assert_array_equal(found, best)
    state = read_json(tmp_path / "cec.json")
    masks = np.array(state["masks"], bool)
    assert all(cost(mask) <= target and mask[~graph.prunable].all() for mask in masks)
    share = min(state["scores"]) / SETTINGS.size_weight
    assert 0 < share < 1  # nothing but size is left: the pictures are the same


def test_a_stopped_evolution_goes_on_to_the_same_end(job: Job, tmp_path: Path) -> None:
    generator, graph, cost, best = job
    target, few = cost(best), cec.Settings(population=6, generations=6, probes=1)

    class Killed(Exception):
        pass

    asked = 0

    def dying(mask: np.ndarray) -> int:
        nonlocal asked
        asked += 1
        if asked == 60:
            raise Killed
        return cost(mask)

    with pytest.raises(Killed):
        cec.evolve(generator, graph, dying, target, pictures, tmp_path / "a", 1, few)
    assert 0 < read_json(tmp_path / "a" / "cec.json")["generation"] < few.generations
    cec.evolve(generator, graph, cost, target, pictures, tmp_path / "a", 1, few)
    cec.evolve(generator, graph, cost, target, pictures, tmp_path / "b", 1, few)
    assert read_json(tmp_path / "a" / "cec.json") == read_json(tmp_path / "b" / "cec.json")


def test_masks_are_fitted_into_the_budget_and_use_it(job: Job) -> None:
    _, graph, cost, best = job
    rng = np.random.default_rng(0)
    for share in (0.0, 0.3, 1.0):
        for _ in range(10):
            mask = graph.prunable & (rng.random(graph.classes) < share)
            fitted = cec.fit(mask, graph, cost, cost(best), rng)
            assert cost(fitted) <= cost(best)
            more = np.flatnonzero(~fitted)
            grown = [np.where(np.arange(graph.classes) == each, True, fitted) for each in more]
            smallest = min((cost(each) for each in grown), default=cost(best) + 1)
            assert smallest > cost(best)  # no filter more would fit
