"""The budget's controller: how strongly cost counts against loss, set anew at every step.

With h = log(expected cost / aim) the search is the problem  minimise loss  subject to  h = 0, and its
multiplier is found by dual ascent with a proportional term, as in the method of multipliers:

    integral  <-  clip(integral + gain * clip(h), LEAST, MOST)        (what a lasting excess needs)
    strength   =  clip(integral + damping * clip(h), LEAST, MOST)     (and what answers it at once)

Choices, and why:

- Both gradients are brought to unit length, each by its own running norm, before they are added. The
  multiplier is then a plain number (1: cost pulls as hard as loss does) whatever the loss's scale or kind,
  the metric's unit, or how little the loss depends on the architecture. So the linear domain is safe, and
  it can pass through 0, which a multiplier in the log domain cannot.
- h is the logarithm of the ratio: twice over and half under count alike.
- The proportional term is the damping: without it, integral and architecture swing about each other.
- The multiplier may be slightly negative. A budget left unused is quality given away, and the landing
  must be at most 2 % under it, so a network that has become too cheap is drawn up.
- Clipping h and the integral (anti-windup) keeps a long way to the budget from making an overshoot.

The published search adds a fixed 1e-17 times the cost, doubled or halved at validation: it does not act.
"""

from __future__ import annotations

import math
from typing import Any

import torch

LEAST, MOST = -2.0, 30.0  # of the multiplier
_FARTHEST = 0.5  # of h in one step: beyond, a step answers no harder
_WINDUP = 0.05  # of h that the integral sees in one step
_MEMORY = 0.95  # of the running norms


class Controller:
    """Joins the gradients of loss and cost so that the cost comes to its aim and stays there.

    Has state_dict and load_state_dict, as `compressor.training.loop.Loop` wants.

    Args:
        gain: of the integral, per step.
        damping: of the excess itself.
    """

    def __init__(self, gain: float = 0.1, damping: float = 8.0):
        self.gain, self.damping = gain, damping
        self.integral, self.strength = 0.0, 0.0
        self._norms: dict[str, float] = {}

    def update(self, ratio: float) -> float:
        """Take note of expected cost over aim; the multiplier of this step."""
        excess = max(-_FARTHEST, min(_FARTHEST, math.log(max(ratio, 1e-12))))
        lasting = max(-_WINDUP, min(_WINDUP, excess))
        self.integral = max(LEAST, min(MOST, self.integral + self.gain * lasting))
        self.strength = max(LEAST, min(MOST, self.integral + self.damping * excess))
        return self.strength

    def join(self, loss: list[torch.Tensor], cost: list[torch.Tensor]) -> list[torch.Tensor]:
        """The gradient to descend: loss + strength * cost, both at unit length.

        Args:
            loss, cost: gradients of either for the same parameters.
        """
        a, b = self._unit("loss", loss), self._unit("cost", cost)
        return [x * a + y * (b * self.strength) for x, y in zip(loss, cost, strict=True)]

    def _unit(self, name: str, gradients: list[torch.Tensor]) -> float:
        """The factor that brings gradients to about unit length: one over their running norm."""
        norm = math.sqrt(sum(float(gradient.double().square().sum()) for gradient in gradients))
        before = self._norms.get(name, norm)
        # A sudden peak counts at once, so that no single step is longer than unit length by much.
        self._norms[name] = max(_MEMORY * before + (1 - _MEMORY) * norm, 0.5 * norm)
        return 1.0 / self._norms[name] if self._norms[name] > 0 else 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"integral": self.integral, "strength": self.strength, "norms": dict(self._norms)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.integral, self.strength = state["integral"], state["strength"]
        self._norms = dict(state["norms"])
