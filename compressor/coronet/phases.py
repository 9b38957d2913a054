"""Adversarial pruning in its two phases: search until every generator has landed, then train the small ones.

The phases know nothing of the task. A `Game` (Pix2Pix, CycleGAN) holds pictures, discriminators and
losses, and stays the same through both; the generators it is given change from supernets to small networks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from compressor.adversarial.initialise import initialise_hypernetwork
from compressor.adversarial.schedule import linear
from compressor.coronet.supernet import Supernet
from compressor.coronet.widths import Widths
from compressor.generators import Generator
from compressor.options import AdversarialOptions
from compressor.training import ranks, watch
from compressor.training.engine import Engine
from compressor.training.loop import Loop, train_mode
from compressor.training.norms import share_statistics

Forward = Callable[[torch.Tensor], torch.Tensor]


class Game(Protocol):
    """One adversarial task: what is shown to the generators, and what they are told about it."""

    @property
    def epoch(self) -> int:
        """Steps in an epoch."""

    def inputs(self, name: str, step: int) -> torch.Tensor:
        """Pictures that the generator of that name is given in a step."""

    def parts(self) -> dict[str, Any]:
        """What to save: discriminators, their optimiser, pools."""

    def update(
        self, generators: Mapping[str, Forward], optimiser: torch.optim.Optimizer, step: int, rate: float
    ) -> dict[str, float]:
        """One update of the generators and one of the discriminators; figures worth watching."""


class Small:
    """The materialised generators and their optimiser; has state_dict and load_state_dict, as `Loop` wants.

    Attributes:
        generators: by name, as the search left them; `modules` are what is trained.
        searched: steps until the last generator landed.
        trajectory: of the search.
    """

    def __init__(self, supernets: Mapping[str, Supernet], options: AdversarialOptions, device: torch.device):
        self.supernets, self.options, self.device = supernets, options, device
        self.searched = 0
        self.trajectory: list[dict[str, float]] = []

    def take(self, trajectory: list[dict[str, float]]) -> None:
        """Materialise the landed supernets, and drop their hypernetworks."""
        self.trajectory = trajectory
        self.searched = max(net.landed_at for net in self.supernets.values())
        self.generators = {name: net.materialise() for name, net in self.supernets.items()}
        engine = Engine(self.options, self.device)
        self.modules = {
            name: train_mode(engine.arrange(share_statistics(generator.module.to(self.device))))
            for name, generator in self.generators.items()
        }
        self.forwards = {
            name: engine.forward(module.requires_grad_(True)) for name, module in self.modules.items()
        }
        self.optimiser = _adam(
            [parameter for module in self.modules.values() for parameter in module.parameters()],
            [],
            self.options,
        )
        for net in self.supernets.values():
            net.release()

    def state_dict(self) -> dict[str, Any]:
        return {
            "kept": {name: net.landing() for name, net in self.supernets.items()},
            "modules": {name: module.state_dict() for name, module in self.modules.items()},
            "optimiser": self.optimiser.state_dict(),
            "trajectory": self.trajectory,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, net in self.supernets.items():
            net.load_landing(state["kept"][name])
        self.take(state["trajectory"])
        for name, module in self.modules.items():
            module.load_state_dict(state["modules"][name])
        self.optimiser.load_state_dict(state["optimiser"])

    def finished(self) -> dict[str, Generator]:
        """The generators with the weights of now, on the CPU, in eval mode."""
        for module in self.modules.values():
            module.cpu().eval()
        return self.generators


@dataclass(frozen=True)
class Played:
    """What both phases gave.

    Attributes:
        generators: the small ones, trained, on the CPU, in eval mode.
        steps: of search and training together.
        trajectory: figures over time.
        watch: widths and samples over time.
    """

    generators: dict[str, Generator]
    steps: int
    trajectory: list[dict[str, Any]]
    watch: watch.Watch
    loops: tuple[Loop, ...]

    def finish(self) -> None:
        """The result is written; the checkpoints are needed no more."""
        for loop in self.loops:
            loop.finish()


def play(
    game: Game,
    supernets: Mapping[str, Supernet],
    originals: Mapping[str, nn.Module],
    options: AdversarialOptions,
    output: Path,
    identity: Mapping[str, Any],
    log: Path | None,
    folders: Mapping[str, Path],
) -> Played:
    """Search, materialise, train on. Can be killed at any moment and called again.

    Args:
        game: the task.
        supernets: the generators to prune, by name.
        originals: the same, trained, on the device; empty to start from nothing.
        options: how.
        output: folder for the two checkpoints.
        identity: settings that must be equal for a checkpoint to be continued.
        log: JSON-lines file for figures.
        folders: where each generator's own files go.
    """
    device = next(iter(supernets.values())).hyper.latent.device
    small = Small(supernets, options, device)
    widths = {name: Widths(net) for name, net in supernets.items()}
    total = (options.epochs + options.epochs_decay) * game.epoch
    painter = _Painter(game, supernets, originals, small)
    seen = watch.Watch("prune", total, folders, options, painter, widths)
    parts = {"small": small, "watch": seen, **game.parts()}
    searching = _search_loop(game, supernets, options, output, identity, log)
    searching.parts = {**searching.parts, "watch": seen}
    training = Loop("train", total, output / "training.pt", parts, identity, log)
    if not training.resume():
        _search(game, supernets, originals, options, searching, seen)
        small.take(searching.trajectory)
        training.start = small.searched
        training.hold()
    begun = small.searched if options.after == "full" else 0
    searching.parts = {}  # frees the hypernetworks and their optimiser
    training.steps = total + begun
    for step in training:
        rate = _rate(step - begun, game, options)
        _set_rates(small.optimiser, rate)
        figures = ranks.mean(game.update(small.forwards, small.optimiser, step, rate), device)
        training.report(**figures)
        seen.look(step + 1, figures)
    seen.close()
    trajectory = [{"phase": "search", **point} for point in small.trajectory]
    trajectory += [{"phase": "train", **point} for point in training.trajectory]
    return Played(small.finished(), training.steps, trajectory, seen, (searching, training))


@dataclass(frozen=True)
class _Painter:
    """Paints the same picture again and again, by the generators of now."""

    game: Game
    supernets: Mapping[str, Supernet]
    originals: Mapping[str, nn.Module]
    small: Small

    def __call__(self) -> dict[str, tuple[watch.Panels, tuple[float, float]]]:
        return {name: self._panels(name, net) for name, net in self.supernets.items()}

    def _panels(self, name: str, net: Supernet) -> tuple[watch.Panels, tuple[float, float]]:
        given = self.game.inputs(name, 0)[:1].to(self.small.device)
        image = net.generator.spec.image
        (low, high), (least, most) = image.input_range, image.output_range
        panels = {"given": (given - low) / (high - low) * (most - least) + least}
        if name in self.originals:
            panels["original"] = self.originals[name](given)
        searching = hasattr(net, "student")
        with watch.at_rest(net.student if searching else self.small.modules[name]):
            panels["student"] = (net.ready() if searching else self.small.forwards[name])(given)
        return panels, image.output_range


def _search_loop(
    game: Game,
    supernets: Mapping[str, Supernet],
    options: AdversarialOptions,
    output: Path,
    identity: Mapping[str, Any],
    log: Path | None,
) -> Loop:
    optimiser = _adam(
        [parameter for net in supernets.values() for parameter in net.parameters()],
        [net.hyper.latent for net in supernets.values()],
        options,
    )
    parts = {**supernets, "optimiser": optimiser, **game.parts()}
    return Loop("prune", options.search_epochs * game.epoch, output / "checkpoint.pt", parts, identity, log)


def _search(
    game: Game,
    supernets: Mapping[str, Supernet],
    originals: Mapping[str, nn.Module],
    options: AdversarialOptions,
    loop: Loop,
    seen: watch.Watch,
) -> None:
    """Train the supernets while their latent entries shrink, until each has landed on its own target."""
    optimiser = loop.parts["optimiser"]
    if not loop.resume():
        for index, (name, net) in enumerate(supernets.items()):
            _start(net, name, game, originals.get(name), options, index)
    for step in loop:
        rate = _rate(step, game, options)
        _set_rates(optimiser, rate)
        generators = {name: net.ready() for name, net in supernets.items()}
        figures = game.update(generators, optimiser, step, rate)
        figures = ranks.mean(figures, next(iter(supernets.values())).hyper.latent.device)
        last, looked = step + 1 == loop.steps, (step + 1) % options.check_every == 0
        for name, net in supernets.items():
            share = net.shrink(step)
            near = share * net.whole <= net.target + options.stop_within * net.whole
            if net.keep is None and (last or (looked and near)):
                net.land(step + 1)
            figures[f"share_{name}" if len(supernets) > 1 else "share"] = share
        loop.report(**figures)
        landed = all(net.keep is not None for net in supernets.values())
        seen.look(step + 1, figures, last=landed)
        if not last and landed:
            return


def _start(
    net: Supernet,
    name: str,
    game: Game,
    original: nn.Module | None,
    options: AdversarialOptions,
    index: int,
) -> None:
    """First values of the hypernetwork, and the pace of a uniform shrinkage."""
    if original is not None:
        net.start_warm(original, lambda step: game.inputs(name, step))
    elif options.start == "plain":
        net.start_plain(net.seed + index)
    else:
        initialise_hypernetwork(net.hyper, net.graph, net.seed + index)
    net.settle()
    net.proximal.pace = options.shrink if options.shrink is not None else net.distance() / net.options.steps


def _adam(
    weights: list[nn.Parameter], latents: list[nn.Parameter], options: AdversarialOptions
) -> torch.optim.Adam:
    groups: list[dict[str, Any]] = [{"params": weights, "factor": 1.0}]
    if latents:
        groups.append({"params": latents, "factor": options.latent_learning_rate / options.learning_rate})
    return torch.optim.Adam(groups, lr=options.learning_rate, betas=(options.beta1, 0.999), fused=True)


def _rate(step: int, game: Game, options: AdversarialOptions) -> float:
    return linear(step // game.epoch, options.epochs, options.epochs_decay, options.learning_rate)


def _set_rates(optimiser: torch.optim.Optimizer, rate: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = rate * group["factor"]
