"""How a student is stepped: optimiser, learning rate over the steps, gradient clipping, averaged weights."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from compressor.training.loop import cosine

_RISE = 0.3  # share of a one-cycle's steps until its peak (Smith & Topin 2018, as torch has it)
_FIRST, _LAST = 1 / 25, 1e-4 / 25  # its first and last learning rate over the peak
_MOMENTA = (0.85, 0.95)  # its momentum at the peak, and at both ends
_CONSTANT = 0.25  # agd-st: epoch 100 of 400, from which the rate falls
_MILESTONES = (0.25, 0.5, 0.75)  # agd-sr: where the rate is halved
_CLIP = 5.0  # AGD's largest gradient norm
_PEAKS = {"cosine": 5e-4, "one-cycle": 2e-3, "agd-st": 0.1, "agd-sr-a": 2e-4, "agd-sr-b": 1e-4}


@dataclass(frozen=True)
class Schedule:
    """One way to train, scaled to a number of steps.

    - cosine: Adam; 5 % of the steps up, then half a cosine to zero.
    - one-cycle: Adam; 30 % of the steps up from 1/25, then down to nearly zero along cosines, the first
      momentum the other way (0.95, 0.85, 0.95).
    - agd-st: SGD, momentum 0.5, weight decay 5e-4; constant for a quarter, then linear to zero.
    - agd-sr-a, agd-sr-b: Adam, halved at a quarter, the half and three quarters of the steps.

    The agd ones (AGD's published training of the derived network) clip gradients to a norm of 5.

    Args:
        name: one of `compressor.options.SCHEDULES`.
        steps: how many there are.
        learning_rate: the highest; the schedule's own if None.
    """

    name: str
    steps: int
    learning_rate: float | None = None

    @property
    def peak(self) -> float:
        """The highest learning rate."""
        return self.learning_rate or _PEAKS[self.name]

    def optimiser(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser, to be set by `set` before each step."""
        if self.name == "agd-st":
            return torch.optim.SGD(parameters, self.peak, momentum=0.5, weight_decay=5e-4)
        return torch.optim.Adam(parameters, self.peak, betas=(0.9, 0.999))

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        done = step / self.steps
        if self.name == "one-cycle":
            return self.peak * self._cycle(step, _FIRST, 1.0, _LAST)
        if self.name == "agd-st":
            return self.peak * min(1.0, (1 - done) / (1 - _CONSTANT))
        if self.name.startswith("agd-sr"):
            return float(self.peak * 0.5 ** sum(done >= milestone for milestone in _MILESTONES))
        return cosine(step, self.steps, self.peak)

    def set(self, optimiser: torch.optim.Optimizer, step: int) -> None:
        """Prepare the optimiser for a step: its rate, its momentum; clip the gradients it holds."""
        for group in optimiser.param_groups:
            group["lr"] = self.rate(step)
            if self.name == "one-cycle":
                low, high = _MOMENTA
                group["betas"] = (self._cycle(step, high, low, high), group["betas"][1])
        if self.name.startswith("agd"):
            held = [parameter for group in optimiser.param_groups for parameter in group["params"]]
            nn.utils.clip_grad_norm_(held, _CLIP)

    def _cycle(self, step: int, first: float, top: float, last: float) -> float:
        """From `first` to `top` at 30 % of the steps and on to `last` at the final one, along cosines."""
        turn = max(1.0, _RISE * self.steps - 1)
        if step <= turn:
            start, end, share = first, top, step / turn
        else:
            start, end, share = top, last, (step - turn) / max(1.0, self.steps - 1 - turn)
        return end + (start - end) * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


class Average:
    """The moving average of a module's parameters and buffers; has state_dict and load_state_dict.

    Early on less is kept, (1 + n) / (10 + n) after n steps, so that the start is soon forgotten; whole
    numbers, such as batch norm's count, are copied.

    Args:
        module: what is averaged; its names are kept.
        keep: the share of the average that a step keeps, in (0, 1).
    """

    def __init__(self, module: nn.Module, keep: float):
        self.keep, self.count = keep, 0
        self.values = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take in the weights as they are after a step."""
        keep = min(self.keep, (1 + self.count) / (10 + self.count))
        self.count += 1
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                self.values[name].lerp_(value, 1 - keep)
            else:
                self.values[name].copy_(value)

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "values": self.values}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]
        for name, value in state["values"].items():
            self.values[name].copy_(value)
