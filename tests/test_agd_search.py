"""Searches over small spaces: within the budget, resumable, and derived as they were measured."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_space import TIED, TRANSLATION, space, write_pictures
from torch import nn

from compressor.agd import training
from compressor.agd.architecture import Architecture, Sampler
from compressor.agd.cost import cost_table
from compressor.agd.fitting import space_for
from compressor.agd.joint import chain_of
from compressor.agd.landing import WINDOW, land
from compressor.agd.limits import limits_of, spread
from compressor.agd.member import Member
from compressor.agd.options import SearchOptions
from compressor.agd.search import SearchResult, search
from compressor.agd.space import Choice, SearchSpace
from compressor.agd.supernet import Supernet
from compressor.agd.teachers import NetworkTeacher
from compressor.budget import Budget
from compressor.cost import count
from compressor.errors import PocketganError, UsageError
from compressor.generators import Generator, GeneratorSpec

QUICK = SearchOptions(
    pretrain=2, steps=3, batch=2, check_every=2, finalists=2, descendants=4, trials=0, validation=2
)


class _Blur(nn.Module):
    """What the students learn: a blurred picture, enlarged."""

    def __init__(self, scale: int):
        super().__init__()
        self.scale = scale
        self.blur = nn.Conv2d(3, 3, 3, padding=1, groups=3, bias=False)
        nn.init.constant_(self.blur.weight, 1 / 9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.interpolate(self.blur(x), scale_factor=float(self.scale))


def _teacher(of: SearchSpace) -> NetworkTeacher:
    spec = GeneratorSpec("custom", {"factory": "none:none"}, of.image)
    return NetworkTeacher(Generator(spec, _Blur(of.image.scale).eval(), Path("blur"), "0" * 64))


def _every(of: SearchSpace) -> list[Choice]:
    operators = itertools.product(*(range(len(p.operators)) for p in of.positions))
    widths = list(itertools.product(*(range(len(p.widths)) for p in of.positions)))
    return [Choice(o, w) for o in operators for w in widths]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POCKETGAN_CACHE", str(tmp_path / "cache"))


def _search(
    of: SearchSpace, tmp_path: Path, budget: str, options: SearchOptions = QUICK, **more: Any
) -> SearchResult:
    folder = tmp_path / "pictures"
    pictures = sorted(folder.iterdir()) if folder.exists() else write_pictures(folder, 4, 24)
    output = more.pop("output", tmp_path / "out")
    (result,) = search(of, _teacher(of), pictures, [Budget.parse(budget)], output, options, **more)
    return result


@pytest.mark.parametrize("text", [TRANSLATION, TIED])
def test_the_chain_costs_what_every_network_costs(text: str) -> None:
    of = space(text)
    table = cost_table(of, "macs")
    chain, draw = chain_of(table), np.random.default_rng(0)
    costs = sorted({table.cost(choice) for choice in _every(of)})
    assert chain.range() == (costs[0], costs[-1]) == table.range()
    architecture = Architecture(
        [len(p.operators) for p in of.positions],
        [p.widths for p in of.positions],
        [p.tied for p in of.positions],
    )
    for target in draw.integers(costs[0], costs[-1], 10):
        found = land(chain, *architecture.log_probabilities(draw), int(target))
        assert found.cost == table.cost(Choice(found.operators, found.widths))
        assert found.within == any(WINDOW * target < cost <= target for cost in costs)


TEN = [
    *((TRANSLATION, budget) for budget in ("macs=60k", "macs=150k", "params=1200", "params=3k", "bytes=9kB")),
    *((TIED, budget) for budget in ("macs=90k", "macs=120k", "params=1100", "params=2k", "bytes=10kB")),
]


@pytest.mark.parametrize(("text", "budget"), TEN)
def test_ten_searches_end_at_most_two_percent_under_their_budget(
    text: str, budget: str, tmp_path: Path
) -> None:
    of = space(text)
    metric, target = (limit := limits_of(of, [Budget.parse(budget)])[0]).metric, limit.target
    result = _search(of, tmp_path, budget, seed=len(budget))
    reached = getattr(count(result.generator.module, of.image.input_shape), metric)
    assert result.document["reached"][metric] == reached and result.document["within"]
    assert WINDOW * target < reached <= target


def test_a_search_that_cannot_come_so_near_says_why(tmp_path: Path) -> None:
    """The space has nothing between 98 % of this budget and all of it: the nearest under it is taken."""
    of = space(TIED)
    result, table = _search(of, tmp_path, "macs=70k"), cost_table(of, "macs")
    nearest = max(cost for choice in _every(of) if (cost := table.cost(choice)) <= 70_000)
    assert result.document["reached"]["macs"] == nearest <= WINDOW * 70_000
    assert not result.document["within"] and "no network of this space" in result.document["why"]


def test_descendants_come_nearer_and_stay_within_the_budget() -> None:
    """A law that only trying can find: the loss is how far a network is from one hidden in the space."""
    of = space(TIED)
    (limit,) = limits_of(of, [Budget.parse("macs=90k")])
    goal = min(_every(of), key=lambda choice: abs(cost_table(of, "macs").cost(choice) - 89_000))

    def loss(choice: Choice) -> float:
        pairs = zip(choice.operators + choice.widths, goal.operators + goal.widths, strict=True)
        return float(sum(a != b for a, b in pairs))

    found = {}
    for descendants in (0, 100):
        member = Member(limit, of, SearchOptions(finalists=2, descendants=descendants))
        found[descendants] = member.decide(loss, 1, [0, 0])
        assert all(WINDOW * limit.target < c["cost"] <= limit.target for c in member.candidates)
    assert found[100]["loss"] < found[0]["loss"]


@pytest.mark.parametrize("options", [QUICK, SearchOptions(**{**vars(QUICK), "published": True})])
def test_a_search_killed_at_any_moment_ends_in_the_same_network(
    options: SearchOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = space(TIED)
    log = tmp_path / "log.jsonl"
    whole = _search(of, tmp_path, "macs=90k", options, log=log)
    monkeypatch.setattr("compressor.training.loop._SAVE_EVERY", 0.0)
    step = training.Search.step

    class Killed(BaseException):
        pass

    for at in (1, 3):

        def stop(run: Any, number: int, at: int = at) -> dict[str, float]:
            if number == at:
                raise Killed
            return step(run, number)

        monkeypatch.setattr(training.Search, "step", stop)
        with pytest.raises(Killed):
            _search(of, tmp_path, "macs=90k", options, output=tmp_path / "again", resume=True)
    monkeypatch.setattr(training.Search, "step", step)
    again = _search(of, tmp_path, "macs=90k", options, output=tmp_path / "again", resume=True)
    assert again.document == whole.document and again.generator.sha256 == whole.generator.sha256
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [1, 2, 3, 4, 5]
    assert not (tmp_path / "again" / "checkpoint.pt").exists()
    with pytest.raises(PocketganError, match="already holds files"):
        _search(of, tmp_path, "macs=90k", options, output=tmp_path / "again")


def test_a_budget_outside_the_space_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    for budget in ("macs=10k", "macs=10G"):
        with pytest.raises(UsageError, match="36,608 to 434,688"):
            _search(space(TRANSLATION), tmp_path, budget)
        assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="budget of memory"):
        _search(space(TRANSLATION), tmp_path, "memory=1MB")


def test_several_networks_from_one_supernet(tmp_path: Path) -> None:
    of, pictures = space(TIED), write_pictures(tmp_path / "pictures", 4, 24)
    budgets = spread(Budget.parse_family("macs=200k,80k"), 3)
    assert [budget.amount for budget in budgets] == [200_000, 126_491, 80_000]
    found = search(of, _teacher(of), pictures, budgets, tmp_path / "out", QUICK)
    costs = [result.document["reached"]["macs"] for result in found]
    assert all(0.98 * b.amount < cost <= b.amount for b, cost in zip(budgets, costs, strict=True) if b.amount)
    listed = json.loads((tmp_path / "out" / "pareto.json").read_text())["members"]
    assert [member["folder"] for member in listed] == ["macs-200k", "macs-126.5k", "macs-80k"]
    with pytest.raises(UsageError, match="between two amounts"):
        spread(Budget.parse_family("macs=80k"), 3)


def test_the_best_candidate_is_kept_and_measures_as_the_network_on_disk(tmp_path: Path) -> None:
    """search.json's validation loss is the written network's, and no candidate's is lower."""
    of = space(TRANSLATION)
    result = _search(of, tmp_path, "macs=120k")
    document = result.document
    assert document["validation_loss"] == min(c["loss"] for c in document["candidates"] if c["within"])
    run = training.Search(
        of, _teacher(of), sorted((tmp_path / "pictures").iterdir()), [], QUICK, 0, torch.device("cpu")
    )
    inputs, wanted = run.held_out.pair(0)
    with torch.no_grad():
        loss = float(run.distance(result.generator.module(inputs), wanted))
    assert np.isclose(loss, document["validation_loss"], rtol=1e-4)


@pytest.mark.parametrize("text", [TRANSLATION, TIED])
@pytest.mark.parametrize(
    ("operators", "widths"), list(itertools.product(("sampled", "mixture"), ("groups", "whole")))
)
def test_picks_that_learn_reach_every_choice_with_gradients(text: str, operators: str, widths: str) -> None:
    of, draw = space(text), np.random.default_rng(0)
    supernet, sampler = Supernet(of, 0), Sampler(operators, widths)
    architecture = Architecture(
        [len(p.operators) for p in of.positions],
        [p.widths for p in of.positions],
        [p.tied for p in of.positions],
    )
    inputs = torch.randn(2, 3, *of.image.size)
    for _ in range(20):
        supernet(inputs, sampler.picks(architecture, draw, 1.0, learn=True)).square().mean().backward()
    assert architecture.alpha.grad is not None and architecture.ratio.grad is not None
    for index, position in enumerate(of.positions):
        if len(position.operators) > 1:
            assert (architecture.alpha.grad[index, : len(position.operators)] != 0).all()
        if len(position.widths) > 1:
            assert (architecture.ratio.grad[index, : len(position.widths)] != 0).all()


def test_a_width_learns_what_its_own_channels_are_worth() -> None:
    """The gate of a group of channels has the gradient of the loss along the group: dL/dy . y."""
    architecture = Architecture([1], [[2, 3, 5]])
    sampler, y = Sampler("sampled", "groups"), torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    slope = torch.tensor([0.3, -1.0, 2.0, 0.5, -0.25])  # dL/dy
    draw, drawn = np.random.default_rng(2), 0
    for _ in range(30):
        (pick,) = sampler.picks(architecture, draw, 1.0, learn=True)
        index, weight = pick.width
        assert weight is not None
        gates = weight.detach().flatten()
        assert set(gates.tolist()) <= {0.0, 1.0}  # exactly the drawn network
        kept = int(gates.sum())
        assert kept in (2, 3, 5) and len(gates) == [2, 3, 5][index] and len(gates) >= kept
        drawn |= {2: 1, 3: 2, 5: 4}[kept]
        (slope[: len(gates)] * y[: len(gates)] * weight.flatten()).sum().backward()
    assert drawn == 7
    assert architecture.ratio.grad is not None
    worth = np.array(
        [0.0, 2.0 * 3.0, 0.5 * 4.0 - 0.25 * 5.0]
    )  # of the 2nd and 3rd group: both raise the loss
    assert architecture.ratio.grad[0, 0] < 0 < architecture.ratio.grad[0, 1:].sum() and worth[1] > 0


def _command(*arguments: str) -> tuple[int, Any]:
    from click.testing import CliRunner

    from pocketgan.cli import main

    done = CliRunner().invoke(main, ["search", "--json", *arguments])
    return done.exit_code, json.loads(done.stdout)


def test_the_command_needs_a_teacher_pictures_and_a_budget(tmp_path: Path) -> None:
    """Of the two spaces of its scale, the small one is taken where the published one is too dear."""
    from compressor.generators import load, save
    from compressor.generators.spec import ImageFormat

    spec = GeneratorSpec("resnet", {"width": 4, "blocks": 1}, ImageFormat(size=(16, 16), multiple=4))
    save(spec, spec.build(), tmp_path / "teacher", {})
    write_pictures(tmp_path / "pictures", 3, 16)
    given = ["--teacher", str(tmp_path / "teacher"), "--images", str(tmp_path / "pictures")]
    given += [
        "--pretrain",
        "1",
        "--steps",
        "1",
        "--batch",
        "1",
        "--finalists",
        "0",
        "--descendants",
        "2",
        "--trials",
        "2",
        "--trial-steps",
        "1",
        "--validation",
        "1",
    ]
    code, document = _command(*given, "--budget", "macs=1M", "--output-dir", str(tmp_path / "out"))
    assert code == 0 and document["space"] == "st_small"
    assert 0.98e6 < count(load(tmp_path / "out").module, (1, 3, 16, 16)).macs <= 1e6
    assert space_for(spec.image, [Budget.parse("macs=8M")]).name == "st"
    assert _command(*given[2:], "--budget", "macs=1M", "--output-dir", str(tmp_path / "x"))[0] == 2


def test_the_report_draws_what_was_found(tmp_path: Path) -> None:
    from benchmarks.report.page import render
    from benchmarks.report.run_folder import read_run

    of = space(TIED)
    result = _search(of, tmp_path, "macs=90k", replace(QUICK, trials=4, trial_steps=1))
    run = read_run(result.folder)
    assert run.search is not None and not run.problems
    assert run.search.trials[0][-1] == result.document["validation_loss"]
    choice = Choice.from_json(result.document["choice"])
    assert [place.channels for place in run.search.places] == list(of.widths(choice))
    page = render(run)
    for name, operator in zip((p.name for p in of.positions), of.names(choice), strict=True):
        assert f"<title>{name}: {operator}, " in page
    assert "Expected cost over target" in page and "multiplier" in page
    assert "Trials: 3 candidates" in page and f"{result.document['validation_loss']:.5f}" in page
