"""Bias correction: against its definition, in a plan, and in the integers of a real file."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from compressor.quantisation.layers import layers
from compressor.quantisation.ranges import Bounds
from compressor.quantisation.rounding import rounded, rounded_weight
from exporters import graph as g
from exporters import int8
from exporters.bias import correct, correctable, mean_errors
from exporters.job import Job
from exporters.parity import check
from exporters.rewrite import normalise
from exporters.simulate import Simulated
from tests.test_export import Wild, generator, photos, plain  # noqa: F401 - a fixture


def captured(module: nn.Module, side: int = 32):
    graph = g.capture(module.eval().requires_grad_(False), torch.zeros(1, 3, side, side))
    normalise(graph)
    return graph


def pictures(count: int, side: int = 32) -> list[np.ndarray]:
    draw = np.random.default_rng(0)
    return [draw.gamma(1.0, 0.3, (1, 3, side, side)).clip(0, 1).astype(np.float32) for _ in range(count)]


@pytest.mark.parametrize("biased", [False, True])
def test_a_channels_correction_is_its_mean_error(biased):
    torch.manual_seed(1)
    module = nn.Conv2d(3, 6, 3, padding=1, bias=biased)
    graph, shown = captured(module), pictures(3)
    chosen, _ = layers(graph)
    bounds = {chosen[0].name: Bounds((0.0, 0.8), (-2.0, 2.0))}  # clips some of the input
    found = mean_errors(graph, chosen, bounds, shown)[chosen[0].name]
    x = torch.from_numpy(np.concatenate(shown))
    with torch.no_grad():
        coarse = nn.functional.conv2d(
            rounded(x, (0.0, 0.8)), rounded_weight(module.weight), module.bias, padding=1
        )
        expected = (coarse - module(x)).mean((0, 2, 3)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.abs(expected).max() > 1e-3

    before, own = module.weight.clone(), None if module.bias is None else module.bias.clone()
    with torch.no_grad():
        whole = graph(x[:1])
        correct(graph, {chosen[0].name: found})
        np.testing.assert_allclose(
            (whole - graph(x[:1])).numpy(), np.broadcast_to(expected[:, None, None], whole.shape), atol=1e-5
        )
    assert torch.equal(module.weight, before) and (own is None or torch.equal(module.bias, own))


def test_corrected_layers_keep_their_mean():
    torch.manual_seed(1)
    graph, shown = captured(nn.Conv2d(3, 6, 3, padding=1)), pictures(2)
    chosen, _ = layers(graph)
    bounds = {chosen[0].name: Bounds((0.0, 0.8), (-2.0, 2.0))}
    shifts = mean_errors(graph, chosen, bounds, shown)

    def off(run) -> np.ndarray:
        return np.mean([run(x) - graph(torch.from_numpy(x)).numpy() for x in shown], axis=(0, 1, 3, 4))

    with torch.no_grad():
        without, with_it = (off(Simulated(graph, chosen, bounds, each)) for each in ({}, shifts))
    assert np.abs(with_it).max() < np.abs(without).max() / 5  # what is left is the result's own rounding


def test_a_norm_on_the_pictures_own_statistics_needs_no_correction():
    graph = captured(Wild(), 64)
    chosen, _ = layers(graph)
    assert {layer.name for layer in chosen} - {layer.name for layer in correctable(graph, chosen)} == {
        "body.7"
    }


def test_a_plan_corrects_where_that_is_nearer():
    graph, shown = captured(plain()), pictures(4)
    judged = [("", x, graph(torch.from_numpy(x)).numpy()) for x in shown]
    plan = int8.plan(graph, lambda: iter(shown), judged, (-1.0, 1.0), goal=1.0)
    bare = replace(plan, shifts={})
    chosen = [layer for layer in layers(graph)[0] if layer.name in plan.bounds]

    def quality(each: int8.Plan) -> float:
        run = Simulated(graph, chosen, each.bounds, each.shifts)
        return float(np.mean([image.psnr for image in check(run, judged, (-1.0, 1.0), 0.0).images]))

    assert set(plan.shifts) == set(plan.bounds)  # of this network and these pictures
    assert quality(plan) == pytest.approx(plan.psnr, abs=1.0)  # judged with the like's ranges
    assert quality(plan) > quality(bare)
    assert "biases of 4 layers corrected" in plan.notes[1]


def test_the_file_holds_corrected_integers(photos):  # noqa: F811
    job = Job(generator(plain()), (64, 64), photos[:2], photos[4:], 1.0)
    shift = (0.25,) * 8
    held = {}
    for shifts in ({}, {"3": shift}):
        job.plan = replace(job.plan, shifts=shifts)
        model = onnx.load_from_string(job.make("onnx", "int8", 20.0).content)
        stored = {c.name: numpy_helper.to_array(c) for c in model.graph.initializer}
        makers = {node.output[0]: node for node in model.graph.node}
        layer = [node for node in model.graph.node if node.op_type == "Conv"][2]  # module 3
        levels, scales, _ = (stored[name] for name in makers[layer.input[2]].input)
        assert levels.dtype == np.int32
        held[bool(shifts)] = levels * scales
    np.testing.assert_allclose(held[False] - held[True], shift, atol=1e-4)
