"""Costs: exact figures of published networks, closed forms, and what cannot be counted."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn

from compressor.cost import Cost, count
from compressor.errors import PocketganError
from compressor.generators.families import construct


def cost_of(family: str, arguments: dict[str, object]) -> Cost:
    with torch.device("meta"):
        module = construct(family, arguments)
    return count(module.eval(), (1, 3, 256, 256))


def test_esrgan_row_exactly() -> None:
    module = construct("rrdbnet", {})
    began = time.perf_counter()
    cost = count(module, (1, 3, 256, 256))
    assert time.perf_counter() - began < 5  # nothing is computed
    assert cost.parameters == 16_697_987
    assert cost.bytes == 66_791_948
    assert cost.literature_macs == 1_176_614_469_632
    assert cost.macs == 1_174_853_910_528
    assert cost.uncounted == ()


@pytest.mark.parametrize(
    ("family", "arguments", "parameters", "true", "literature"),
    [
        ("resnet", {"blocks": 9}, 11.378, 49.55, 56.80),
        ("resnet", {"blocks": 6}, 7.838, 35.06, 42.30),
        ("unet", {"depth": 8}, 54.414, 6.05, 18.14),
    ],
)
def test_published_translation_networks(
    family: str, arguments: dict[str, object], parameters: float, true: float, literature: float
) -> None:
    cost = cost_of(family, arguments)
    assert cost.parameters / 1e6 == pytest.approx(parameters, abs=5e-4)
    assert cost.macs / 1e9 == pytest.approx(true, abs=5e-3)
    assert cost.literature_macs / 1e9 == pytest.approx(literature, abs=5e-3)
    assert sum(layer.macs for layer in cost.layers) == cost.macs
    assert sum(layer.parameters for layer in cost.layers) == cost.parameters


def test_dropout_slot_and_statistics_cost_nothing() -> None:
    plain, slotted = cost_of("resnet", {}), cost_of("resnet", {"dropout_slot": True})
    assert (plain.macs, plain.literature_macs) == (slotted.macs, slotted.literature_macs)


class Mixed(nn.Module):
    """One of each kind, in and outside modules, with closed-form costs."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.up = nn.ConvTranspose2d(4, 6, 4, stride=2, padding=1)
        self.dense = nn.Linear(6, 5)
        self.scale = nn.Parameter(torch.ones(2, 4, 1, 1))
        self.unused = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.depthwise(x)
        x = self.depthwise(nn.functional.leaky_relu(x, 0.1))  # the same layer twice
        x = nn.functional.instance_norm(self.up(x))
        x = self.dense(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)[:, :4]
        return nn.functional.conv2d(x, self.scale)


def test_closed_forms() -> None:
    module = Mixed().train()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    cost = count(module, (1, 4, 8, 8))
    layers = {layer.name: layer for layer in cost.layers}
    assert layers["depthwise"].macs == 2 * 64 * 4 * 9
    assert layers["depthwise"].literature_macs == 2 * 64 * 4 * (9 + 1)
    assert layers["up"].macs == 64 * 4 * 6 * 16  # input positions
    assert layers["up"].literature_macs == 256 * 6 * 4 * 16  # output positions; the norm takes the bias
    assert layers["up"].output_shape == (1, 6, 16, 16)
    assert layers["dense"].macs == 256 * 6 * 5
    assert layers["(network)"].macs == 256 * 4 * 2
    assert layers["(network)"].literature_macs == 256 * 4 * 2 + 64 * 4  # LeakyReLU, one an element
    assert cost.parameters == 40 + (4 * 6 * 16 + 6) + 35 + 8 + 6
    assert cost.uncounted == ("unused (Linear) did not run",)
    assert module.training and module.up.training
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert not module.depthwise._forward_hooks


def test_macs_are_what_multiplying_out_gives() -> None:
    """A transposed convolution by its definition: every input value meets every weight of its channel."""
    cost = count(nn.ConvTranspose2d(2, 3, 3, stride=2), (1, 2, 5, 7))
    assert cost.macs == (5 * 7 * 2) * (3 * 3 * 3)


def test_what_cannot_be_counted_is_named() -> None:
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cumprod(torch.fft.fft2(x).real, 1)

    assert count(Odd(), (1, 3, 8, 8)).uncounted == (
        "_fft_c2c in (network) (Odd)",
        "cumprod in (network) (Odd)",
    ) or count(Odd(), (1, 3, 8, 8)).uncounted == ("_fft_r2c in (network) (Odd)", "cumprod in (network) (Odd)")


def test_a_network_that_looks_at_values_is_run_on_numbers() -> None:
    class Looks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            return y * 2 if float(y.sum()) > 0 else y

    cost = count(Looks(), (1, 3, 4, 4))
    assert cost.macs == 16 * 6
    assert cost.uncounted == ()


def test_shared_parameters_count_once() -> None:
    first = nn.Conv2d(3, 3, 3, padding=1)
    second = nn.Conv2d(3, 3, 3, padding=1)
    second.weight = first.weight
    cost = count(nn.Sequential(first, second), (1, 3, 4, 4))
    assert cost.parameters == 81 + 3 + 3
    assert cost.bytes == 4 * cost.parameters
    assert cost.macs == 2 * 16 * 81


def test_half_precision_bytes() -> None:
    cost = count(nn.Conv2d(3, 3, 1).half(), (1, 3, 4, 4))
    assert cost.bytes == 2 * cost.parameters


def test_an_input_that_does_not_suit() -> None:
    with pytest.raises(PocketganError, match="does not run on an input of this size"):
        count(nn.Conv2d(3, 3, 3), (1, 4, 8, 8))


def test_json() -> None:
    document = count(nn.Conv2d(3, 2, 1), (1, 3, 4, 4)).as_json()
    assert document["macs"] == 96
    assert document["layers"][0]["kind"] == "Conv2d"
