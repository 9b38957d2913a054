"""Landing equals brute force; the controller comes to the closed-form answer, whatever the loss's scale."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from compressor.agd.architecture import START, Architecture
from compressor.agd.controller import Controller
from compressor.agd.landing import WINDOW, Chain, Landing, Moves, land
from compressor.errors import UsageError


def _random_chain(draw: np.random.Generator, positions: int, most: int = 400) -> Chain:
    """2 or 3 operators and 1 to 3 widths at each position; the state is the width before."""
    states, tables = [0], []
    for _ in range(positions):
        operators, widths = int(draw.integers(2, 4)), int(draw.integers(1, 4))
        o, w = (grid.ravel() for grid in np.meshgrid(range(operators), range(widths), indexing="ij"))
        tables.append({state: Moves(o, w, w, draw.integers(1, most, len(o))) for state in states})
        states = list(range(widths))
    return Chain(tuple(tables), base=int(draw.integers(0, 50)))


def _logs(draw: np.random.Generator, chain: Chain) -> tuple[list[np.ndarray], list[np.ndarray]]:
    rows: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for table in chain.moves:
        moves = next(iter(table.values()))
        for found, indices in zip(rows, (moves.operators, moves.widths), strict=True):
            found.append(np.log(draw.dirichlet(np.ones(int(indices.max()) + 1))))
    return rows


def _every(chain: Chain, operators: list[np.ndarray], widths: list[np.ndarray]) -> list[tuple[int, float]]:
    """(cost, log-probability) of every network, by walking all of them."""
    found = []
    choices = [range(len(next(iter(table.values())).costs)) for table in chain.moves]
    for way in itertools.product(*choices):
        state, cost, value = next(iter(chain.moves[0])), chain.base, 0.0
        for position, index in enumerate(way):
            moves = chain.moves[position][state]
            cost += int(moves.costs[index])
            value += operators[position][moves.operators[index]] + widths[position][moves.widths[index]]
            state = int(moves.states[index])
        found.append((cost, float(value)))
    return found


def _cost_of(chain: Chain, landing: Landing) -> int:
    state, cost = next(iter(chain.moves[0])), chain.base
    for table, operator, width in zip(chain.moves, landing.operators, landing.widths, strict=True):
        moves = table[state]
        (index,) = np.flatnonzero((moves.operators == operator) & (moves.widths == width))
        cost, state = cost + int(moves.costs[index]), int(moves.states[index])
    return cost


@pytest.mark.parametrize("seed", range(12))
def test_landing_is_the_most_probable_network_within_the_window(seed: int) -> None:
    draw = np.random.default_rng(seed)
    chain = _random_chain(draw, positions=4)
    operators, widths = _logs(draw, chain)
    every = _every(chain, operators, widths)
    costs = [cost for cost, _ in every]
    assert chain.range() == (min(costs), max(costs))
    for target in draw.integers(min(costs), max(costs) + 30, 12):
        found = land(chain, operators, widths, int(target))
        inside = [value for cost, value in every if WINDOW * target < cost <= target]
        assert found.within == bool(inside)
        assert found.cost == _cost_of(chain, found) <= target
        if inside:
            assert math.isclose(found.log_probability, max(inside), abs_tol=1e-9)
        else:  # the nearest there is
            assert found.cost == max(cost for cost, _ in every if cost <= target)


def test_landing_in_a_large_space_stays_in_the_window_and_loses_little_probability() -> None:
    """20 positions with random costs are reached at far more different costs than are kept."""
    draw = np.random.default_rng(5)
    chain = _random_chain(draw, positions=20, most=10**8)
    operators, widths = _logs(draw, chain)
    low, high = chain.range()
    free = sum(row.max() for row in (*operators, *widths))
    for share in (0.2, 0.6):
        target = int(low + share * (high - low))
        found = land(chain, operators, widths, target)
        assert found.within and WINDOW * target < found.cost <= target
        assert found.cost == _cost_of(chain, found)
        assert found.log_probability <= free + 1e-9


def test_a_budget_below_the_space_is_refused_and_the_range_named() -> None:
    chain = _random_chain(np.random.default_rng(0), positions=3)
    logs = _logs(np.random.default_rng(0), chain)
    low, high = chain.range()
    with pytest.raises(UsageError, match=f"{low:,} to {high:,}"):
        land(chain, *logs, low - 1)


def _settle(scale: float, target: float, steps: int = 1500) -> tuple[float, Controller, np.ndarray]:
    """Minimise scale * sum (x - want)^2 at cost sum of exp(x) / target; the mean ratio at the end."""
    want = torch.tensor([1.0, 0.5, -0.5])
    x = torch.zeros(3, requires_grad=True)
    optimiser = torch.optim.Adam([x], lr=0.01, betas=(0.5, 0.999))
    controller, ratios = Controller(), []
    for _ in range(steps):
        loss, cost = scale * (x - want).square().sum(), (x.exp().sum() / target).log()
        controller.update(math.exp(cost.item()))
        (a,), (b,) = torch.autograd.grad(loss, x), torch.autograd.grad(cost, x)
        (x.grad,) = controller.join([a], [b])
        optimiser.step()
        ratios.append(math.exp(cost.item()))
    return float(np.mean(ratios[-100:])), controller, x.detach().numpy()


@pytest.mark.parametrize("target", [1.5, 3.0, 4.5])
def test_the_controller_comes_to_the_budget_and_the_best_point_on_it(target: float) -> None:
    """By Lagrange: 2 (x - want) + m exp(x) = 0 with sum of exp(x) = target; m by bisection."""
    ratio, _, x = _settle(1.0, target)
    assert abs(ratio - 1) < 0.01
    want = np.array([1.0, 0.5, -0.5])

    def point(multiplier: float) -> np.ndarray:
        y = want.copy()
        for _ in range(200):  # Newton
            y -= (2 * (y - want) + multiplier * np.exp(y)) / (2 + multiplier * np.exp(y))
        return y

    low, high = 0.0, 50.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if np.exp(point(middle)).sum() > target else (low, middle)
    assert np.abs(x - point(high)).max() < 0.05


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_the_controller_does_not_care_for_the_scale_of_the_loss(scale: float) -> None:
    (ratio, controller, x), (_, same, y) = _settle(scale, 2.0, 600), _settle(1.0, 2.0, 600)
    assert abs(ratio - 1) < 0.02
    assert np.allclose(x, y, atol=1e-3) and math.isclose(controller.strength, same.strength, rel_tol=0.02)


def test_a_controller_goes_on_from_its_state() -> None:
    one, two = Controller(), Controller()
    gradient = [torch.tensor([3.0, 4.0])]
    for ratio in (2.0, 1.5, 1.2):
        one.update(ratio)
        one.join(gradient, gradient)
    two.load_state_dict(one.state_dict())
    assert one.update(1.1) == two.update(1.1)
    assert torch.equal(one.join(gradient, gradient)[0], two.join(gradient, gradient)[0])


def _sum_of_widths(operators: torch.Tensor, widths: torch.Tensor) -> torch.Tensor:
    costs = torch.tensor([[1.0, 2.0, 3.0], [10.0, 20.0, 0.0]])
    return (widths * costs).sum() + 5 * operators[:, 1].sum()


@pytest.mark.parametrize("target", [12.5, 16.0, 22.0, 27.0])
def test_a_search_can_start_at_its_budget(target: float) -> None:
    architecture = Architecture([2, 1], [[1, 2, 3], [10, 20]])
    operators, widths = architecture.probabilities()
    assert torch.equal(architecture.alpha, torch.full((2, 2), START))
    assert operators[1].tolist() == [1, 0] and widths[1, 2] == 0
    architecture.start_at(_sum_of_widths, target)
    assert math.isclose(float(_sum_of_widths(*architecture.probabilities())), target, rel_tol=0.02)


def test_noise_draws_networks_by_their_probability() -> None:
    architecture = Architecture([2], [[4, 8, 16]])
    with torch.no_grad():
        architecture.alpha[0] = torch.tensor([0.0, math.log(3)])
        architecture.ratio[0] = torch.tensor([0.0, 0.0, math.log(2)])
    draw = np.random.default_rng(1)
    drawn = [architecture.log_probabilities(draw) for _ in range(4000)]
    operators = np.bincount([int(alpha[0].argmax()) for alpha, _ in drawn]) / 4000
    widths = np.bincount([int(ratio[0].argmax()) for _, ratio in drawn]) / 4000
    assert np.allclose(operators, [0.25, 0.75], atol=0.03)
    assert np.allclose(widths, [0.25, 0.25, 0.5], atol=0.03)
