"""The steps of a search: the supernet's weights and the architectures, each on its half of the pictures."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from compressor.agd.member import Limit, Member
from compressor.agd.options import SearchOptions
from compressor.agd.space import Choice, SearchSpace
from compressor.agd.supernet import Pick, Supernet
from compressor.agd.teachers import TaughtPictures, Teacher
from compressor.data.images import split_held_out
from compressor.training import ranks
from compressor.training.engine import Engine
from compressor.training.loop import cosine, set_learning_rate
from compressor.training.losses import Distance
from compressor.training.watch import Panels

CLIP = 5.0  # of the gradient's norm, as published
# What a random draw is for, beside the seed and the step.
_WEIGHTS, _ARCHITECTURE, _EXTREMES, FINALISTS = range(4)
_PICTURES, _OTHER_PICTURES, _HELD_OUT = 2_000_003, 3_000_017, 4_000_037


class Search:
    """One search: supernet, members, pictures and optimiser. A step depends on its number alone."""

    def __init__(
        self,
        space: SearchSpace,
        teacher: Teacher,
        images: Sequence[Path],
        limits: Sequence[Limit],
        options: SearchOptions,
        seed: int,
        device: torch.device,
    ):
        ranks.agree("the pictures' names", [path.name for path in images])
        self.space, self.options, self.seed, self.device = space, options, seed, device
        self.teacher = teacher
        self.engine = Engine(options, device)
        self.supernet = Supernet(space, seed).to(device)
        self.engine.arrange(self.supernet)
        self.members = [Member(limit, space, options) for limit in limits]
        training, held_out = split_held_out(images, share=0.1)
        halves = (training[::2], training[1::2]) if len(training) > 1 else (training, training)
        seeds = (seed + _PICTURES, seed + _OTHER_PICTURES, seed + _HELD_OUT)
        told: dict[str, Any] = {"crop": options.crop, "batch": options.batch, "truth": options.truth}
        self.pictures, self.others, self.held_out = (
            TaughtPictures(paths, teacher, space.image, seed=number, **told)
            for paths, number in zip((*halves, held_out), seeds, strict=True)
        )
        self.distance = Distance(space.image, options.perceptual, options.loss).to(device)
        self.optimiser = torch.optim.Adam(
            self.supernet.parameters(), lr=options.learning_rate, betas=(0.5, 0.999)
        )

    def parts(self) -> dict[str, Any]:
        """What to save."""
        members = {f"member{index}": member for index, member in enumerate(self.members)}
        return {"supernet": self.supernet, "optimiser": self.optimiser, **members}

    def step(self, step: int) -> dict[str, float]:
        """A step of pretraining, or of the search; figures worth watching."""
        options = self.options
        if step < options.pretrain:
            loss = self._train(
                step, self._sandwich(step), cosine(step, options.pretrain, options.learning_rate)
            )
            return ranks.mean({"loss": loss}, self.device)
        now = step - options.pretrain
        cooled = (options.temperature_end / options.temperature) ** (now / max(1, options.steps - 1))
        temperature = options.temperature * cooled
        figures: dict[str, float] = {}
        for index, member in enumerate(self.members):
            draw = self._draw(_ARCHITECTURE, step, index)
            with _frozen(self.supernet):
                loss = member.learn(partial(self._pass, self.others, step), draw, temperature)
            tail = f"_{member.limit.name}" if len(self.members) > 1 else ""
            figures[f"loss{tail}"] = loss
            figures[f"share{tail}"] = member.ratio()
            figures[f"multiplier{tail}"] = member.controller.strength
            figures[f"certainty{tail}"] = member.architecture.certainty()
            figures[f"entropy{tail}"] = member.architecture.entropy()
        figures["temperature"] = temperature
        rate = cosine(now, options.steps, options.learning_rate)
        figures["weights"] = self._train(step, self._drawn(step, temperature), rate)
        if (now + 1) % options.check_every == 0:
            for member in self.members:
                member.validate(self.measure, step + 1)
        return ranks.mean(figures, self.device)

    @torch.no_grad()
    def measure(self, choice: Choice) -> float:
        """The distance to the teacher on held-out crops, of a network with the weights of now."""
        picks = self.supernet.picks_of(choice)
        count = -(-self.options.validation // self.options.batch)
        losses = []
        for index in range(count):
            pair = [part.to(self.device) for part in self.held_out.pair(index)]
            losses.append(float(self._distance(picks, *pair)))
        return float(np.mean(losses))

    @torch.no_grad()
    def samples(self) -> dict[str, tuple[Panels, tuple[float, float]]]:
        """What the teacher makes of a held-out crop, and each budget's network if it were landed on now."""
        inputs, wanted = (part[:1] for part in self.held_out.pair(0))
        made: dict[str, tuple[Panels, tuple[float, float]]] = {}
        for member in self.members:
            landing = member.land()
            picks = self.supernet.picks_of(Choice(tuple(landing.operators), tuple(landing.widths)))
            with self.engine.autocast():
                student = self.supernet(inputs.to(self.device), picks)
            name = member.limit.name if len(self.members) > 1 else ""
            made[name] = ({"teacher": wanted, "student": student.float()}, self.space.image.output_range)
        return made

    def _draw(self, purpose: int, step: int, index: int = 0) -> np.random.Generator:
        return np.random.default_rng([self.seed, purpose, step, index])

    def _sandwich(self, step: int) -> list[list[Pick]]:
        """The widest, the narrowest, and random networks."""
        draw = self._draw(_WEIGHTS, step)
        randoms = [self._random(draw, None) for _ in range(self.options.randoms)]
        return [self._random(draw, -1), self._random(draw, 0), *randoms]

    def _drawn(self, step: int, temperature: float) -> list[list[Pick]]:
        """A network of each architecture, and of the widest and narrowest one (published: both)."""
        drawn = [
            member.sampler.picks(
                member.architecture, self._draw(_WEIGHTS, step, index), temperature, learn=False
            )
            for index, member in enumerate(self.members)
        ]
        ends = (-1, 0) if self.options.published else ((-1, 0)[step % 2],)
        draw = self._draw(_EXTREMES, step)
        member = self.members[step % len(self.members)]
        return [*drawn, *(self._random(draw, end, member) for end in ends)]

    def _random(self, draw: np.random.Generator, end: int | None, member: Member | None = None) -> list[Pick]:
        """Random operators (of a member's, if given), and the widest (-1), narrowest (0) or random widths."""
        chosen = Choice.random(self.space, draw)
        picks = list(self.supernet.picks_of(chosen))
        guide = member or self.members[0]
        if self.options.operators == "mixture" or member is not None:
            drawn = guide.sampler.picks(guide.architecture, draw, 1.0, learn=False)
            picks = [Pick(new.operators, old.width) for new, old in zip(drawn, picks, strict=True)]
        if end is None:
            return picks
        return [
            Pick(pick.operators, (len(position.widths) - 1 if end else 0, None))
            for pick, position in zip(picks, self.space.positions, strict=True)
        ]

    def _train(self, step: int, networks: Sequence[list[Pick]], rate: float) -> float:
        """One step of the weights, for several networks; the first one's loss."""
        self.optimiser.zero_grad(set_to_none=True)
        losses = [self._pass(self.pictures, step, picks) for picks in networks]
        ranks.average(self.optimiser)
        torch.nn.utils.clip_grad_norm_(self.supernet.parameters(), CLIP)
        set_learning_rate(self.optimiser, rate)
        self.optimiser.step()
        return losses[0]

    def _pass(self, pictures: TaughtPictures, step: int, picks: list[Pick]) -> float:
        """Add the gradients of one network's loss, micro-batch by micro-batch; the loss."""
        total = 0.0
        for inputs, wanted in self.engine.parts(*pictures.pair(step)):
            loss = self._distance(picks, inputs, wanted) / self.options.accumulate
            loss.backward(retain_graph=self.options.accumulate > 1)
            total += loss.item()
        return total

    def _distance(self, picks: list[Pick], inputs: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        with self.engine.autocast():
            made = self.supernet(inputs, [_placed(pick, self.device) for pick in picks])
        inner = self.pictures.inner
        distance: torch.Tensor = self.distance(inner(made.float()), inner(wanted))
        return distance


@contextlib.contextmanager
def _frozen(supernet: Supernet) -> Iterator[None]:
    """No gradients for the weights inside: an architecture step needs none."""
    supernet.requires_grad_(False)
    try:
        yield
    finally:
        supernet.requires_grad_(True)


def _placed(pick: Pick, device: torch.device) -> Pick:
    """A pick with its weights on the device; architectures stay on the CPU."""
    if device.type == "cpu":
        return pick

    def there(pair: tuple[int, torch.Tensor | None]) -> tuple[int, torch.Tensor | None]:
        return pair if pair[1] is None else (pair[0], pair[1].to(device, non_blocking=True))

    return Pick(tuple(map(there, pick.operators)), there(pick.width))
