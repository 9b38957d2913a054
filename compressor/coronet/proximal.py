"""The proximal step: shrinking latent entries towards zero after each optimiser step.

    z <- sign(z) max(|z| - d, 0)            (the proximal operator of d |z|_1; DHP, eq. 8)

As published ("l1"), d = lr * lambda for every entry alike. That also shrinks what will survive,
by as much, and the network must relearn its scale. "targeted" shrinks only entries that would not
survive a landing on the budget now, each at the pace that brings it to zero with the last step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from compressor.coronet.landing import land
from compressor.coronet.targets import JointCost
from compressor.graph import ChannelGraph
from compressor.options import PruneOptions

_CHECK_EVERY = 10  # steps between looks at which entries would survive
_FLOOR = 1e-3  # not zero: a channel that is exactly zero gives sqrt (contrast, std) an infinite gradient
_TAU = 5e-3  # an entry below this counts as gone (DHP's reference code)


class Proximal:
    """Applies proximal steps to the latent entries of one pruning run."""

    def __init__(self, graph: ChannelGraph, cost: JointCost, target: int, options: PruneOptions):
        self.graph, self.cost, self.target, self.options = graph, cost, target, options
        self.whole = cost(np.ones(graph.classes, bool))
        self.doomed = np.zeros(graph.classes, bool)
        self.pace: float | None = None  # lr * lambda; None: what a warm start needs

    def step(self, latent: torch.Tensor, step: int) -> float:
        """Shrink `latent` (classes,) in place.

        Returns:
            The cost of the entries above `_TAU`, as a share of the whole.
        """
        with torch.no_grad():
            magnitude = latent.abs()
            if self.options.proximal == "l1":
                prunable = torch.from_numpy(self.graph.prunable).to(latent.device)
                shrink = prunable * self._uniform_pace()
            else:
                if step % _CHECK_EVERY == 0:
                    scores = magnitude.cpu().numpy().astype(np.float64)
                    self.doomed = ~land(scores, self.graph, self.cost, self.target, self.options.round)
                left = max(1, self.options.steps - step)
                shrink = torch.from_numpy(self.doomed).to(latent.device) * magnitude / left
            latent.copy_(latent.sign() * (magnitude - shrink).clamp_min(_FLOOR))
            alive = (latent.abs() > _TAU).cpu().numpy() | ~self.graph.prunable
        return self.cost(alive) / self.whole

    def _uniform_pace(self) -> float:
        """lr * lambda of the published form: entries start in [0.5, 1.5], evenly spread, and about
        1 - sqrt(target) of them are to reach zero with the last step."""
        if self.pace is not None:
            return self.pace
        distance = 1.5 - (self.target / self.whole) ** 0.5
        return distance / self.options.steps

    def state_dict(self) -> dict[str, Any]:
        return {"doomed": torch.from_numpy(self.doomed.copy()), "pace": self.pace}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.doomed, self.pace = state["doomed"].numpy(), state["pace"]
