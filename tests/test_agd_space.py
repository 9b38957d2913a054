"""AGD's search spaces, supernet, costs and derived generators: published figures, brute force, properties."""

from __future__ import annotations

import copy
import itertools
import json
import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from spaces import SIDE, definitions

from compressor.agd.cost import METRICS, cost_table
from compressor.agd.definition import read_space, width_table
from compressor.agd.latency import Alone, latency_table
from compressor.agd.space import FOLDER, Choice, SearchSpace, load_space, shipped
from compressor.agd.supernet import Pick, Supernet, derive, spec_of
from compressor.cost import count
from compressor.errors import PocketganError, UsageError
from compressor.generators import GeneratorSpec, load, save

PUBLISHED = [Fraction(k, 12) for k in (4, 6, 8, 10, 12)]
SEARCHED = ("skip", "conv3x3", "residual", "dwsblock")


def picture(space: SearchSpace, side: int = SIDE, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.rand(2, space.image.channels[0], side, side, generator=draw) * 2 - 1


def networks(space: SearchSpace) -> int:
    return math.prod(len(p.operators) * len(p.widths) for p in space.positions)


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


# -- costs ----------------------------------------------------------------------------------------

SMALL: dict[str, Any] = {
    "name": "small",
    "image": {"size": [4, 4]},
    "operators": {"start": {"body": [{"conv": 3}]}, "picture": {"body": [{"conv": 1}]}},
    "layers": [
        {"name": "start", "operators": ["start"], "widths": [2, 5]},
        {"name": "cell", "operators": ["residual", "dwsblock", "identity"], "widths": [3, 8]},
        {"name": "end", "operators": ["conv3x3", "identity"], "widths": [2, 8]},
        {"name": "picture", "operators": ["picture"], "width": 3},
    ],
}


LAYERS = SMALL["layers"]


def changed(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(SMALL), **changes}


def tied() -> dict[str, Any]:
    """The same, in which the sum of start and end needs equal widths."""
    definition = copy.deepcopy(SMALL)
    cell, end = definition["layers"][1:3]
    del end["widths"]
    end["width_as"] = "start"
    again = {**end, "name": "again"}
    definition["layers"][1:3] = [{"residual": 0.5, "layers": [cell, end]}, again]
    return definition


def everything(space: SearchSpace) -> list[Choice]:
    operators = itertools.product(*(range(len(p.operators)) for p in space.positions))
    widths = list(itertools.product(*(range(len(p.widths)) for p in space.positions)))
    return [Choice(o, w) for o in operators for w in widths]


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


# -- definitions ----------------------------------------------------------------------------------


def place(**changes: Any) -> dict[str, Any]:
    definition = copy.deepcopy(SMALL)
    definition["layers"][1] |= changes
    return {
        **definition,
        "layers": [{k: v for k, v in d.items() if v is not None} for d in definition["layers"]],
    }


def operator(*body: Any, **more: Any) -> dict[str, Any]:
    return changed(operators={**SMALL["operators"], "mine": {"body": list(body), **more}})


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        (changed(layer=[]), "there is no 'layer'; did you mean 'layers'"),
        (changed(format="pocketgan.space/2"), "a format we do not know"),
        (changed(norm="batch"), "there is no 'batch'"),
        (changed(image={"sizes": [4, 4]}), "did you mean 'size'"),
        (changed(image={"input_range": [1, 0]}), "does not rise"),
        (changed(layers=[]), "layers is not a list"),
        (changed(multipliers=["1e99"]), "not a positive number or fraction"),
        (changed(name="train"), "is no name"),
        ([], "is not a section"),
        (place(operators=["residual", "dwsblok"]), "did you mean 'dwsblock'"),
        (place(operators=["skip", "skip"]), "stands twice"),
        (place(name="start"), "two positions of this name"),
        (place(name="a.b"), "is no name"),
        (place(width=3), "says its width 2 times"),
        (place(widths=None), "says its width 0 times"),
        (place(widths=[5, 3]), "do not rise"),
        (place(widths=[0]), "not a whole number"),
        (place(widths=None, width=True), "not a whole number"),
        (place(widths=None, width_as="strat"), "did you mean 'start'"),
        (place(repeat=0), "not a whole number"),
        (place(repeat=1001), "not a whole number"),
        (place(stride=2), "there is no 'stride'"),
        (operator({"conv": 3, "too": "out"}), "did you mean 'to'"),
        (operator({"conv": 2}), "odd kernels"),
        (operator({"conv": 3, "to": "5"}), "is no width"),
        (operator({"conv": 3, "to": "in"}), "does not end in the output's width"),
        (operator({"conv": 3}, {"shuffle": 2}), "a shuffle by 2 cannot divide"),
        (operator({"conv": 3, "stride": 2}, shortcut=True), "cannot have a shortcut"),
        (operator("rel"), "did you mean 'relu'"),
        (operator({"konv": 3}), "did you mean 'conv'"),
        (operator({"conv": 3, "bias": 1}), "not true or false"),
        (operator(), "does nothing"),
        (operator({"conv": 3}, last=[{"conv": 3}]), "a layer with channels of its own"),
        (changed(layers=LAYERS[:-1]), "the last position makes the picture"),
        (changed(layers=[{"residual": 1, "layers": LAYERS[:2]}, *LAYERS[2:]]), "adds different widths"),
    ],
)  # fmt: skip
def test_definitions_that_do_not_fit(definition: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_space(definition)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nname: b\n", "set twice"),
        ("name: &x a\nbase: *x\n", "anchors"),
        ("name: !!python/object:os.system a\n", "tags"),
        ("name: [\n", "not YAML"),
        ("\x00", "not YAML"),
    ],
)
def test_files_that_are_no_settings(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UsageError, match=message):
        load_space(tmp_path / "mine.yaml")


def test_a_space_that_is_not_there_is_told_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'sr_tail'"):
        load_space("sr_tial")


def test_a_user_adds_operators_and_widths_in_a_file(tmp_path: Path) -> None:
    """Copy a shipped file, add an operator and a width: nothing else is needed."""
    definition = yaml.safe_load((FOLDER / "st.yaml").read_text())
    definition["operators"]["ghost"] = {
        "body": [{"conv": 1, "to": "out/2"}, "norm", "relu", {"depthwise": 5}, "norm", {"conv": 1}],
        "shortcut": True,
    }
    cell = next(layer for layer in definition["layers"] if layer["name"] == "cell")
    cell["operators"].append("ghost")
    cell["widths"] = [16, 48, 100]
    del cell["widths_of"]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(definition))
    space = load_space(tmp_path / "mine.yaml")
    choice = Choice((0, 0, 0, *[4] * 9, 0, 0, 0), (0, 0, 0, *[1] * 9, 0, 0, 0))
    assert set(space.names(choice)[3:12]) == {"ghost"} and set(space.widths(choice)[3:12]) == {48}
    net, x = Supernet(space, 0), picture(space, 16)
    with torch.no_grad():
        assert torch.allclose(derive(net, choice).module(x), net(x, net.picks_of(choice)), atol=1e-5)


def test_the_example_of_the_documentation() -> None:
    text = (Path(__file__).parent.parent / "docs" / "search-spaces.md").read_text()
    space = read_space(yaml.safe_load(text.split("```yaml")[1].split("```")[0]))
    net, choice = Supernet(space, 0), Choice.random(space, np.random.default_rng(0))
    with torch.no_grad():
        y = net(picture(space, 16), net.picks_of(choice))
    assert y.shape == (2, 3, 16, 16) and count(derive(net, choice).module, (1, 3, 16, 16)).uncounted == ()


def test_sums_that_begin_together_are_nested() -> None:
    """x + 3 * (x + 2 * x) is 10 x: which sum is the outer one counts."""
    inner = {"residual": 2, "layers": [{"name": "nothing", "operators": ["identity"], "width": 3}]}
    definition = {"name": "nested", "layers": [{"residual": 3, "layers": [inner]}]}
    definition["layers"] = [*definition["layers"], {"name": "end", "operators": ["identity"], "width": 3}]
    space = read_space(definition)
    net, x = Supernet(space, 0), picture(space)
    assert torch.allclose(net(x, net.picks_of(Choice.widest(space))), 10 * x)


# -- the family -----------------------------------------------------------------------------------


def test_a_derived_network_is_saved_and_loaded(tmp_path: Path) -> None:
    from compressor.generators.inspection import inspect

    space = load_space("sr_tail")
    generator = derive(Supernet(space, 0), Choice.random(space, np.random.default_rng(2)))
    assert GeneratorSpec.from_json(json.loads(json.dumps(generator.spec.as_json()))) == generator.spec
    save(generator.spec, generator.module, tmp_path / "model", {})
    loaded, x = load(tmp_path / "model"), picture(space)
    with torch.no_grad():
        assert torch.equal(loaded.module(x), generator.module(x))
    assert loaded.spec == generator.spec and loaded.spec.image.scale == 4
    found = inspect(tmp_path / "model", size=(16, 16))
    assert found.family == "agd" and found.cost == count(generator.module, (1, 3, 16, 16))


def test_a_folder_with_an_operator_the_space_does_not_have(tmp_path: Path) -> None:
    space = load_space("st")
    generator = derive(Supernet(read_space(SMALL), 0), Choice.widest(read_space(SMALL)))
    save(generator.spec, generator.module, tmp_path, {})
    document = json.loads((tmp_path / "architecture.json").read_text())
    document["arguments"]["operators"][1] = "conv7x7"
    (tmp_path / "architecture.json").write_text(json.dumps(document))
    with pytest.raises(PocketganError, match="no such operator at cell"):
        load(tmp_path)
    with pytest.raises(UsageError, match="no choice"):
        derive(Supernet(read_space(SMALL), 0), Choice.widest(space))
