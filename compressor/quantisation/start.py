"""Where quantisation-aware training begins: equalised channels, and ranges found in the best of some ways."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from compressor.data.images import to_pixels
from compressor.errors import PocketganError
from compressor.metrics.fidelity import psnr
from compressor.quantisation.calibration import METHODS
from compressor.quantisation.captured import capture
from compressor.quantisation.fake import FakeQuantised, Watched
from compressor.quantisation.layers import Site, layers, sites

_JUDGED = 4  # pictures that the ways to find ranges are judged on
_OVER_EPS = (
    100.0  # of a channel's variance over a norm's eps, so that dividing it changes the norm by < 0.5 %
)


@dataclass(frozen=True)
class Start:
    """Ranges to begin with.

    Attributes:
        bounds: (low, high) by the range's name.
        divisors: of each channel, by layer.
        method: how they were found.
        psnr: dB to the float network at the start, mean of the pictures judged.
    """

    bounds: dict[str, tuple[float, float]]
    divisors: dict[str, list[float]]
    method: str
    psnr: float

    def network(self, module: nn.Module, places: Sequence[Site]) -> FakeQuantised:
        """A network that computes so; see `FakeQuantised`."""
        device = next(module.parameters()).device
        divisors = {name: torch.tensor(values, device=device) for name, values in self.divisors.items()}
        return FakeQuantised(module, places, self.bounds, divisors).to(device)


def find_sites(module: nn.Module, example: torch.Tensor) -> tuple[list[Site], list[str]]:
    """Where a network rounds, and the names of its convolutions that stay float.

    Args:
        module: on the CPU.
        example: an input (1, C, H, W).

    Raises:
        PocketganError: the network cannot be traced, or has no convolution that INT8 could take.
    """
    graph = capture(module, example)
    places, (chosen, kept) = sites(module, graph), layers(graph)
    if not places:
        raise PocketganError(
            "this network has no convolution that can be trained for INT8",
            got=f"{len(chosen) + len(kept)} convolutions",
            allowed="nn.Conv2d modules that are called once and see more than one pixel",
        )
    named = {place.name for place in places}
    return places, [*kept, *(layer.name for layer in chosen if layer.name not in named)]


@torch.no_grad()
def begin(
    module: nn.Module,
    places: Sequence[Site],
    pictures: Sequence[torch.Tensor],
    output_range: tuple[float, float],
) -> Start:
    """Find ranges on pictures; the method whose fake-quantised pictures are nearest to float wins.

    Args:
        module: in eval mode; left as it was.
        places: where it rounds.
        pictures: inputs (1, C, H, W), on the module's device.
        output_range: values of black and white at the output.
    """
    divisors = _divisors(module, places, pictures)
    watched = Watched(module, places, divisors)
    for picture in pictures:
        watched(picture)
    watched.release()
    judged = pictures[:_JUDGED]
    plain = [to_pixels(module(picture), output_range) for picture in judged]

    found = []
    for method in METHODS:
        bounds = watched.bounds(method)
        start = Start(bounds, {name: d.tolist() for name, d in divisors.items()}, method, 0.0)
        network = start.network(module, places)
        made = [to_pixels(network(picture), output_range) for picture in judged]
        network.release()
        near = [min(psnr(a, b), 100.0) for a, b in zip(made, plain, strict=True)]
        found.append(Start(bounds, start.divisors, method, float(np.mean(near))))
    return max(found, key=lambda start: start.psnr)


def divisors_of(reach: torch.Tensor) -> torch.Tensor:
    """Each channel's reach (K,) over the median one; dead channels are not blown up beyond 1000 times."""
    middle = reach.median()
    if middle <= 0:
        return torch.ones_like(reach)
    return (reach / middle).clamp(min=1e-3)


def _divisors(
    module: nn.Module, places: Iterable[Site], pictures: Iterable[torch.Tensor]
) -> dict[str, torch.Tensor]:
    """What channels before norms are divided by, so that one scale serves them all.

    As far as the norm makes up for it whatever the picture: its eps must stay small beside every divided
    variance, so channels of nearly no variance are left as they are.
    """
    before = [place for place in places if place.norm_eps is not None]
    reach: dict[str, torch.Tensor] = {}
    variance: dict[str, torch.Tensor] = {}

    def watch(name: str):
        def after(_: nn.Module, __: Any, values: torch.Tensor) -> None:
            centred = values - values.mean((2, 3), keepdim=True)
            reach[name] = torch.maximum(
                reach.get(name, torch.zeros((), device=values.device)), centred.abs().amax((0, 2, 3))
            )
            least = centred.square().mean((2, 3)).amin(0)
            variance[name] = torch.minimum(variance.get(name, least), least)

        return after

    handles = [module.get_submodule(place.name).register_forward_hook(watch(place.name)) for place in before]
    for picture in pictures if before else ():
        module(picture)
    for handle in handles:
        handle.remove()
    made = {}
    for place in before:
        assert place.norm_eps is not None
        largest = (variance[place.name] / (_OVER_EPS * place.norm_eps)).sqrt()
        wanted = divisors_of(reach[place.name])
        made[place.name] = torch.where(largest < 1, torch.ones_like(wanted), torch.minimum(wanted, largest))
    return made
