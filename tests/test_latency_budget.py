"""Latency as a budget: the model in closed form, the correction of landings, and real timings."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from tiny import write_generator, write_pictures

from compressor.budget import Budget
from compressor.coronet.landing import cost_model, land
from compressor.coronet.latency import (
    AIM,
    ATTEMPTS,
    LayerTable,
    Measured,
    land_measured,
    latency_model,
)
from compressor.coronet.targets import cost_models
from compressor.cost import count
from compressor.errors import GateError, UsageError
from compressor.generators import load
from compressor.generators.resnet import ResnetGenerator
from compressor.generators.srvgg import SRVGGNetCompact
from compressor.graph import ChannelGraph, trace
from compressor.options import PruneOptions
from pocketgan.cli import main


def products(layer, graph: ChannelGraph, pixels: int = 100) -> LayerTable:
    """A layer that takes 2 ns for every pair of channels and 30 ns besides."""
    grids = [(max(1, n // 4), max(1, n // 2), n) for n in (len(layer.inputs), len(layer.outputs))]
    if not graph.prunable[layer.inputs].any():
        grids[0] = (len(layer.inputs),)
    inputs, outputs = (tuple(sorted(set(grid))) for grid in grids)
    return LayerTable(inputs, outputs, 30.0 + 2 * np.outer(inputs, outputs), pixels)


@pytest.fixture(scope="module")
def resnet() -> tuple[ChannelGraph, dict[str, LayerTable]]:
    graph = trace(ResnetGenerator(width=32, blocks=2), (1, 3, 32, 32))
    return graph, {layer.name: products(layer, graph) for layer in graph.convolutions()}


def test_times_between_the_grid_are_bilinear_and_go_on_beyond_it():
    table = LayerTable((8, 16), (10, 20, 40), 5.0 + np.outer((8, 16), (10, 20, 40)), 1)
    for a, b in ((8, 10), (12, 15), (9, 33), (16, 40), (4, 5), (20, 50)):
        assert table(a, b) == pytest.approx(5 + a * b)
    falling = LayerTable((1,), (4, 8), np.array([[7.0, 6.0]]), 1)
    assert falling(3, 6) == 7  # a wider layer is never faster
    assert LayerTable((1,), (4, 8), np.array([[1.0, 100.0]]), 1)(1, 1) == 0


def test_the_model_adds_layers_and_gives_the_whole_as_measured(resnet):
    graph, tables = resnet
    everything = np.ones(graph.classes, bool)
    layers = sum(30 + 2 * len(layer.inputs) * len(layer.outputs) for layer in graph.convolutions())
    for whole in (2.5 * layers, 0.5 * layers):  # more than its convolutions, or (fused) less
        model = latency_model(graph, tables, whole)
        assert model(everything) == pytest.approx(whole, abs=1)
        keep = land(np.random.default_rng(0).random(graph.classes), graph, model, int(0.5 * whole))
        pairs = sum(
            30 + 2 * int(keep[layer.inputs].sum()) * int(keep[layer.outputs].sum())
            for layer in graph.convolutions()
        )
        elements = [int(keep[layer.outputs].sum()) / 1 for layer in graph.convolutions()]
        all_elements = [len(layer.outputs) for layer in graph.convolutions()]
        rest = max(0.0, whole - layers) * sum(elements) / sum(all_elements)
        assert model(keep) == pytest.approx((pairs + rest) * min(1.0, whole / layers), abs=1)
        assert 0.99 * 0.5 * whole <= model(keep) <= 0.5 * whole


def test_marginal_is_the_difference_of_two_latencies(resnet):
    graph, tables = resnet
    model = latency_model(graph, tables, 1e6)
    saved = model.marginal()
    for index in (0, 40, graph.classes - 1):
        keep = np.ones(graph.classes)
        keep[index] = 0
        assert saved[index] == pytest.approx(model.slope * (model.raw(keep + 1 - keep) - model.raw(keep)))


def check(resnet, truth, share: float, multiple: int = 1, noise: float = 0.0):
    """Land on a share of what `truth` says a network really takes."""
    graph, tables = resnet
    everything = np.ones(graph.classes, bool)
    whole = truth(everything)
    model = latency_model(graph, tables, whole)
    scores = np.random.default_rng(3).random(graph.classes)
    target = share * whole

    def measure(keep: np.ndarray) -> Measured:
        found = truth(keep) / whole
        return Measured(whole, found * whole, found, found * (1 - noise), found * (1 + noise))

    def landed():
        aim = int(AIM["latency"] * target)
        return land_measured(
            lambda: land(scores, graph, model, aim, multiple), model, measure, target, whole=whole
        )

    return target, landed(), landed()  # before the search and after it, as a supernet does


@pytest.mark.parametrize("share", [0.75, 0.5, 0.3])
@pytest.mark.parametrize("power", [0.6, 1.5])
def test_a_model_that_is_wrong_is_corrected_by_measurements(resnet, share, power):
    """The device takes the model's time to some power, and a third of it whatever is kept."""
    graph, tables = resnet
    raw = latency_model(graph, tables, 1e6).raw
    all_raw = raw(np.ones(graph.classes))

    def truth(keep: np.ndarray) -> float:
        return 1e6 * (0.1 + 0.9 * (raw(keep) / all_raw) ** power)

    target, before, checked = check(resnet, truth, share)
    report = checked.report
    assert report["met"] and 0.99 * target <= report["measured"] <= target
    assert not before.report["attempts"][0]["good"]
    assert max(len(report["attempts"]), len(before.report["attempts"])) <= ATTEMPTS
    assert truth(checked.keep) == pytest.approx(report["measured"], abs=1)


def test_attempts_are_bounded_and_the_best_within_the_target_is_taken(resnet):
    """A device whose time jumps: no landing comes near, and none that is over is chosen."""
    graph, _ = resnet
    macs = cost_model(graph, ResnetGenerator(width=32, blocks=2), "macs")
    whole = macs(np.ones(graph.classes, bool))

    def truth(keep: np.ndarray) -> float:
        share = macs(keep) / whole
        return 1e6 if share == 1 else 6e5 if share > 0.35 else 3e5

    target, checked, _ = check(resnet, truth, 0.5)
    assert checked.report["met"] and checked.report["measured"] == 3e5 < target
    assert 1 < len(checked.report["attempts"]) <= ATTEMPTS

    _, never, _ = check(resnet, lambda keep: 1e6, 0.5)
    assert not never.report["met"] and never.report["measured"] == 1e6


def test_the_whole_network_is_never_landed_on(resnet):
    """A lucky measurement of a network almost as wide must not make the whole one look fast enough."""
    graph, tables = resnet
    model = latency_model(graph, tables, 1e6)
    everything = np.ones(graph.classes, bool)
    almost, half = everything.copy(), everything.copy()
    prunable = np.flatnonzero(graph.prunable)
    almost[prunable[0]], half[prunable[::2]] = False, False
    for lucky in ([(almost, 7.5e5)], [(almost, 7.5e5), (half, 7.2e5)]):
        model.fit(lucky, 8e5)
        assert model(everything) > 8e5 > model(half)


def test_noise_is_no_reason_to_land_again(resnet):
    graph, tables = resnet
    raw = latency_model(graph, tables, 1e6).raw
    all_raw = raw(np.ones(graph.classes))
    target, checked, _ = check(resnet, lambda keep: 0.97e6 * raw(keep) / all_raw + 0.0, 0.5, noise=0.05)
    assert len(checked.report["attempts"]) == 1 and checked.report["high"] >= 0.99 * target


def test_latency_budgets_are_read_and_need_a_meter(tmp_path):
    assert Budget.parse("latency=12ms").amount == 12_000_000
    assert Budget.parse("latency=1.5s,macs=50%").amount == 1_500_000_000
    for text in ("latency=12", "latency=12MB", "macs=12ms"):
        with pytest.raises(UsageError, match="cannot be read"):
            Budget.parse(text)
    write_generator(tmp_path / "tiny.pth")
    generator = load(tmp_path / "tiny.pth")
    with pytest.raises(UsageError, match="measure"):
        cost_models(generator, trace(generator.module, (1, 3, 32, 32)), Budget.parse("latency=50%"))


class Law:
    """A device whose time is known: products of widths, slower than its layers alone say."""

    def __init__(self, slower: float = 1.0):
        self.slower, self.compared = slower, 0

    @property
    def identity(self):
        return {"device": "law"}

    def tables(self, generator, graph):
        return {layer.name: products(layer, graph) for layer in graph.convolutions()}

    def whole(self, generator):
        macs = count(generator.module, generator.spec.image.input_shape).macs
        return self.slower * (1e5 + float(macs) ** 0.9)

    def compare(self, original, candidate):
        self.compared += 1
        before, after = self.whole(original), self.whole(candidate)
        return Measured(before, after, after / before, 0.999 * after / before, 1.001 * after / before)


def test_a_killed_run_lands_on_the_latency_it_began_with(tmp_path, monkeypatch):
    """The machine is slower after the kill; the share and what it is a share of stay."""
    from compressor.coronet import prune as module
    from compressor.training import loop

    monkeypatch.setattr(loop, "_SAVE_EVERY", 0.0)
    torch.manual_seed(0)
    torch.save(SRVGGNetCompact(features=32, convolutions=3, scale=2).state_dict(), tmp_path / "a.pth")
    write_pictures(tmp_path / "pictures")
    generator, pictures = load(tmp_path / "a.pth"), sorted((tmp_path / "pictures").iterdir())
    options = PruneOptions(steps=4, batch=1, crop=16, device="cpu")
    budget = Budget.parse("latency=50%,params=70%")

    def run(name: str, meter: Law, resume: bool = False):
        return module.prune(
            generator, pictures, budget, tmp_path / name, options, meter=meter, resume=resume
        )  # fmt: skip

    whole = run("whole", Law())
    assert 0.49 < whole.document["share"] <= 0.5
    assert whole.document["reached"]["latency"] == whole.document["latency"]["measured"]
    assert whole.document["budget"]["target"] == whole.document["latency"]["target"]

    inside = module._Search.step

    def dies(self, step):
        if step == 2:
            raise KeyboardInterrupt
        return inside(self, step)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module._Search, "step", dies)
        run("cut", Law())
    later = Law(slower=1.5)
    cut = run("cut", later, resume=True)
    assert cut.document["latency"]["target"] == whole.document["latency"]["target"]
    assert cut.generator.sha256 == whole.generator.sha256
    assert later.compared == len(cut.document["latency"]["attempts"])  # nothing is measured anew before it


def test_the_command_prunes_to_a_real_latency(tmp_path):
    pytest.importorskip("onnxruntime", reason="needs the export extra")
    torch.manual_seed(0)
    network = SRVGGNetCompact(features=32, convolutions=1, scale=2)
    torch.save(network.state_dict(), tmp_path / "tiny.pth")
    write_pictures(tmp_path / "pictures")
    line = ["prune", tmp_path / "tiny.pth", "--images", tmp_path / "pictures", "--size", "64x64"]
    line += [
        "--steps",
        "2",
        "--latency-table",
        tmp_path / "layer_times.json",
        "--output-dir",
        tmp_path / "out",
        "--json",
    ]
    result = CliRunner().invoke(main, [*map(str, line), "--budget", "latency=80%"])
    document = json.loads(result.stdout)
    found = document["latency"]
    assert result.exit_code == (0 if found["met"] else GateError.exit_code), result.output
    assert found["device"]["runtime"] == "onnxruntime" and found["device"]["usable_cores"] >= 1
    assert 1 <= len(found["attempts"]) <= ATTEMPTS
    assert found["low"] <= found["measured"] <= found["high"]
    assert document["reached"]["latency"] == found["measured"]
    assert document["share"] == found["measured"] / found["original"]
    assert found["met"] == (found["measured"] <= found["target"])
    assert document["reached"]["macs"] < document["original"]["macs"]


def test_options_of_latency_without_such_a_budget_are_refused(tmp_path):
    write_generator(tmp_path / "tiny.pth")
    write_pictures(tmp_path / "pictures")
    words = ["--images", tmp_path / "pictures", "--output-dir", tmp_path / "out", "--latency-threads", 2]
    line = ["prune", tmp_path / "tiny.pth", "--budget", "macs=50%", *words]
    result = CliRunner().invoke(main, [*map(str, line)])
    assert result.exit_code == 2
    assert "--latency-threads means nothing" in result.output + (result.stderr or "")
    assert not (tmp_path / "out").exists()
