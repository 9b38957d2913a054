"""Cross-layer equalisation: the float network stays, its channels become alike, INT8 loses less."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from compressor.quantisation.calibration import METHODS
from compressor.quantisation.layers import layers
from exporters import graph as g
from exporters.cross_layer import equalise_pairs
from exporters.simulate import Simulated, observe


def pictures(count: int = 3) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return [torch.rand(1, 3, 16, 16, generator=draw) for _ in range(count)]


class Fork(nn.Module):
    """One tensor read by two convolutions, one of them grouped, one transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.transposed = nn.ConvTranspose2d(8, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.pad(nn.functional.leaky_relu(self.first(x), 0.2), (1, 1, 1, 1), mode="reflect")
        return self.grouped(x) + self.transposed(x)


class Shared(nn.Module):
    """A convolution that is called twice cannot take different scales."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.again(torch.relu(self.again(torch.relu(self.first(x)))))


class Summed(nn.Module):
    """A tensor that a sum reads too keeps its scale."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.then = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        return x + self.then(x)


def chain(*between: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), *between, nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 3, 1))


NETWORKS = {
    "relu": (chain(nn.ReLU()), 2),
    "prelu": (chain(nn.PReLU(8)), 2),
    "nothing between": (chain(), 2),
    "affine instance norm": (chain(nn.InstanceNorm2d(8, affine=True), nn.ReLU()), 2),
    "batch norm": (chain(nn.BatchNorm2d(8), nn.ReLU()), 2),
    "instance norm without weights": (chain(nn.InstanceNorm2d(8), nn.ReLU()), 1),
    "tanh": (chain(nn.Tanh()), 1),
    "fork": (Fork(), 1),
    "shared": (Shared(), 0),
    "summed": (Summed(), 0),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_network_stays_what_it_is(name: str) -> None:
    torch.manual_seed(1)
    module, pairs = NETWORKS[name]
    with torch.no_grad():
        for part in module.modules():  # channels decades apart, one of them dead
            if isinstance(part, nn.Conv2d) and len(part.weight) == 8:
                part.weight *= torch.logspace(-2, 1, 8).reshape(-1, 1, 1, 1)
                part.weight[3] = 0
    module = module.eval().requires_grad_(False).double()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    entries = [picture.double() for picture in pictures()]
    graph = g.capture(module, entries[0])
    assert equalise_pairs(graph, entries) == pairs
    for entry in entries:
        torch.testing.assert_close(graph(entry), module(entry), rtol=1e-9, atol=1e-9)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_int8_of_uneven_channels_gains() -> None:
    """What a user's network may look like after training: the same function, its channels decades apart."""
    torch.manual_seed(2)
    module = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.PReLU(16), nn.Conv2d(16, 16, 3), nn.PReLU(16), nn.Conv2d(16, 16, 3),
        nn.PReLU(16), nn.Conv2d(16, 3, 3),
    )  # fmt: skip
    with torch.no_grad():
        for first, then in ((0, 2), (2, 4)):
            scale = torch.logspace(-1, 1, 16)[torch.randperm(16)].reshape(-1, 1, 1, 1)
            module[first].weight *= scale
            module[first].bias *= scale.flatten()
            module[then].weight /= scale.reshape(1, -1, 1, 1)
    module.eval().requires_grad_(False)
    errors = {}
    for equalised in (False, True):
        graph = g.capture(module, pictures()[0])
        if equalised:
            equalise_pairs(graph, pictures())
        chosen, _ = layers(graph)
        bounds = observe(graph, chosen, (p.numpy() for p in pictures())).bounds(METHODS[0])
        made = Simulated(graph, chosen, bounds)(pictures()[0].numpy())
        errors[equalised] = float(np.square(made - module(pictures()[0]).numpy()).mean())
    assert errors[True] < errors[False] / 10
