"""Several budgets at once: what a choice of channels costs, measured by the budget it strains most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import nn

from compressor.budget import Budget
from compressor.coronet.landing import cost_model, land
from compressor.coronet.latency import Meter, latency_model
from compressor.coronet.memory import memory_model
from compressor.errors import UsageError
from compressor.generators import Generator
from compressor.graph import ChannelGraph


class ChannelCost(Protocol):
    """What a choice of channels costs by one metric; `compressor.coronet.landing.CostModel` is one."""

    def __call__(self, keep: np.ndarray) -> int:
        """Cost of keeping the classes where `keep` (classes,) bool is true."""

    def marginal(self) -> np.ndarray:
        """(classes,) about what removing one class alone from the full network saves."""


@dataclass(frozen=True)
class JointCost:
    """Costs under several budgets, in units of the first.

    A cost c_i under a target t_i counts as ceil(c_i t_1 / t_i): it is within t_1 exactly when every cost is
    within its own target.

    Attributes:
        models: the cost under each budget.
        metrics, targets: their names, and what each may be.
    """

    models: tuple[ChannelCost, ...]
    metrics: tuple[str, ...]
    targets: tuple[int, ...]

    def __call__(self, keep: np.ndarray) -> int:
        """Cost of keeping the classes where `keep` (classes,) bool is true."""
        return self.value({name: model(keep) for name, model in zip(self.metrics, self.models, strict=True)})

    def value(self, costs: Mapping[str, int]) -> int:
        """The same from the costs by each metric, however they were found."""
        limits = zip(self.metrics, self.targets, strict=True)
        return max(-(-costs[metric] * self.targets[0] // target) for metric, target in limits)

    def marginal(self) -> np.ndarray:
        """(classes,) what removing one class alone saves, over all budgets."""
        first = self.targets[0]
        return np.sum([model.marginal() * first / target for model, target in self._each()], axis=0)

    def _each(self) -> list[tuple[ChannelCost, int]]:
        return list(zip(self.models, self.targets, strict=True))


def everything(graph: ChannelGraph) -> np.ndarray:
    """(classes,) bool: all channels kept."""
    return np.ones(graph.classes, bool)


def cost_models(
    generator: Generator, graph: ChannelGraph, budget: Budget, meter: Meter | None = None
) -> dict[str, ChannelCost]:
    """What a generator's channels cost, by each metric of a budget.

    Raises:
        UsageError: a budget of latency without a meter.
    """
    made: dict[str, ChannelCost] = {}
    for part in budget.parts():
        if part.metric == "memory":
            shape = generator.spec.image.input_shape
            made[part.metric] = memory_model(graph, generator.module, shape)
        elif part.metric == "latency":
            if meter is None:
                raise UsageError("a budget of latency needs something to measure with", fix="pocketgan prune")
            tables = meter.tables(generator, graph)
            made[part.metric] = latency_model(graph, tables, meter.whole(generator))
        else:
            made[part.metric] = cost_model(graph, generator.module, part.metric)
    return made


def joint_cost(
    graph: ChannelGraph, module: nn.Module, budget: Budget, models: Mapping[str, ChannelCost] | None = None
) -> tuple[JointCost, int]:
    """The cost of a network's channels under a budget with all its parts, and the target of the first.

    Args:
        graph, module: the network.
        budget: what it may cost.
        models: the cost by each metric of the budget, where it is more than a count of weights.

    Raises:
        UsageError: one of them cannot be reached, or the first is already met.
    """
    chosen, targets = [], []
    for part in budget.parts():
        model = models[part.metric] if models else cost_model(graph, module, part.metric)
        whole = model(everything(graph))
        target = part.target(whole) if part.metric == budget.metric else part.limit(whole)
        if target < whole:
            land(np.ones(graph.classes), graph, model, target)  # fails now if it cannot be reached
        chosen.append(model)
        targets.append(target)
    metrics = tuple(part.metric for part in budget.parts())
    return JointCost(tuple(chosen), metrics, tuple(targets)), targets[0]
