"""INT8 plans are judged on pictures that had no part in the ranges, and layers are tried one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from compressor.quantisation.layers import layers
from exporters import graph as g
from exporters import int8
from exporters.crossed import Halves
from exporters.judge import JUDGED, Judge
from exporters.rewrite import normalise
from exporters.sensitivity import alone
from exporters.simulate import Simulated, observe

RANGE = (-1.0, 1.0)


class Branches(nn.Module):
    """Convolutions with a skip, a batch norm, a PReLU and a concatenation between them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.head, self.tail = nn.Conv2d(3, 8, 3, 1, 1), nn.Conv2d(16, 3, 3, 1, 1)
        self.one = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.two = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.PReLU(8))
        self.three = nn.Conv2d(8, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.head(x)
        y = self.one(x) + x
        return torch.tanh(self.tail(torch.cat([self.two(y), self.three(y)], 1)))


def pictures(count: int, loud: int | None = None) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    made = [random.uniform(-0.3, 0.3, (1, 3, 24, 24)).astype(np.float32) for _ in range(count)]
    if loud is not None:
        made[loud] *= 10
    return made


@pytest.fixture(scope="module")
def graph():
    found = g.capture(Branches().eval().requires_grad_(False), torch.zeros(1, 3, 24, 24))
    normalise(found)
    return found


def references(graph, shown):
    return [(str(i), x, graph(torch.from_numpy(x)).numpy()) for i, x in enumerate(shown)]


def test_a_picture_is_judged_by_the_ranges_of_the_other_half(graph):
    shown, (chosen, _) = pictures(5), layers(graph)
    halves = Halves(graph, chosen, lambda: shown)
    for method in ("minmax", "average", "widened"):
        even, odd = (observe(graph, chosen, shown[half::2]).bounds(method) for half in (0, 1))
        assert halves.crossed(method).bounds == (odd, even)
        assert halves.bounds(method).keys() == even.keys()
        for name, found in halves.bounds(method).items():
            wanted = observe(graph, chosen, shown).bounds(method)[name]
            np.testing.assert_allclose((found.input, found.output), (wanted.input, wanted.output), rtol=1e-5)


def test_a_single_picture_has_to_judge_itself(graph):
    (chosen, _), shown = layers(graph), pictures(1)
    halves = Halves(graph, chosen, lambda: shown)
    assert halves.crossed("minmax").bounds == (halves.bounds("minmax"),) * 2
    assert int8.plan(graph, lambda: shown, references(graph, shown), RANGE, goal=1.0).psnr > 20


def test_a_picture_that_stands_out_is_seen_to_be_clipped(graph):
    """By the ranges of all pictures it would do as well as any."""
    shown = pictures(6, loud=3)
    judged = references(graph, shown)
    chosen, _ = layers(graph)
    halves = Halves(graph, chosen, lambda: shown)
    crossed = halves.crossed("minmax").simulated(graph, chosen)
    judge = Judge.of_hardest(crossed, zip(judged, [None] * 6, strict=True), RANGE)
    assert len(judge.hardest) == JUDGED and judge.hardest[0].picture[0] == "3"
    own = Simulated(graph, chosen, halves.bounds("minmax"))
    assert judge.pooled(crossed) < judge.pooled((own, own)) - 6
    plan = int8.plan(graph, lambda: shown, judged, RANGE, goal=1.0)
    assert plan.bounds == halves.bounds(plan.method)  # the file has the ranges of all


def test_one_run_tries_every_layer_alone(graph):
    chosen, _ = layers(graph)
    (picture,) = pictures(1)
    bounds = observe(graph, chosen, [picture]).bounds("minmax")
    shifts = {chosen[1].name: (0.01,) * 8}
    found = {}
    alone(
        graph,
        chosen,
        lambda layer: Simulated(graph, [layer], bounds, shifts),
        picture,
        lambda layer, output: found.update({layer.name: output}),
    )
    assert list(found) == [layer.name for layer in chosen]
    for layer in chosen:
        expected = Simulated(graph, [layer], bounds, shifts)(picture)
        np.testing.assert_array_equal(found[layer.name], expected)


def test_the_search_tells_how_far_it_is(graph):
    shown, told = pictures(4), []
    plan = int8.plan(graph, lambda: shown, references(graph, shown), RANGE, goal=99.0, tell=told.append)
    count = 2 * len(layers(graph)[0])
    assert told[:4] == [f"INT8 calibration, picture {i}" for i in (1, 2, 3, 4)]
    assert [each for each in told if "tried" in each] == [
        f"INT8 layers tried {i}/{count}" for i in range(1, count + 1)
    ]
    assert len(plan.kept) > 2
