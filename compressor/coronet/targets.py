"""Several budgets at once: what a choice of channels costs, measured by the budget it strains most."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import nn

from compressor.budget import Budget
from compressor.coronet.landing import CostModel, cost_model, land
from compressor.graph import ChannelGraph


@dataclass(frozen=True)
class JointCost:
    """Costs under several budgets, in units of the first.

    A cost c_i under a target t_i counts as ceil(c_i t_1 / t_i): it is within t_1 exactly when every cost is
    within its own target.

    Attributes:
        models: the cost under each budget.
        targets: what each may be.
    """

    models: tuple[CostModel, ...]
    targets: tuple[int, ...]

    def __call__(self, keep: np.ndarray) -> int:
        """Cost of keeping the classes where `keep` (classes,) bool is true."""
        first = self.targets[0]
        return max(-(-model(keep) * first // target) for model, target in self._each())

    def marginal(self) -> np.ndarray:
        """(classes,) what removing one class alone saves, over all budgets."""
        first = self.targets[0]
        return np.sum([model.marginal() * first / target for model, target in self._each()], axis=0)

    def _each(self) -> list[tuple[CostModel, int]]:
        return list(zip(self.models, self.targets, strict=True))


def joint_cost(graph: ChannelGraph, module: nn.Module, budget: Budget) -> tuple[JointCost, int]:
    """The cost of a network's channels under a budget with all its parts, and the target of the first.

    Raises:
        UsageError: one of them cannot be reached, or the first is already met.
    """
    everything = np.ones(graph.classes, bool)
    models, targets = [], []
    for part in budget.parts():
        model = cost_model(graph, module, part.metric)
        whole = model(everything)
        target = part.target(whole) if part.metric == budget.metric else part.limit(whole)
        if target < whole:
            land(np.ones(graph.classes), graph, model, target)  # fails now if it cannot be reached
        models.append(model)
        targets.append(target)
    return JointCost(tuple(models), tuple(targets)), targets[0]
