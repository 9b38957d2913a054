"""Trials: the last candidates are trained on their own for a while, and the better half goes on.

What networks are worth with a supernet's weights tells little of what they become by training (see
benchmarks/results/agd_quality.md). So they are tried: each is trained from fresh weights, half of them twice
as long again, and so on (successive halving: Jamieson and Talwalkar, AISTATS 2016, arXiv 1502.07943). Every
round takes about as many steps as the one before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from compressor.agd.member import Member, choice_of
from compressor.agd.space import Choice
from compressor.agd.supernet import generator_of, spec_of
from compressor.agd.training import CLIP, Search
from compressor.data.images import to_pixels
from compressor.generators import Generator
from compressor.metrics.upscaling import psnr_y
from compressor.training import ranks
from compressor.training.loop import Loop, cosine, set_learning_rate

_EQUAL = 200.0  # dB that pictures without any difference count as


def rounds_of(contenders: int, steps: int) -> list[tuple[int, int]]:
    """(networks, steps of each) of every round: half as many for twice as long, until there is a winner.

    >>> rounds_of(8, 100)
    [(8, 100), (4, 200), (2, 400)]
    """
    rounds = []
    while contenders > 1:
        rounds.append((contenders, steps))
        contenders, steps = math.ceil(contenders / 2), 2 * steps
    return rounds


def settle(
    run: Search,
    member: Member,
    contenders: Sequence[dict[str, Any]],
    checkpoint: Path,
    identity: Mapping[str, Any],
    log: Path | None,
) -> tuple[dict[str, Any], Generator]:
    """Train the contenders and take the winner.

    Args:
        run: whose pictures, loss and settings they are trained with.
        member: of the budget.
        contenders: candidates of it; each gets "trial": its distance to the teacher at the end of every round
            it was in, on the pictures that the search held out and those that taught its architecture; null:
            it diverged.
        checkpoint: where the trials go on after a stop; removed by the caller once the result is written.
        identity: of the search.
        log: JSON-lines file for figures, or None.

    Returns:
        The winner, and its network with the weights of the trial.
    """
    trials = Trials(run, [choice_of(contender) for contender in contenders])
    stage = f"trials {member.limit.name}" if len(run.members) > 1 else "trials"
    whole = {**identity, "contenders": [choice.as_json() for choice in trials.choices]}
    loop = Loop(stage, trials.steps, checkpoint, {"trials": trials}, whole, log)
    loop.resume()
    for step in loop:
        loop.report(**trials.step(step))
    for contender, losses in zip(contenders, trials.losses, strict=True):
        contender["trial"] = [loss if math.isfinite(loss) else None for loss in losses]
    (winner,) = trials.standing
    return contenders[winner], trials.generator(winner)


class Trials:
    """Trains networks in rounds, one after another; has state_dict and load_state_dict, as `Loop` wants.

    Attributes:
        steps: of all together.
        standing: the networks of the present round, as indices; in the end the winner alone.
        losses: of every network, one for each round that it has ended; inf: it diverged.
    """

    def __init__(self, run: Search, choices: Sequence[Choice]):
        self.run, self.choices = run, list(choices)
        self.rounds = rounds_of(len(choices), run.options.trial_steps)
        self.steps = sum(networks * steps for networks, steps in self.rounds)
        self.standing = list(range(len(choices)))
        self.losses: list[list[float]] = [[] for _ in choices]
        self._weights: dict[int, dict[str, torch.Tensor]] = {}
        self._who: int | None = None  # whose turn it is, and its network
        self._network: nn.Module | None = None
        self._optimiser: torch.optim.Optimizer | None = None

    def step(self, step: int) -> dict[str, float]:
        """One step of one network; figures worth watching."""
        number, slot, done = self._turn(step)
        _, steps = self.rounds[number]
        who = self.standing[slot]
        if done == 0:
            self._begin(who)
        assert self._network is not None and self._optimiser is not None
        lesson = sum(length for _, length in self.rounds[:number]) + done  # the same for all of a round
        loss = self._train(lesson, cosine(done, steps, self.run.options.learning_rate))
        if done == steps - 1:
            self.losses[who].append(self._judge())
            self._weights[who] = _copy(self._network.state_dict())
            if slot == len(self.standing) - 1:
                self._halve()
        figures = {"round": float(number + 1)}
        return {"loss": loss, **figures} if math.isfinite(loss) else figures  # one that diverged stops none

    def generator(self, who: int) -> Generator:
        """A network with the weights that its trial gave it."""
        return generator_of(spec_of(self.run.space, self.choices[who]), self._weights[who])

    def state_dict(self) -> dict[str, Any]:
        return {
            "standing": self.standing,
            "losses": self.losses,
            "weights": self._weights,
            "network": None if self._network is None else self._network.state_dict(),
            "optimiser": None if self._optimiser is None else self._optimiser.state_dict(),
            "turn": self._who,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.standing, self.losses = list(state["standing"]), [list(losses) for losses in state["losses"]]
        self._weights = dict(state["weights"])
        if state["turn"] is not None:
            self._begin(state["turn"])
            assert self._network is not None and self._optimiser is not None
            self._network.load_state_dict(state["network"])
            self._optimiser.load_state_dict(state["optimiser"])

    def _turn(self, step: int) -> tuple[int, int, int]:
        """Round, place in it and the network's own step."""
        for number, (networks, steps) in enumerate(self.rounds):
            if step < networks * steps:
                return number, *divmod(step, steps)
            step -= networks * steps
        raise AssertionError("there are no further steps")

    def _begin(self, who: int) -> None:
        """Take up a network: fresh, or as its last round left it."""
        run, self._who = self.run, who
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(run.seed)
            network = spec_of(run.space, self.choices[who]).build()
        if who in self._weights:
            network.load_state_dict(self._weights[who])
        self._network = run.engine.arrange(network.to(run.device))
        self._optimiser = torch.optim.Adam(self._network.parameters(), lr=run.options.learning_rate)

    def _train(self, lesson: int, rate: float) -> float:
        """One step of the present network; its loss. One that has diverged is left as it is."""
        assert self._network is not None and self._optimiser is not None
        self._optimiser.zero_grad(set_to_none=True)
        total = 0.0
        for inputs, wanted in self.run.engine.parts(*self.run.pictures.pair(lesson)):
            loss = self._distance(inputs, wanted) / self.run.options.accumulate
            loss.backward()
            total += loss.item()
        total = ranks.mean({"loss": total}, self.run.device)["loss"]
        if math.isfinite(total):
            ranks.average(self._optimiser)
            torch.nn.utils.clip_grad_norm_(self._network.parameters(), CLIP)
            set_learning_rate(self._optimiser, rate)
            self._optimiser.step()
        return total

    @torch.no_grad()
    def _judge(self) -> float:
        """How far the present network is from the teacher, on pictures that taught no weights.

        The training loss; but of colour pictures that were enlarged the root mean square difference of luma,
        of 1, each crop counting by its dB: that is what upscalers are judged by, and of two networks the one
        with the lower loss is not always the one with the better luma.
        """
        run = self.run
        count = -(-run.options.validation // run.options.batch)
        pairs = [pictures.pair(index) for pictures in (run.others, run.held_out) for index in range(count)]
        if run.space.image.scale > 1 and run.space.image.channels[1] == 3:
            loss = 10 ** (-float(np.mean([self._luma_psnr(*pair) for pair in pairs])) / 20)
        else:
            loss = float(np.mean([float(self._distance(*map(self._placed, pair))) for pair in pairs]))
        return loss if math.isfinite(loss) else math.inf

    def _luma_psnr(self, inputs: torch.Tensor, wanted: torch.Tensor) -> float:
        """Mean dB of a batch."""
        assert self._network is not None
        run = self.run
        with run.engine.autocast():
            made = self._network(self._placed(inputs)).float().cpu()
        if not torch.isfinite(made).all():
            return -math.inf
        inner, span = run.pictures.inner, run.space.image.output_range
        pairs = zip(inner(made).split(1), inner(wanted).split(1), strict=True)
        found = [psnr_y(to_pixels(ours, span), to_pixels(theirs, span), border=0) for ours, theirs in pairs]
        return float(np.mean([min(value, _EQUAL) for value in found]))

    def _placed(self, part: torch.Tensor) -> torch.Tensor:
        return part.to(self.run.device)

    def _distance(self, inputs: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        assert self._network is not None
        with self.run.engine.autocast():
            made = self._network(inputs)
        inner = self.run.pictures.inner
        distance: torch.Tensor = self.run.distance(inner(made.float()), inner(wanted))
        return distance

    def _halve(self) -> None:
        """The better half stays, in the order of its losses; with the weights of the others gone."""
        self.standing.sort(key=lambda who: self.losses[who][-1])
        del self.standing[math.ceil(len(self.standing) / 2) :]
        self._weights = {who: self._weights[who] for who in self.standing}


def _copy(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.detach().cpu().clone() for name, value in state.items()}
