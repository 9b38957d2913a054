"""Latency as the budget of a search: tables, a device whose law is known, and one real runtime."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_space import TIED, TRANSLATION, space, write_pictures
from torch import nn

from compressor.agd import training
from compressor.agd.cost import _layers_cost, cost_table
from compressor.agd.joint import JointCost
from compressor.agd.landing import WINDOW
from compressor.agd.latency import Alone, latency_table
from compressor.agd.options import SearchOptions
from compressor.agd.search import TIMES, SearchResult, search
from compressor.agd.space import Choice, SearchSpace, load_space
from compressor.agd.teachers import NetworkTeacher
from compressor.agd.timed import Probe, Times, line
from compressor.budget import Budget
from compressor.coronet.latency import ATTEMPTS, Measured
from compressor.cost import count
from compressor.errors import PocketganError, UsageError
from compressor.generators import Generator, GeneratorSpec

QUICK = SearchOptions(pretrain=1, steps=2, batch=1, check_every=2, finalists=2, trials=0, validation=1)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POCKETGAN_CACHE", str(tmp_path / "cache"))


class Law:
    """A device whose times are known: an operator alone takes its MACs and 900 ns of its own, a network
    `slower` times its operators' MACs, 400 ns a convolution and 5,000 ns; and up to `uneven` more or less, by
    how much arithmetic there is to a weight."""

    most = 500

    def __init__(self, slower: float = 1.4, uneven: float = 0.0, noise: float = 0.001):
        self.slower, self.uneven, self.noise = slower, uneven, noise
        self.timed, self.networks = 0, 0

    @property
    def identity(self) -> dict[str, Any]:
        return {"device": "law"}

    def operators(self, wanted: Sequence[Alone]) -> list[float]:
        self.timed += len(wanted)
        return [
            900.0
            + sum(
                _layers_cost(part, one.inputs, one.outputs, one.place.size, "macs")
                for part in one.place.operator.parts(one.inputs, one.outputs, bridged=one.bridged).values()
            )
            for one in wanted
        ]

    def whole(self, generator: Generator) -> float:
        convolutions = sum(isinstance(part, nn.Conv2d) for part in generator.module.modules())
        cost = count(generator.module, generator.spec.image.input_shape)
        own = 1 + self.uneven * np.sin(cost.macs / cost.parameters / 10)
        return float(own * (5000 + 400 * convolutions + self.slower * cost.macs))

    def alone(self, generator: Generator) -> Measured:
        self.networks += 1
        taken = self.whole(generator)
        return Measured(taken, taken, 1.0, 1 - self.noise, 1 + self.noise)

    def compare(self, original: Generator, candidate: Generator) -> Measured:
        self.networks += 1
        before, after = self.whole(original), self.whole(candidate)
        share = after / before
        return Measured(before, after, share, (1 - self.noise) * share, (1 + self.noise) * share)


def _teacher(of: SearchSpace, layers: int = 1) -> NetworkTeacher:
    torch.manual_seed(0)
    parts: list[nn.Module] = [nn.Conv2d(3, 3, 3, padding=1) for _ in range(layers)]
    if of.image.scale > 1:
        parts.append(nn.Upsample(scale_factor=of.image.scale))
    spec = GeneratorSpec("custom", {"factory": "none:none"}, of.image)
    return NetworkTeacher(Generator(spec, nn.Sequential(*parts).eval(), Path("t"), f"{layers}" * 64))


def _search(of: SearchSpace, tmp_path: Path, budget: str, meter: Any, **more: Any) -> SearchResult:
    folder = tmp_path / "pictures"
    pictures = sorted(folder.iterdir()) if folder.exists() else write_pictures(folder, 3, 24)
    output, teacher = more.pop("output", tmp_path / "out"), more.pop("teacher", None) or _teacher(of)
    (result,) = search(of, teacher, pictures, [Budget.parse(budget)], output, QUICK, meter=meter, **more)
    return result


def test_a_thinned_table_is_exact_where_times_are_bilinear_and_knows_shortcuts() -> None:
    """Times a + b in + c out + d in out, more for a bridge: the grid gives all sums exactly."""
    of = load_space("st_small")
    asked: list[Alone] = []

    def times(wanted: Sequence[Alone]) -> list[float]:
        asked.extend(wanted)
        return [
            50.0 + one.inputs + 3 * one.outputs + one.inputs * one.outputs
            + 1000 * bool(one.place.operator.parts(one.inputs, one.outputs, bridged=one.bridged)["shortcut"])
            for one in wanted
        ]  # fmt: skip

    # A row of equal widths is no line: where it is thinned, in * out is a parabola between its points.
    full = latency_table(of, times, most=10_000)
    every, asked[:] = len(asked), []
    thin = latency_table(of, times, most=every // 2)
    assert len(asked) <= every // 2 and len({one.signature for one in asked}) == len(asked)
    for table, exact in zip(thin.tables, full.tables, strict=True):
        assert table.shape == exact.shape
        apart = np.abs(table - exact)
        if table.shape[1] == table.shape[2]:
            row = np.arange(table.shape[1])
            assert (apart[:, row, row] <= 0.25 * np.diff([32, 64, 128]).max() ** 2).all()
            apart[:, row, row] = 0
        assert (apart < 1e-6).all()


def test_a_line_through_probes_and_its_error_are_the_closed_form() -> None:
    choice = Choice((0,), (0,))
    probes = [Probe(choice, s, round(2.5 * s + 4000), 0, 0) for s in (10_000, 20_000, 40_000, 30_000)]
    assert line(probes, 8000) == pytest.approx((2.5, 4000))
    alike = [Probe(choice, s, 3 * s, 0, 0) for s in (10_000, 10_100, 10_200)]
    assert line(alike, 8000) == (3.0, 0.0)
    falling = [Probe(choice, s, 90_000 - s, 0, 0) for s in (10_000, 20_000, 40_000)]
    assert line(falling, 8000)[1] == 0.0
    times = Times(cost_table(space(TRANSLATION), "macs"), tuple(probes), {}, {})
    errors = times.errors()
    assert errors["corrected"]["most"] < 1e-9
    assert errors["sum_over_measured"]["least"] == pytest.approx(10_000 / 29_000)


BUDGETS = [
    *((TRANSLATION, budget) for budget in ("latency=150us", "latency=300us", "latency=450us")),
    *((TIED, budget) for budget in ("latency=100us", "latency=160us", "latency=50%")),
]


@pytest.mark.parametrize("uneven", [0.0, 0.05])
def test_searches_end_at_most_two_percent_under_their_latency(uneven: float, tmp_path: Path) -> None:
    """Though a network may take 5 % more or less than any sum of operators can say. Where even a tiny space
    has nothing nearer, that is said."""
    used = 0
    for index, (text, budget) in enumerate(BUDGETS):
        of, meter = space(text), Law(uneven=uneven)
        told = {"teacher": _teacher(of, 30), "output": tmp_path / f"out{index}"}
        result = _search(of, tmp_path, budget, meter, **told)
        document = result.document
        found, reached = document["latency"], document["reached"]["latency"]
        assert reached == found["measured"] == pytest.approx(meter.whole(result.generator), abs=1)
        assert len(found["attempts"]) <= ATTEMPTS and found["met"] and reached <= found["target"]
        if document["within"]:
            assert reached > 0.998 * WINDOW * found["target"]
        else:
            assert "networks measured took" in document["why"]
        used += document["within"]
        assert ("original" in found) == budget.endswith("%")
        assert not (told["output"] / TIMES).exists()
        corrected = found["table"]["corrected"]
        assert len(found["table"]["networks"]) == 6
        assert corrected["mean"] <= corrected["most"] < 0.02 + 3 * uneven
    assert used >= 5


def test_two_budgets_hold_at_once(tmp_path: Path) -> None:
    of, meter = space(TRANSLATION), Law()
    plain = _search(of, tmp_path, "latency=300us", meter)
    free = plain.document["reached"]["parameters"]
    for share in (0.97, 0.7, 0.4):
        most = int(share * free)
        both = _search(
            of, tmp_path, f"latency=300us,params={most}", meter, output=tmp_path / f"both{share}"
        ).document
        assert both["reached"]["parameters"] <= most and both["reached"]["latency"] <= 300_000
        used = both["reached"]["latency"] / 300_000, both["reached"]["parameters"] / most
        assert both["budget"]["also"] == {"parameters": most}
        assert max(used) > 0.998 * WINDOW or not both["within"]
    with pytest.raises(UsageError, match="two metrics at most"):
        _search(of, tmp_path, "latency=300us,params=1k,macs=1M", meter, output=tmp_path / "x")
    with pytest.raises(UsageError, match="small enough"):
        _search(of, tmp_path, "latency=300us,params=10", meter, output=tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_landing_on_two_budgets_is_nearly_the_best_of_all_networks() -> None:
    of = space(TIED)
    tables = cost_table(of, "macs"), cost_table(of, "params")
    operators = itertools.product(*(range(len(p.operators)) for p in of.positions))
    widths = list(itertools.product(*(range(len(p.widths)) for p in of.positions)))
    every = [Choice(o, w) for o in operators for w in widths]
    costs = np.array([[table.cost(choice) for table in tables] for choice in every])
    draw = np.random.default_rng(0)
    exact = 0
    for _ in range(12):
        targets = tuple(int(x) for x in costs[draw.integers(len(costs))] * draw.uniform(0.9, 1.1, 2))
        if not (costs <= targets).all(1).any():
            continue
        logs = [
            [np.log(draw.dirichlet(np.ones(len(getattr(p, which))))) for p in of.positions]
            for which in ("operators", "widths")
        ]
        found = JointCost(tables, targets).land(logs[0], logs[1])
        cost = np.array([table.cost(Choice(found.operators, found.widths)) for table in tables])
        assert (cost <= targets).all() and found.cost == cost[0]
        allowed = (costs <= targets).all(1) & (costs > WINDOW * np.array(targets)).any(1)
        assert found.within or not allowed.any()
        if not found.within:
            continue
        first = allowed & (costs[:, 0] > WINDOW * targets[0])
        pool = first if first.any() else allowed
        worth = [
            sum(logs[0][i][o] for i, o in enumerate(c.operators))
            + sum(logs[1][i][w] for i, w in enumerate(c.widths))
            for c, ok in zip(every, pool, strict=True)
            if ok
        ]
        assert found.log_probability <= max(worth) + 1e-9
        exact += found.log_probability > max(worth) - 1e-9
    assert exact >= 6


def test_a_killed_search_keeps_the_times_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device is slower after the kill: operators and random networks are not measured anew."""
    of = space(TRANSLATION)
    whole = _search(of, tmp_path, "latency=300us", Law())
    monkeypatch.setattr("compressor.training.loop._SAVE_EVERY", 0.0)
    step = training.Search.step

    def dies(run: Any, number: int) -> dict[str, float]:
        if number == 1:
            raise KeyboardInterrupt
        return step(run, number)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training.Search, "step", dies)
        _search(of, tmp_path, "latency=300us", Law(), output=tmp_path / "cut")
    later = Law(slower=1.6)
    cut = _search(of, tmp_path, "latency=300us", later, output=tmp_path / "cut", resume=True)
    assert later.timed == 0 and later.networks == len(cut.document["latency"]["attempts"])
    assert cut.document["latency"]["table"] == whole.document["latency"]["table"]
    assert cut.document["trajectory"] == whole.document["trajectory"]
    assert cut.document["latency"]["met"]

    (tmp_path / "cut" / "search.json").unlink()
    (tmp_path / "cut" / TIMES).write_text(json.dumps({"format": "pocketgan.space_times/1"}))
    with pytest.raises(PocketganError, match="times of this search"):
        _search(of, tmp_path, "latency=300us", later, output=tmp_path / "cut", resume=True)


def test_what_cannot_be_met_is_said(tmp_path: Path) -> None:
    of = space(TRANSLATION)

    class Slow(Law):
        """Its networks take long whatever they are, once the search is over."""

        def alone(self, generator: Generator) -> Measured:
            found = super().alone(generator)
            return found if self.networks <= 6 else Measured(9e5, 9e5, 1.0, 0.99, 1.01)

    document = _search(of, tmp_path, "latency=300us", Slow()).document
    assert not document["latency"]["met"] and not document["within"]
    assert "networks measured took at most 0.300 ms" in document["why"]
    for budget, teacher, message in (
        ("latency=1us", None, "small enough"),
        ("latency=1s", None, "large enough"),
        ("latency=50%", "foreign", "network of ours"),
    ):
        guide: Any = _teacher(of)
        if teacher:
            guide = type("Foreign", (), {"image": of.image, "identity": "x", "notes": (), "fixed": None})()
        with pytest.raises(UsageError, match=message):
            _search(of, tmp_path, budget, Law(), teacher=guide, output=tmp_path / "x")
    with pytest.raises(UsageError, match="something to measure with"):
        _search(of, tmp_path, "latency=300us", None, output=tmp_path / "x")
    assert not (tmp_path / "x").exists()
