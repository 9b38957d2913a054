"""Ranges of INT8, and the document that carries learned ones beside a generator's weights. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from compressor.errors import PocketganError

FORMAT = "pocketgan.quantisation/1"
FILE = "quantisation.json"
_AGAIN = "train it again: pocketgan distill MODEL --qat ..."


@dataclass(frozen=True)
class Bounds:
    """The (low, high) that 8 bits span at a convolution's input and output."""

    input: tuple[float, float]
    output: tuple[float, float]


@dataclass(frozen=True)
class LearnedRanges:
    """What quantisation-aware training found; the layers named here run on integers, all others in float.

    Attributes:
        bounds: of each layer, by its module's name.
        divisors: of layers whose output channels are equalised before a norm: what each channel's values
            and weights are divided by; the bounds of the output are those of the divided values.
    """

    bounds: Mapping[str, Bounds]
    divisors: Mapping[str, tuple[float, ...]]

    def as_json(self, weights_sha256: str) -> dict[str, Any]:
        """The document that `quantisation.json` holds.

        Args:
            weights_sha256: of the weights that the ranges were learned with.
        """
        return {
            "format": FORMAT,
            "weights_sha256": weights_sha256,
            "layers": {
                name: {
                    "input": list(bounds.input),
                    "output": list(bounds.output),
                    "divisor": list(self.divisors[name]) if name in self.divisors else None,
                }
                for name, bounds in self.bounds.items()
            },
        }

    @classmethod
    def from_json(cls, document: object, weights_sha256: str) -> LearnedRanges:
        """Read `quantisation.json`, refusing what `as_json` could not have written for these weights.

        Raises:
            PocketganError: another version, other weights, or a value that is no range.
        """
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise PocketganError(
                f"{FILE} is of a format this version does not know",
                got=document.get("format") if isinstance(document, dict) else type(document).__name__,
                allowed=FORMAT,
                fix="pip install --upgrade pocketgan",
            )
        if document.get("weights_sha256") != weights_sha256:
            raise PocketganError(
                f"{FILE} was learned with other weights than lie beside it",
                got=weights_sha256,
                allowed=document.get("weights_sha256"),
                fix=f"{_AGAIN}; or delete {FILE}, and INT8 is calibrated as for any generator",
            )
        try:
            layers = {str(name): _layer(entry) for name, entry in document["layers"].items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise PocketganError(
                f"{FILE} does not hold ranges", got=f"{type(error).__name__}: {error}", fix=_AGAIN
            ) from error
        return cls(
            {name: bounds for name, (bounds, _) in layers.items()},
            {name: divisor for name, (_, divisor) in layers.items() if divisor is not None},
        )

    def check(self, channels: Mapping[str, int]) -> None:
        """Insist that the ranges belong to a network.

        Args:
            channels: output channels of the network's convolutions that may be quantised, by name.

        Raises:
            PocketganError: a layer is not there, or has another number of channels.
        """
        if missing := [name for name in self.bounds if name not in channels]:
            raise PocketganError(
                "the learned INT8 ranges do not fit this network: it cannot quantise some of their layers",
                got=", ".join(missing[:5]) + (", ..." if len(missing) > 5 else ""),
                allowed=", ".join(list(channels)[:8]) + (", ..." if len(channels) > 8 else "") or "none",
                fix=_AGAIN,
            )
        for name, divisor in self.divisors.items():
            if len(divisor) != channels[name]:
                raise PocketganError(
                    f"the learned INT8 ranges do not fit this network: {name} has other channels",
                    got=len(divisor),
                    allowed=channels[name],
                    fix=_AGAIN,
                )


def _layer(entry: Mapping[str, Any]) -> tuple[Bounds, tuple[float, ...] | None]:
    if set(entry) != {"input", "output", "divisor"}:
        raise ValueError(f"a layer with {sorted(entry)}")
    divisor = None
    if entry["divisor"] is not None:
        divisor = tuple(_number(value) for value in entry["divisor"])
        if not all(value > 0 for value in divisor):
            raise ValueError("a divisor that is not positive")
    return Bounds(_span(entry["input"]), _span(entry["output"])), divisor


def _span(values: Any) -> tuple[float, float]:
    low, high = (_number(value) for value in values)
    if not low <= 0 <= high:
        raise ValueError(f"a range without zero: {low:g} to {high:g}")
    return low, high


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise TypeError(f"{value!r} where a number belongs")
    return float(value)
