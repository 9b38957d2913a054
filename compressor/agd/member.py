"""One budget's part in a search: its architecture, controller and candidates; the weights belong to all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from compressor.agd.architecture import Architecture, Sampler
from compressor.agd.controller import Controller
from compressor.agd.joint import JointCost
from compressor.agd.landing import LABELS, WINDOW, Landing
from compressor.agd.options import SearchOptions
from compressor.agd.space import Choice, SearchSpace
from compressor.progress import Progress
from compressor.training import ranks

AIM = 0.99  # of the target: where the expected cost is held, the middle of the window to land in
_KEPT = 16  # candidates at most; older ones were found with less trained weights
_TRAVEL = 6.0  # how far a logit can go in a whole search, by Adam's steps of about the learning rate
_PARENTS = 8  # the best candidates, which descendants come from
_CHANGED = 3.0  # choices that a descendant makes anew, on average
_DRAWN_LABELS = 1024  # of `land`, where the network is drawn and need not be the most probable to a hair
_STAYS = 50.0  # log-probability that a parent's choice has before all others
_DRAWS = 4  # of a network that is not yet a candidate
_RATE = 3e-4  # the published learning rate, and the least


@dataclass(frozen=True)
class Limit:
    """A budget in numbers.

    Attributes:
        name: of the network that will meet it: "macs-1G".
        asked: what the user wrote.
        metric: of `Budget`.
        target: the most it may cost.
        cost: what networks cost by this metric, and by another that the budget names beside it; of a latency
            the prediction, and a target a little lower.
        also: the other metric and its target.
        whole: of a share of a latency, the original's.
    """

    name: str
    asked: str
    metric: str
    target: int
    cost: JointCost = field(repr=False, compare=False)
    also: Mapping[str, int] = field(default_factory=dict)
    whole: int | None = None

    @property
    def latency(self) -> int | None:
        """Nanoseconds that are allowed, if the budget asks for that."""
        return ({self.metric: self.target} | dict(self.also)).get("latency")


class Member:
    """Searches for the network of one budget; has state_dict and load_state_dict, as `Loop` wants.

    Args:
        limit: the budget.
        space: what is searched.
        options: how.
    """

    def __init__(self, limit: Limit, space: SearchSpace, options: SearchOptions):
        self.limit, self.cost, self.options = limit, limit.cost, options
        self.expected = self.cost.expected
        self.architecture = Architecture(
            [len(position.operators) for position in space.positions],
            [position.widths for position in space.positions],
            [position.tied for position in space.positions],
        )
        if options.start == "budget":
            self.architecture.start_at(self.expected, AIM * limit.target)
        rate = options.architecture_learning_rate or max(_RATE, _TRAVEL / options.steps)
        self.optimiser = torch.optim.Adam(self.architecture.parameters(), lr=rate, betas=(0.5, 0.999))
        self.controller = Controller()
        self.sampler = Sampler(options.operators, options.widths)
        self.candidates: list[dict[str, Any]] = []

    def learn(
        self, loss: Callable[[list[Any]], float], draw: np.random.Generator, temperature: float
    ) -> float:
        """One architecture step.

        Args:
            loss: the loss of a network, given as picks; has added its gradients to the architecture's.
            draw: of the network.
            temperature: of the Gumbel-softmax.

        Returns:
            The loss.
        """
        self.optimiser.zero_grad(set_to_none=True)
        value = loss(self.sampler.picks(self.architecture, draw, temperature, learn=True))
        parameters = list(self.architecture.parameters())
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        ranks.average(self.optimiser)
        ratio = self.expected(*self.architecture.probabilities()) / (AIM * self.limit.target)
        self.controller.update(float(ratio.detach()))
        costs = torch.autograd.grad(ratio.log(), parameters, allow_unused=True)
        slopes = [
            torch.zeros_like(p) if cost is None else cost for p, cost in zip(parameters, costs, strict=True)
        ]
        losses = [parameter.grad for parameter in parameters if parameter.grad is not None]
        for parameter, gradient in zip(parameters, self.controller.join(losses, slopes), strict=True):
            parameter.grad = gradient
        self.optimiser.step()
        return value

    def ratio(self) -> float:
        """Expected cost over target."""
        with torch.no_grad():
            return float(self.expected(*self.architecture.probabilities())) / self.limit.target

    def land(
        self,
        draw: np.random.Generator | None = None,
        parent: Mapping[str, Any] | None = None,
        fixed: Mapping[int, int] | None = None,
    ) -> Landing:
        """The most probable network that the budget allows.

        Args:
            draw: then one drawn among them.
            parent: a candidate; then about `_CHANGED` of its choices are drawn, and of the others as many
                stay as the budget lets.
            fixed: widths, by position, that it has if the budget lets.
        """
        logs = self.architecture.log_probabilities(draw)
        for position, width in (fixed or {}).items():
            logs[1][position][width] += _STAYS
        if parent is not None and draw is not None:
            for rows, chosen in zip(logs, (parent["operators"], parent["widths"]), strict=True):
                for row, index in zip(rows, chosen, strict=True):
                    row[index] += 0.0 if draw.random() < _CHANGED / (2 * len(rows)) else _STAYS
        return self.cost.land(*logs, kept=LABELS if draw is None else _DRAWN_LABELS)

    def propose(
        self,
        step: int,
        draw: np.random.Generator | None = None,
        parent: Mapping[str, Any] | None = None,
        fixed: Mapping[int, int] | None = None,
    ) -> dict[str, Any] | None:
        """Land, and make a candidate of the result unless it is one; it, or None."""
        landing = self.land(draw, parent, fixed)
        operators, widths = list(landing.operators), list(landing.widths)
        for earlier in self.candidates:
            if (earlier["operators"], earlier["widths"]) == (operators, widths):
                return None
        found = {
            "step": step,
            "operators": operators,
            "widths": widths,
            "cost": landing.cost,
            "within": landing.within,
        }
        self.candidates.append(found)
        return found

    def validate(self, measure: Callable[[Choice], float], step: int) -> None:
        """A landing now becomes a candidate, with its loss; of many the oldest goes."""
        found = self.propose(step)
        if found is not None:
            found["loss"] = measure(choice_of(found))
        del self.candidates[:-_KEPT]

    def decide(self, measure: Callable[[Choice], float], step: int, seed: Sequence[int]) -> dict[str, Any]:
        """The best of all candidates, finalists and their descendants, measured with the weights of the end.

        Gradients through sampled networks are noisy, and in a short search they move probabilities little.
        To run a network is far cheaper than to train, so what they leave open is settled by trying: the best
        few candidates are changed here and there, again and again (evolution over a trained supernet: Guo et
        al., ECCV 2020, arXiv 1904.00420), every one within the budget.
        """
        self.propose(step)
        draw = np.random.default_rng(list(seed))
        for _ in range(self.options.finalists):
            self.propose(step, draw)
        total = len(self.candidates) + self.options.descendants
        with Progress("finalists", total) as progress:
            for done, candidate in enumerate(self.candidates, 1):
                candidate["loss"] = measure(choice_of(candidate))
                progress.update(done)
            for done in range(len(self.candidates), total):
                parents = sorted(self._allowed(), key=lambda candidate: float(candidate["loss"]))[:_PARENTS]
                child = self.propose(step, draw, parents[int(draw.integers(len(parents)))])
                if child is not None:
                    child["loss"] = measure(choice_of(child))
                progress.update(done + 1)
        return min(self._allowed(), key=lambda candidate: float(candidate["loss"]))

    def contenders(
        self, count: int, measure: Callable[[Choice], float], step: int, seed: Sequence[int]
    ) -> list[dict[str, Any]]:
        """Candidates for the trials: a quarter the best with the supernet's weights, the others drawn.

        A width that many positions share decides more than all else, and by mere number nearly all networks
        of a budget are deep and as narrow as can be. So the draws go through the shared widths in turn.
        Fewer than `count` where the budget allows no more, or `_DRAWS` draws for each found none.
        """
        known = sorted(self._allowed(), key=lambda candidate: float(candidate["loss"]))
        found, others = known[: -(-count // 4)], known[-(-count // 4) :]
        shared = sorted({owner for owner in self.architecture.tied if owner is not None})
        draw = np.random.default_rng([*seed, count])
        for turn in range(_DRAWS * (count - len(found))):
            if len(found) == count:
                break
            fixed = {owner: turn % len(self.architecture.channels[owner]) for owner in shared}
            candidate = self.propose(step, draw, fixed=fixed)
            if candidate is None:
                continue
            if candidate["within"] == found[0]["within"]:
                candidate["loss"] = measure(choice_of(candidate))
                found.append(candidate)
            else:
                self.candidates.remove(candidate)
        return [*found, *others[: count - len(found)]]

    def _allowed(self) -> list[dict[str, Any]]:
        """The candidates within the budget's window; where there are none, the nearest to it."""
        nearest = max(candidate["cost"] for candidate in self.candidates)
        within = [candidate for candidate in self.candidates if candidate["within"]]
        return within or [candidate for candidate in self.candidates if candidate["cost"] == nearest]

    def state_dict(self) -> dict[str, Any]:
        return {
            "architecture": self.architecture.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "controller": self.controller.state_dict(),
            "candidates": self.candidates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.architecture.load_state_dict(state["architecture"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.controller.load_state_dict(state["controller"])
        self.candidates = [dict(candidate) for candidate in state["candidates"]]


def choice_of(candidate: dict[str, Any]) -> Choice:
    """A candidate as the supernet takes it."""
    return Choice(tuple(candidate["operators"]), tuple(candidate["widths"]))


def why_outside(limit: Limit, nearest: float, timed: Mapping[str, Any] | None = None) -> str:
    """Why a budget is left unused by more than 2 %, or was not met."""
    if timed is None:
        beside = "".join(f", and at most {target:,} {metric}" for metric, target in limit.also.items())
        return (
            f"no network of this space costs between {WINDOW:.0%} of {limit.target:,} {limit.metric} and all "
            f"of it{beside}; the nearest under it is {nearest:,}"
        )
    tries, target = len(timed["attempts"]), timed["target"] / 1e6
    nearest_one = f"the nearest took {timed['measured'] / 1e6:.3f} ms"
    if not timed["met"]:
        return f"none of {tries} networks measured took at most {target:.3f} ms; {nearest_one}"
    return (
        f"none of {tries} networks measured took between {WINDOW:.0%} of {target:.3f} ms and all of "
        f"it; {nearest_one}, with a 95 % interval up to {timed['high'] / 1e6:.3f} ms"
    )
