"""What networks of a search space cost: ranges, expectations, timed operators."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from spaces import LAYERS, SMALL, changed, everything

from compressor.agd.cost import METRICS, cost_table
from compressor.agd.definition import read_space
from compressor.agd.latency import Alone, latency_table
from compressor.agd.space import Choice, load_space, shipped
from compressor.cost import count
from compressor.errors import UsageError


def tied() -> dict[str, Any]:
    """The same, in which the sum of start and end needs equal widths."""
    definition = copy.deepcopy(SMALL)
    cell, end = definition["layers"][1:3]
    del end["widths"]
    end["width_as"] = "start"
    again = {**end, "name": "again"}
    definition["layers"][1:3] = [{"residual": 0.5, "layers": [cell, end]}, again]
    return definition


def bridged() -> dict[str, Any]:
    """The cheapest has the larger width, since the smaller one needs a bridge at its second place."""
    start, cell, end, picture_ = copy.deepcopy(LAYERS)
    start |= {"operators": ["picture"], "widths": [7, 8]}
    cell |= {"operators": ["skip"], "widths": [8]}
    end = {"name": "end", "operators": ["identity"], "width_as": "start"}
    return changed(layers=[start, cell, end, picture_])


@pytest.mark.parametrize("definition", [SMALL, tied(), bridged()], ids=["free", "tied", "bridged"])
def test_range_and_expectation_are_those_of_all_networks(definition: dict[str, Any]) -> None:
    space = read_space(definition)
    table, choices = cost_table(space, "macs"), everything(space)
    costs = [table.cost(choice) for choice in choices]
    assert table.range() == (min(costs), max(costs))
    assert [table.cost(choice) for choice in table.extremes()] == [min(costs), max(costs)]
    draw = torch.Generator().manual_seed(0)
    count_ = len(space.positions)
    operators, widths = (torch.zeros(count_, n, dtype=torch.float64) for n in (3, 2))
    for i, position in enumerate(space.positions):
        for rows, options in ((operators, position.operators), (widths, position.widths)):
            chances = torch.rand(len(options), dtype=torch.float64, generator=draw)
            rows[i, : len(options)] = chances / chances.sum()
    mean = 0.0
    for choice, cost in zip(choices, costs, strict=True):
        chance = 1.0
        for i in range(count_):
            chance *= float(operators[i, choice.operators[i]] * widths[i, choice.widths[i]])
        mean += chance * cost
    assert float(table.expected(operators, widths)) == pytest.approx(mean, rel=1e-12)
    operators.requires_grad_()
    widths.requires_grad_()
    assert torch.autograd.gradcheck(lambda o, w: table.expected(o, w) / 1e3, (operators, widths))


@pytest.mark.parametrize("name", shipped())
def test_expected_cost_of_a_certain_network_is_its_cost(name: str) -> None:
    space = load_space(name)
    choice = Choice.random(space, np.random.default_rng(5))
    operators = F.one_hot(torch.tensor(choice.operators), 7)
    widths = F.one_hot(torch.tensor(choice.widths), 6)
    for metric in METRICS:
        table = cost_table(space, metric)
        assert int(table.expected(operators.float(), widths.float())) == table.cost(choice)


def test_timed_operators_add_up_and_equal_ones_are_timed_once() -> None:
    space = read_space(tied())
    timed: list[str] = []

    def times(wanted: Sequence[Alone]) -> list[float]:
        timed.extend(one.signature for one in wanted)
        return [float(count(one.build(), one.input_shape).macs + 7) for one in wanted]

    table = latency_table(space, times, constant=100.0)
    assert len(timed) == len(set(timed))
    macs, choice = cost_table(space, "macs"), Choice((0, 1, 0, 1, 0), (1, 0, 0, 0, 0))
    # `again` is an identity of equal widths: no step at all
    assert table.cost(choice) == macs.cost(choice) + 4 * 7 + 100


def test_costs_are_refused_for_pictures_that_do_not_suit() -> None:
    with pytest.raises(UsageError, match="multiples of 4"):
        cost_table(load_space("st"), "macs", (1, 3, 30, 32))
    with pytest.raises(UsageError, match="no such cost"):
        cost_table(load_space("st"), "watts")


def test_identity_of_equal_widths_is_nothing() -> None:
    space = read_space(SMALL)
    table = cost_table(space, "params")
    with_identity = table.cost(Choice((0, 2, 1, 0), (0, 1, 1, 0)))
    assert with_identity == 3 * 2 * 9 + 2 * 8 + 0 + 8 * 3  # start, a bridge from 2 to 8, nothing, picture
