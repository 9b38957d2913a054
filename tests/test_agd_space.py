"""AGD's search spaces, supernet and derived networks: published figures, brute force, properties."""

from __future__ import annotations

import itertools
import json
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from spaces import SIDE, SMALL, definitions, everything, networks, picture

from compressor.agd.cost import METRICS, cost_table
from compressor.agd.definition import read_space, width_table
from compressor.agd.space import FOLDER, Choice, SearchSpace, load_space, shipped
from compressor.agd.supernet import Pick, Supernet, derive, spec_of
from compressor.cost import count

PUBLISHED = [Fraction(k, 12) for k in (4, 6, 8, 10, 12)]
SEARCHED = ("skip", "conv3x3", "residual", "dwsblock")


def st_choice(space: SearchSpace, cells: list[str], widths: list[int]) -> Choice:
    names = ["stem7", "down3", "down3", *cells, "up3", "up3", "picture7"]
    return space.choice(names, widths)


# -- published figures ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channels", "widths"),
    [
        (64, (24, 32, 40, 56, 64)),
        (128, (40, 64, 88, 104, 128)),
        (256, (88, 128, 168, 216, 256)),
        (3, (3,)),  # the floor
    ],
)
def test_width_table(channels: int, widths: tuple[int, ...]) -> None:
    assert width_table(channels, PUBLISHED) == widths


def test_a_width_that_loses_over_a_tenth_is_eight_more() -> None:
    assert width_table(18, [Fraction(1)]) == (24,)  # rounds to 16, which is under 16.2
    assert width_table(12, [Fraction(1)]) == (16,)  # half is rounded up
    assert width_table(17, [Fraction(1)]) == (16,)


@pytest.mark.parametrize(("name", "count_"), [("st", 4**9 * 5**14), ("sr", 4**25 * 5**20)])
def test_published_spaces_hold_as_many_networks(name: str, count_: int) -> None:
    space = load_space(name)
    assert networks(space) == count_


def test_fixture_of_a_derived_translation_network() -> None:
    space = load_space("st")
    cells = ["residual"] * 4 + ["dwsblock"] * 2 + ["residual"] + ["skip"] * 2
    choice = st_choice(space, cells, [24, 40, 88, *[88] * 9, 128, 24, 3])
    assert cost_table(space, "params").cost(choice) == 1_019_088
    assert cost_table(space, "literature_macs").cost(choice) == 7_658_274_816
    assert cost_table(space, "macs").cost(choice) == 5_053_612_032
    with torch.device("meta"):
        cost = count(spec_of(space, choice).build(), (1, 3, 256, 256))
    assert (cost.parameters, cost.bytes) == (1_019_088, 4_076_352)
    assert (cost.literature_macs, cost.macs) == (7_658_274_816, 5_053_612_032)
    assert cost.uncounted == ()


def test_feasible_range_of_translation_in_true_macs() -> None:
    space = load_space("st")
    table = cost_table(space, "macs")
    smallest = [24, 40, 88, *[88] * 9, 40, 24, 3]
    of = {cell: table.cost(st_choice(space, [cell] * 9, smallest)) for cell in SEARCHED}
    assert table.range() == (of["skip"], 49_551_507_456)
    assert of["skip"] / 1e9 == pytest.approx(1.29, abs=5e-3)
    assert of["dwsblock"] / 1e9 == pytest.approx(3.41, abs=5e-3)
    assert of["residual"] / 1e9 == pytest.approx(6.14, abs=5e-3)
    low, high = table.extremes()
    assert set(space.names(low)[3:12]) == {"skip"} and space.widths(low) == tuple(smallest)
    assert set(space.names(high)[3:12]) == {"residual"} and set(space.widths(high)[2:12]) == {256}


def test_feasible_range_of_super_resolution_is_a_literature_count() -> None:
    """93.2 and 212.4 G count biases and LeakyReLUs of the fixed tail; true MACs are 0.3 G less."""
    space = load_space("sr")
    low, high = cost_table(space, "literature_macs").range()
    assert (low / 1e9, high / 1e9) == pytest.approx((93.2, 212.4), abs=0.05)
    assert cost_table(space, "macs").range() == (92_887_056_384, 212_110_147_584)
    # the convolutions that are not searched, by hand: first, trunk, up1, up2, high resolution, last
    fixed = 65536 * (1 + 4 + 16 + 16) * 64 * 64 * 9 + 65536 * (1 + 16) * 3 * 64 * 9
    cells = 65536 * 5 * (64 * 24 + 3 * 24 * 24 + 24 * 64)
    assert fixed + cells == 92_887_056_384


def test_our_spaces_go_below_what_the_published_ones_can() -> None:
    tail, small = load_space("sr_tail"), load_space("st_small")
    assert cost_table(tail, "macs").range()[0] < 1e9 < cost_table(load_space("sr"), "macs").range()[0]
    assert {"shuffle4", "nearest_hr"} < set(tail.positions[-1].operators)
    low, high = cost_table(small, "macs").range()
    assert low < 0.2e9 and high > 6e9


# -- what the networks compute, against functions written down again ---------------------------------


def run_published(state: dict[str, torch.Tensor], name: str, kind: str, x: torch.Tensor, norm: bool):
    """A published operator by its definition."""

    def conv(part: str, x: torch.Tensor, groups: int = 1) -> torch.Tensor:
        weight = state[f"layers.{name}.{part}.weight"]
        y = F.conv2d(x, weight, padding=weight.shape[-1] // 2, groups=groups)
        return F.instance_norm(y) if norm else y

    steps = 3 if norm else 2  # modules from one convolution to the next
    match kind:
        case "skip" | "conv3x3":
            return F.relu(conv("body.0", x))
        case "residual":
            y = conv(f"body.{steps}", F.relu(conv("body.0", x)))
        case _:
            y = F.relu(conv("body.0", x))
            assert y.shape[1] == 4 * x.shape[1]
            y = conv(f"body.{2 * steps}", F.relu(conv(f"body.{steps}", y, groups=y.shape[1])))
    return F.relu(y + (x if x.shape[1] == y.shape[1] else conv("shortcut.0", x)))


@torch.no_grad()
def test_a_translation_network_by_its_definition() -> None:
    space = load_space("st")
    draw = np.random.default_rng(3)
    choice = Choice.random(space, draw)
    choice = Choice((*choice.operators[:3], *(0, 1, 2, 3, 3, 2, 1, 0, 2), 0, 0, 0), choice.widths)
    generator = derive(Supernet(space, 1), choice)
    state, x = generator.module.state_dict(), picture(space, 32)
    y = F.relu(F.instance_norm(F.conv2d(x, state["layers.stem1.body.0.weight"], padding=3)))
    for name in ("stem2", "stem3"):
        y = F.relu(F.instance_norm(F.conv2d(y, state[f"layers.{name}.body.0.weight"], stride=2, padding=1)))
    for index in range(9):
        y = run_published(state, f"cell{index + 1}", space.names(choice)[3 + index], y, True)
    for name in ("header1", "header2"):
        weight = state[f"layers.{name}.body.0.weight"]
        y = F.relu(F.instance_norm(F.conv_transpose2d(y, weight, stride=2, padding=1, output_padding=1)))
    y = torch.tanh(F.conv2d(y, state["layers.header3.body.0.weight"], padding=3))
    assert torch.allclose(generator.module(x), y, atol=1e-5)
    assert y.std() > 0.01


@torch.no_grad()
def test_a_super_resolution_network_by_its_definition() -> None:
    space = load_space("sr")
    choice = Choice.random(space, np.random.default_rng(4))
    generator = derive(Supernet(space, 1), choice)
    state, x = generator.module.state_dict(), picture(space, 6)
    kinds = dict(zip((p.name for p in space.positions), space.names(choice), strict=True))

    def conv(name: str, x: torch.Tensor) -> torch.Tensor:
        key = f"layers.{name}.body.{1 if name.startswith('up') else 0}"
        return F.conv2d(x, state[f"{key}.weight"], state[f"{key}.bias"], padding=1)

    first = conv("conv_first", x)
    y = first
    for cell in range(1, 6):
        z = y
        for place in ("op1", "op2", "op3", "op4", "end"):
            name = f"cell{cell}_{place}"
            z = run_published(state, name, kinds[name], z, False)
        y = 0.2 * z + y
    y = conv("trunk_conv", y) + first
    for name in ("up1", "up2"):
        y = F.leaky_relu(conv(name, y.repeat_interleave(2, 2).repeat_interleave(2, 3)), 0.2)
    y = (torch.tanh(conv("conv_last", F.leaky_relu(conv("conv_hr", y), 0.2))) + 1) / 2
    assert torch.allclose(generator.module(x), y, atol=1e-5)
    assert y.shape == (2, 3, 24, 24)


# -- one function: supernet and derived network ---------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("name", shipped())
def test_shipped_spaces_derive_what_the_supernet_computes(name: str) -> None:
    space = load_space(name)
    net, draw, x = Supernet(space, 0), np.random.default_rng(0), picture(space, 16)
    tables = {metric: cost_table(space, metric, (1, 3, 16, 16)) for metric in METRICS}
    outputs = []
    for choice in [
        Choice.widest(space),
        Choice.narrowest(space),
        *(Choice.random(space, draw) for _ in "123"),
    ]:
        module = derive(net, choice).module
        outputs.append(net(x, net.picks_of(choice)))
        assert torch.allclose(module(x), outputs[-1], atol=1e-5)
        cost = count(module, (1, 3, 16, 16))
        assert {m: table.cost(choice) for m, table in tables.items()} == {
            m: getattr(cost, m) for m in METRICS
        }
        assert cost.uncounted == ()
    assert all((a - b).abs().max() > 1e-4 for a, b in itertools.combinations(outputs, 2))  # each another


@settings(max_examples=40, deadline=None)
@given(definitions(), st.integers(0, 2**32 - 1))
def test_any_space_derives_what_the_supernet_computes(definition: dict[str, Any], seed: int) -> None:
    space = read_space(definition)
    assert read_space(json.loads(json.dumps(space.definition))) == space
    choice = Choice.random(space, np.random.default_rng(seed))
    assert Choice.from_json(json.loads(json.dumps(choice.as_json()))) == choice
    assert space.choice(space.names(choice), space.widths(choice)) == choice
    net, x = Supernet(space, 0), picture(space)
    module = derive(net, choice).module
    with torch.no_grad():
        y = net(x, net.picks_of(choice))
        assert torch.allclose(module(x), y, atol=1e-5)
    assert y.shape == (2, 3, SIDE * space.image.scale, SIDE * space.image.scale)
    cost = count(module, (1, 3, SIDE, SIDE))
    for metric in ("macs", "parameters", "bytes"):
        table = cost_table(space, metric)
        assert table.cost(choice) == getattr(cost, metric)
        low, high = table.range()
        assert low <= table.cost(choice) <= high
        if networks(space) <= 500:
            costs = [table.cost(each) for each in everything(space)]
            assert (low, high) == (min(costs), max(costs))


def test_narrow_networks_use_the_first_filters_and_inputs() -> None:
    """What lies beyond the first channels may be anything."""
    space = load_space("st")
    net, choice = Supernet(space, 0), Choice((0, 0, 0, *(0, 1, 2, 3, 3, 2, 1, 0, 2), 0, 0, 0), (0,) * 15)
    x = picture(space, 16)
    with torch.no_grad():
        before = net(x, net.picks_of(choice))
        inherited = derive(net, choice).module.state_dict()
        names = dict(zip((p.name for p in space.positions), space.names(choice), strict=True))
        for key, part in inherited.items():
            layers, position, rest = key.split(".", 2)
            whole = net.get_parameter(f"{layers}.{position}.{names[position]}.{rest}")
            kept = whole[tuple(slice(0, n) for n in part.shape)].clone()
            whole.fill_(torch.nan)
            whole[tuple(slice(0, n) for n in part.shape)] = kept
        assert torch.equal(net(x, net.picks_of(choice)), before)


def test_each_convolution_has_one_weight() -> None:
    space = load_space("sr")
    net = Supernet(space, 0)
    one = {
        "skip": 64 * 64,
        "conv3x3": 9 * 64 * 64,
        "residual": 19 * 64 * 64,
        "dwsblock": 9 * 64 * 64 + 9 * 256,
    }
    fixed = 5 * 64 * 64 * 9 + 2 * 3 * 64 * 9 - 64 * 64 * 9 + 5 * 64 + 3
    assert sum(p.numel() for p in net.parameters()) == 25 * sum(one.values()) + fixed


# -- picks ----------------------------------------------------------------------------------------


def test_a_pick_is_a_weighted_sum_times_the_width_weight() -> None:
    space = read_space(SMALL)
    net, x = Supernet(space, 0), picture(space)
    choice = Choice((0,) * 4, (1, 1, 1, 0))
    picks = net.picks_of(choice)
    a, b, w = (torch.tensor(v, requires_grad=True) for v in (0.3, 0.7, 1.0))
    picks[1] = Pick(((0, a), (2, b)), (1, w))
    y = net(x, picks)
    (y**2).sum().backward()
    with torch.no_grad():
        start = net.layers["start"]["start"](x, 5)  # type: ignore[index]
        cell = net.layers["cell"]  # type: ignore[index]
        mixed = 0.3 * cell["residual"](start, 8) + 0.7 * cell["identity"](start, 8)  # type: ignore[index]
        rest = net.layers["end"]["conv3x3"](mixed, 8)  # type: ignore[index]
        assert torch.allclose(y, net.layers["picture"]["picture"](rest, 3), atol=1e-6)  # type: ignore[index]
    for weight in (a, b, w):
        assert weight.grad is not None and weight.grad.abs() > 0


@settings(max_examples=15, deadline=None)
@given(definitions(), st.integers(0, 2**32 - 1))
def test_gradients_reach_every_weight_of_a_mixture(definition: dict[str, Any], seed: int) -> None:
    """Smooth operators without norms: the gradient is the difference that a small step makes."""
    known = yaml.safe_load((FOLDER / "operators.yaml").read_text())
    text = json.dumps({**definition, "norm": "none", "operators": {**known, **definition["operators"]}})
    for kink in ('{"leaky_relu": 0.1}', '"leaky_relu"', '"relu"'):
        text = text.replace(kink, '"tanh"')
    space = read_space(json.loads(text))
    net, x = Supernet(space, 0).double(), picture(space).double()
    choice = Choice.random(space, np.random.default_rng(seed))
    weights = torch.rand(len(space.positions), 4, dtype=torch.float64) + 0.5

    def run(weights: torch.Tensor) -> torch.Tensor:
        picks = [
            Pick(
                tuple((k, weights[i, k]) for k in range(len(p.operators))),
                (choice.widths[i], weights[i, 3] if p.tied is None else None),
            )
            for i, p in enumerate(space.positions)
        ]
        return (net(x, picks) ** 2).mean()

    weights.requires_grad_()
    (gradient,) = torch.autograd.grad(run(weights), weights)
    for i, position in enumerate(space.positions):
        for k in [*range(len(position.operators)), *([3] if position.tied is None else [])]:
            step = torch.zeros_like(weights)
            step[i, k] = 1e-5
            with torch.no_grad():
                slope = (run(weights + step) - run(weights - step)) / 2e-5
            assert float(gradient[i, k]) == pytest.approx(float(slope), rel=1e-3, abs=1e-7)
