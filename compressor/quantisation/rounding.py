"""INT8's grids: how both runtimes round activations and weights, and how training looks through it.

Activations lie on 256 even levels of one scale a tensor, one of which is zero (uint8 in onnxruntime, int8
in LiteRT: the same levels); weights on 255 levels of one scale an output channel, symmetric about zero.
"""

from __future__ import annotations

from typing import Any

import torch

_LEVELS = 255
_LEAST = 1e-12  # of a scale
_WEIGHT_LEVELS = 127  # on either side of zero


def rounded(values: torch.Tensor, bounds: tuple[float, float]) -> torch.Tensor:
    """Values on 256 even levels over bounds that hold zero, one of which is zero."""
    low, high = bounds
    scale = max((high - low) / _LEVELS, _LEAST)
    zero = round(-low / scale)
    return (torch.round(values / scale).add_(zero).clamp_(0, _LEVELS).sub_(zero)).mul_(scale)


def rounded_weight(weight: torch.Tensor) -> torch.Tensor:
    """A convolution's weight (K, C, kh, kw) on 255 levels over each output channel's largest magnitude."""
    reach = weight.abs().amax((1, 2, 3), keepdim=True).clamp(min=_LEAST * _WEIGHT_LEVELS)
    scales = reach / _WEIGHT_LEVELS
    return torch.round(weight / scales) * scales


def fake_quantised_weight(weight: torch.Tensor) -> torch.Tensor:
    """`rounded_weight`, with the gradient passed straight through (Bengio et al. 2013)."""
    return weight + (rounded_weight(weight) - weight).detach()


def fake_quantised(
    values: torch.Tensor, low: torch.Tensor, high: torch.Tensor, divisor: torch.Tensor | None = None
) -> torch.Tensor:
    """`rounded` over learned bounds, with gradients for values and bounds.

    Values within the bounds get the gradient as it is, those beyond none. With v = x / s, s the scale:
    within the bounds ds passes round(v) - v (LSQ, Esser et al. 2020, eq. 3), beyond them the bound
    itself moves the value (LSQ+, Bhalgat et al. 2020).

    Args:
        values: (N, C, H, W).
        low, high: scalars, low <= 0 <= high.
        divisor: (1, C, 1, 1), positive: channel c is rounded over (low, high) * divisor[c]. No gradient.
    """
    made: torch.Tensor = _Rounding.apply(values, low, high, divisor)
    return made


def _on_grid(
    values: torch.Tensor, low: torch.Tensor, high: torch.Tensor, divisor: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(values in units of the scale, scale, lowest level, highest level), the levels counted from zero."""
    step = ((high - low) / _LEVELS).clamp(min=_LEAST)
    zero = torch.round(-low / step)
    scale = step if divisor is None else step * divisor
    return values / scale, scale, -zero, _LEVELS - zero


class _Rounding(torch.autograd.Function):
    """See `fake_quantised`; keeps its input alone and rounds again on the way back, to save memory."""

    @staticmethod
    def forward(
        context: Any,
        values: torch.Tensor,
        low: torch.Tensor,
        high: torch.Tensor,
        divisor: torch.Tensor | None,
    ) -> torch.Tensor:
        context.save_for_backward(values, low, high, divisor)
        units, scale, bottom, top = _on_grid(values, low, high, divisor)
        return torch.clamp(torch.round(units), bottom, top) * scale

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        values, low, high, divisor = context.saved_tensors
        gradient = gradients[0]
        units, _, bottom, top = _on_grid(values, low, high, divisor)
        level = torch.round(units)
        below, above = level < bottom, level > top
        inside = ~(below | above)
        own = gradient if divisor is None else gradient * divisor
        spread = torch.where(inside, own * (level - units), 0).sum() / _LEVELS
        return (
            gradient * inside,
            torch.where(below, own, 0).sum() - spread,
            torch.where(above, own, 0).sum() + spread,
            None,
        )
