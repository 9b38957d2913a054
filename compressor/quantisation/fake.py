"""A network with INT8's rounding in it: to gather ranges, to train through, to know what files will give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from compressor.errors import PocketganError
from compressor.quantisation.calibration import Method, TensorRange
from compressor.quantisation.layers import Site
from compressor.quantisation.ranges import Bounds, LearnedRanges
from compressor.quantisation.rounding import fake_quantised, fake_quantised_weight

Divisors = Mapping[str, torch.Tensor]
"""What each output channel (K,) of a layer is divided by before it is rounded, by the layer's name."""


class _Attached(nn.Module):
    """A network whose roundings can be looked at or changed; its own code and names stay what they are.

    Args:
        module: the network; `release` makes it plain again.
        places: where it rounds.
        divisors: of the places where channels are equalised.
    """

    def __init__(self, module: nn.Module, places: Sequence[Site], divisors: Divisors):
        super().__init__()
        self.module, self.places = module, tuple(places)
        self._divisors: dict[str, str] = {}
        for number, (name, values) in enumerate(divisors.items()):
            self.register_buffer(f"divisor{number}", values.reshape(1, -1, 1, 1))
            self._divisors[name] = f"divisor{number}"
        self._handles: list[Any] = []
        results = {place.output for place in self.places}
        for place in self.places:
            convolution = module.get_submodule(place.name)
            if place.input not in results:  # else it comes rounded
                self._handles.append(convolution.register_forward_pre_hook(self._entry(place)))
            result = convolution if place.norm is None else module.get_submodule(place.norm)
            self._handles.append(result.register_forward_hook(self._result(place)))

    def at(self, name: str, values: torch.Tensor, divisor: torch.Tensor | None) -> torch.Tensor:
        """What becomes of the values of the range `name`."""
        raise NotImplementedError

    def divisor(self, place: Site) -> torch.Tensor | None:
        """(1, K, 1, 1), or None where channels are not equalised."""
        found = self._divisors.get(place.name)
        return None if found is None else getattr(self, found)

    def release(self) -> nn.Module:
        """The network without what was attached to it."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        return self.module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.module(x)
        return made

    def _entry(self, place: Site):
        def before(_: nn.Module, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            return (self.at(place.input, arguments[0], None), *arguments[1:])

        return before

    def _result(self, place: Site):
        def after(part: nn.Module, _: Any, values: torch.Tensor) -> torch.Tensor:
            divisor = self.divisor(place)
            bias: torch.Tensor | None = getattr(part, "bias", None)
            if divisor is not None and bias is not None:
                values = values - bias.reshape(1, -1, 1, 1)  # the norm takes it out, so files do without
            return self.at(place.output, values, divisor)

        return after


class Watched(_Attached):
    """Gathers the range of every rounded tensor over the pictures it is called on; changes nothing.

    A tensor that a ReLU ends is seen as the ReLU leaves it.
    """

    def __init__(self, module: nn.Module, places: Sequence[Site], divisors: Divisors):
        super().__init__(module, places, divisors)
        self.ranges = {name: TensorRange() for name in names(places)}
        self._clipped = {place.output for place in places if place.relu}

    def at(self, name: str, values: torch.Tensor, divisor: torch.Tensor | None) -> torch.Tensor:
        seen = values.detach() if divisor is None else values.detach() / divisor
        if name in self._clipped:
            seen = seen.clamp(min=0)
        self.ranges[name].update(seen.float().cpu().numpy())
        return values

    def bounds(self, method: Method) -> dict[str, tuple[float, float]]:
        """By range, by one method."""
        return {name: found.bounds(method) for name, found in self.ranges.items()}


class FakeQuantised(_Attached):
    """The network as its INT8 files compute it, in float and with gradients; its ranges are learned.

    Each bound is its start times exp(a), a a parameter that begins at 0: a bound keeps its sign, so zero
    stays inside and a ReLU's range begins at 0, and a step of Adam changes each by the same share, however
    large it is (as TQT's log thresholds, Jain et al. 2020).

    Args:
        module: the network, in eval mode: batch norms that become one with convolutions keep their
            running statistics, as in the files.
        places: where it rounds.
        bounds: where the ranges begin, (low, high) by name.
        divisors: of the places where channels are equalised.
    """

    start: torch.Tensor

    def __init__(
        self,
        module: nn.Module,
        places: Sequence[Site],
        bounds: Mapping[str, tuple[float, float]],
        divisors: Divisors,
    ):
        super().__init__(module, places, divisors)
        self._rows = {name: row for row, name in enumerate(names(places))}
        self.register_buffer("start", torch.tensor([bounds[name] for name in self._rows]).reshape(-1, 2))
        self.growth = nn.Parameter(torch.zeros_like(self.start))
        self._now: tuple[torch.Tensor, ...] = ()

    @classmethod
    def of(cls, module: nn.Module, places: Sequence[Site], ranges: LearnedRanges) -> FakeQuantised:
        """A network with the ranges that were learned for it.

        Raises:
            PocketganError: they do not fit it.
        """
        ranges.check({place.name: len(module.get_parameter(f"{place.name}.weight")) for place in places})
        used = [place for place in places if place.name in ranges.bounds]
        bounds: dict[str, tuple[float, float]] = {}
        for place in used:
            for name, span in (
                (place.input, ranges.bounds[place.name].input),
                (place.output, ranges.bounds[place.name].output),
            ):
                if bounds.setdefault(name, span) != span:
                    raise PocketganError(
                        "the learned INT8 ranges do not fit this network: two of them are of one tensor",
                        got=f"{bounds[name]} and {span} at {place.name}",
                    )
        unequal = [place.name for place in used if place.name in ranges.divisors and place.norm_eps is None]
        if unequal:
            raise PocketganError(
                "the learned INT8 ranges do not fit this network: no norm makes up for their divisors",
                got=", ".join(unequal[:5]),
            )
        divisors = {name: torch.tensor(values) for name, values in ranges.divisors.items()}
        return cls(module, used, bounds, divisors)

    def learned(self) -> LearnedRanges:
        """The ranges as they are now."""
        spans: np.ndarray = self._bounds().detach().cpu().double().numpy()
        bounds = {name: (float(spans[row, 0]), float(spans[row, 1])) for name, row in self._rows.items()}
        divisors = {place.name: self.divisor(place) for place in self.places}
        return LearnedRanges(
            {place.name: Bounds(bounds[place.input], bounds[place.output]) for place in self.places},
            {
                name: tuple(divisor.flatten().tolist())
                for name, divisor in divisors.items()
                if divisor is not None
            },
        )

    def at(self, name: str, values: torch.Tensor, divisor: torch.Tensor | None) -> torch.Tensor:
        row = self._rows[name]
        return fake_quantised(values, self._now[2 * row], self._now[2 * row + 1], divisor)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self._now = self._bounds().flatten().unbind()
        weights = {
            f"{place.name}.weight": fake_quantised_weight(self.module.get_parameter(f"{place.name}.weight"))
            for place in self.places
        }
        made: torch.Tensor = torch.func.functional_call(self.module, weights, (x,), tie_weights=False)
        self._now = ()
        return made

    def _bounds(self) -> torch.Tensor:
        """(low, high) of every range, (R, 2)."""
        return self.start * self.growth.exp()


def names(places: Sequence[Site]) -> list[str]:
    """The names of all ranges of some places, each once."""
    return list(dict.fromkeys(name for place in places for name in (place.input, place.output)))
