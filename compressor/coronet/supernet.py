"""A generator while its channels are searched: hypernetwork, other parameters, and what shrinks them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from compressor.budget import Budget
from compressor.coronet.hypernet import HyperNetwork
from compressor.coronet.importance import sensitivity, starting_latent
from compressor.coronet.landing import land
from compressor.coronet.latency import AIM, Meter
from compressor.coronet.materialise import shrink_spec, shrink_state, silence
from compressor.coronet.proximal import Proximal
from compressor.coronet.targets import cost_models, everything, joint_cost
from compressor.coronet.timed import Timed
from compressor.errors import UsageError
from compressor.generators import Generator
from compressor.graph import trace
from compressor.launch import world
from compressor.options import PruneOptions
from compressor.training import ranks
from compressor.training.engine import Engine, Forward
from compressor.training.loop import train_mode
from compressor.training.norms import share_statistics


class Supernet:
    """The state of one generator's search; has state_dict and load_state_dict, as `Loop` wants.

    Attributes:
        generator: what is pruned, as it came.
        original: what the budget's shares refer to: the same, or what it was itself pruned from.
        graph, cost, whole, target: the channel classes, their cost, the original's cost and the budget's.
        student: the network whose convolutions' weights are replaced by the hypernetwork's; biases,
            norms and the rest of its parameters are trained as they are.
        hyper: the hypernetwork.
        keep: (classes,) bool: the channels that stay, once landed; None before.
        landed_at: the step after which it landed; 0 before.

    Raises:
        UsageError: the budget cannot be reached, or is already met.
        PocketganError: the network cannot be traced.
    """

    def __init__(
        self,
        generator: Generator,
        budget: Budget,
        options: PruneOptions,
        *,
        seed: int,
        device: torch.device,
        original: Generator | None = None,
        meter: Meter | None = None,
    ):
        self.generator, self.budget, self.options, self.seed = generator, budget, options, seed
        self.original = original or generator
        self.graph = trace(generator.module, generator.spec.image.input_shape)
        models = cost_models(generator, self.graph, budget, meter)
        wholes = {metric: model(everything(self.graph)) for metric, model in models.items()}
        if original is not None:
            traced = trace(original.module, original.spec.image.input_shape)
            wholes = {
                metric: model(everything(traced))
                for metric, model in cost_models(original, traced, budget, meter).items()
            }
        aimed = budget.settled(wholes, AIM)
        self.cost, self.target = joint_cost(self.graph, generator.module, aimed, models)
        self.timed = Timed.of(self, meter, models, wholes)
        if self.timed is not None and world() > 1:
            raise UsageError(
                "a budget of latency is for one process: what several measure differs",
                got=f"{world()} processes",
            )
        self.whole = self.cost.value(wholes)
        self.keep: np.ndarray | None = None
        self.landed_at = 0
        self.student = train_mode(share_statistics(copy.deepcopy(generator.module).to(device)))
        self.forward = Engine(options, device).forward(self.student, self.weights)
        self.hyper = self._hypernetwork(np.ones(self.graph.classes)).to(device)
        self.proximal = Proximal(self.graph, self.cost, self.target, options)

    def start_warm(self, module: nn.Module, batch: Callable[[int], torch.Tensor]) -> None:
        """Give the latent entries of a trained generator their first values, by what matters.

        Args:
            module: the original, on the device.
            batch: input pictures by number.
        """
        importance = sensitivity(module, self.graph, batch, seed=self.seed)
        latent = starting_latent(importance, self.cost.marginal(), self.graph.prunable)
        self.hyper.load_state_dict(self._hypernetwork(latent).state_dict())

    def start_plain(self, seed: int) -> None:
        """Make the network's own weights, whatever they are, with latent entries in a random order.

        As many entries as in `start_warm` at every height of [0.5, 1.5]; they are divided out of the rest.
        The published start gives kernels products of two N(0, 1) entries as scale, the larger the surer
        they stay, and Adam's steps of one size then change them the slower.
        """
        latent = np.ones(self.graph.classes)
        heights = np.linspace(0.5, 1.5, int(self.graph.prunable.sum()))
        latent[self.graph.prunable] = np.random.default_rng(seed).permutation(heights)
        self.hyper.load_state_dict(self._hypernetwork(latent).state_dict())

    def ready(self) -> Forward:
        """The network with the weights of now: (N, C, H, W) -> (N, C, H, W), for any number of uses."""
        return self.forward.renew()

    def weights(self) -> dict[str, torch.Tensor]:
        """Every convolution's weight; once landed, removed channels are at zero."""
        made = self.hyper.weights()
        return made if self.keep is None else silence(made, self.graph, self.keep)

    def parameters(self) -> list[nn.Parameter]:
        """What is trained, but for the latent entries: hypernetwork, biases, norms."""
        made = {f"{name}.weight" for name in self.hyper.convolutions}
        plain = [p for name, p in self.student.named_parameters() if name not in made]
        return [*self.hyper.parts.parameters(), *plain]

    def scores(self) -> np.ndarray:
        """(classes,) how much each channel class should be kept."""
        return self.hyper.latent.detach().abs().cpu().numpy().astype(np.float64)

    def shrink(self, step: int) -> float:
        """The proximal step, none once landed; what is alive as a share of the whole cost."""
        if self.keep is not None:
            return self.cost(self.keep) / self.whole
        return self.proximal.step(self.hyper.latent, step) * self.proximal.whole / self.whole

    def distance(self) -> float:
        """How far a uniform shrinkage must go now until all has gone that a landing would remove."""
        scores = self.scores()
        return float(scores[~self._land(scores)].max())

    def land(self, step: int) -> None:
        """Choose the channels that stay, exactly on the budget; from now on the choice is frozen."""
        keep = self.choose() if self.timed is None else self.timed.land(self)
        ranks.agree("the channels that stay", keep)
        self.keep, self.landed_at = keep, step

    def choose(self) -> np.ndarray:
        """(classes,) bool: the channels that a landing would keep now, as the costs are known."""
        return self._land(self.scores())

    def settle(self) -> None:
        """Before the search: measure what a landing now would give, so that the search aims right."""
        if self.timed is not None:
            self.timed.land(self)

    @torch.no_grad()
    def materialise(self, keep: np.ndarray | None = None) -> Generator:
        """The small generator with plain weights, after `land` or of another choice of channels; the
        hypernetwork is evaluated a last time."""
        keep = self.keep if keep is None else keep
        assert keep is not None
        spec = shrink_spec(self.generator.spec, self.graph, keep)
        state = {**self.student.state_dict(), **self.hyper.weights()}
        module = spec.build()
        module.load_state_dict(shrink_state(state, self.student, self.graph, keep))
        return replace(self.generator, spec=spec, module=module, ranges=None)

    def release(self) -> None:
        """Drop what only the search needs, which is most of the memory."""
        del self.hyper, self.student, self.proximal, self.forward

    def measured(self) -> dict[str, Any] | None:
        """What was measured of the landing, for prune.json; None without a budget of latency."""
        return None if self.timed is None else self.timed.report

    def landing(self) -> dict[str, Any]:
        """The choice of channels, to be saved."""
        kept = None if self.keep is None else torch.from_numpy(self.keep.copy())
        timed = {}
        if self.timed is not None:
            timed = {"timed": self.timed.state_dict(), "targets": list(self.cost.targets)}
        return {"keep": kept, "landed_at": self.landed_at, **timed}

    def load_landing(self, state: dict[str, Any]) -> None:
        """Take up a choice that `landing` gave."""
        self.keep = None if state["keep"] is None else state["keep"].numpy()
        self.landed_at = state["landed_at"]
        if self.timed is not None:
            self.timed.load_state_dict(state["timed"])
            self.cost = replace(self.cost, targets=tuple(state["targets"]))
            self.target = self.proximal.target = self.cost.targets[0]
            self.proximal.cost = self.cost

    def state_dict(self) -> dict[str, Any]:
        return {**{name: part.state_dict() for name, part in self._parts()}, "landing": self.landing()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, part in self._parts():
            part.load_state_dict(state[name])
        self.load_landing(state["landing"])

    def _parts(self) -> Iterator[tuple[str, Any]]:
        yield from (("hyper", self.hyper), ("student", self.student), ("proximal", self.proximal))

    def _hypernetwork(self, latent: np.ndarray) -> HyperNetwork:
        latent = ranks.from_leader(latent)
        return HyperNetwork(self.generator.module, self.graph, latent, self.options.hypernet, self.seed)

    def _land(self, scores: np.ndarray) -> np.ndarray:
        return land(scores, self.graph, self.cost, self.target, self.options.round)
