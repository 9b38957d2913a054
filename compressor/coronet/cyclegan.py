"""CoroNet on CycleGAN: prune two generators together while they are trained against each other.

As published (Zhu et al. 2017; Kumar et al. 2023): LSGAN, 10 times the cycle distance, 5 times the identity
distance, a pool of 50 pictures, both generators in one Adam. Each generator stops at its own target; its
choice of channels is then frozen while the other lags behind.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from compressor.adversarial.discriminator import PatchDiscriminator, check_size
from compressor.adversarial.fresh import anew
from compressor.adversarial.initialise import initialise
from compressor.adversarial.losses import adversarial, discriminator_loss
from compressor.adversarial.pool import ImagePool
from compressor.budget import Budget
from compressor.coronet.latency import Meter
from compressor.coronet.outcome import PruneResult, already_done, save_discriminator, write_outcome
from compressor.coronet.phases import Forward, play
from compressor.coronet.supernet import Supernet
from compressor.data.pairs import UnpairedBatches, prepare
from compressor.errors import UsageError
from compressor.files import claim_folder
from compressor.generators import Generator
from compressor.options import AdversarialOptions, deciding
from compressor.training import ranks, watch
from compressor.training.engine import Engine, renew
from compressor.training.loop import choose_device, set_learning_rate
from compressor.training.losses import Distance

FORTH, BACK = "A_to_B", "B_to_A"


@dataclass(frozen=True)
class CycleGANResult:
    """What pruning gave for each direction; both lie in folders of their own.

    Attributes:
        forth: the generator that paints B from A, in OUT/A_to_B.
        back: the one that paints A from B, in OUT/B_to_A.
    """

    forth: PruneResult
    back: PruneResult


def prune_cyclegan(
    forth: Generator,
    back: Generator,
    a: Sequence[Path],
    b: Sequence[Path],
    budget: Budget,
    output: Path,
    options: AdversarialOptions = AdversarialOptions(),  # noqa: B008  frozen
    *,
    budget_back: Budget | None = None,
    teachers: tuple[Generator, Generator] | None = None,
    meter: Meter | None = None,
    seed: int = 0,
    resume: bool = False,
    log: Path | None = None,
) -> CycleGANResult:
    """Train two generators on two sets of pictures and prune both on the way.

    Args:
        forth, back: the trained generators A to B and B to A, or (with `options.scratch`) architectures.
        a, b: pictures of either set; none belongs to another.
        budget: what `forth` may cost, at its usual input size.
        output: new folder: A_to_B and B_to_A with prune.json, and the two discriminators.
        options: how to search and train.
        budget_back: the same for `back`; that of `forth` if not given.
        teachers: the originals that `forth` and `back` were pruned from: the budgets' shares are of them,
            and they teach where `options.distillation` asks for teachers.
        meter: what budgets of latency are measured with.
        seed: of weights, pictures, pools and the probes.
        resume: go on in `output` where an earlier call was stopped.
        log: JSON-lines file for figures of the training.

    Raises:
        UsageError: a budget cannot be reached or is already met, the generators do not fit each other,
            or settings contradict each other.
        PocketganError: pictures cannot be read, a network cannot be traced, or `output` is taken.
    """
    generators, budgets = {FORTH: forth, BACK: back}, {FORTH: budget, BACK: budget_back or budget}
    _check(forth, back, options)
    watch.check(options)
    ranks.check_batch("adversarial", options.batch, options.accumulate)
    device = ranks.join(choose_device(options.device))
    if resume and ranks.on_leader((output / BACK / "prune.json").exists):
        found = [already_done(generator, output / name) for name, generator in generators.items()]
        if found[0] and found[1]:
            return CycleGANResult(found[0], found[1])
    if options.scratch:
        generators = {
            name: replace(generator, module=anew(generator.spec, seed + index))
            for index, (name, generator) in enumerate(generators.items())
        }
    taught_by = dict(zip(generators, teachers, strict=True)) if teachers else {}
    game = CycleGANGame(taught_by or generators, a, b, options, seed, device)
    search = options.search(game.epoch)
    supernets = {
        name: Supernet(
            generator,
            budgets[name],
            search,
            seed=seed,
            device=device,
            original=taught_by.get(name),
            meter=meter,
        )
        for name, generator in generators.items()
    }
    ranks.on_leader(lambda: claim_folder(output, resume=resume))
    ranks.agree("the pictures' names", [path.name for path in (*a, *b)])
    originals = {}
    if not options.scratch:
        originals = {
            name: copy.deepcopy(generator.module).to(device).eval() for name, generator in generators.items()
        }
    identity = {
        "task": "cyclegan", "source": [forth.sha256, back.sha256], "seed": seed,
        "budget": [budget.text for budget in budgets.values()], **deciding(options),
    }  # fmt: skip
    identity |= {"teachers": [teacher.sha256 for teacher in teachers]} if teachers else {}
    identity |= {"meter": dict(meter.identity)} if meter else {}
    folders = {name: output / name for name in supernets}
    played = play(game, supernets, originals, options, output, identity, log, folders)
    for name, module in game.discriminators.items():
        save_discriminator(module, output / f"discriminator_{name[-1]}.safetensors")
    results = []
    for name, net in supernets.items():
        facts = {
            "task": "cyclegan", "direction": name, "seed": seed, "steps_in_all": played.steps,
            **played.watch.document(name),
        }  # fmt: skip
        results.append(
            write_outcome(net, played.generators[name], output / name, options, facts, played.trajectory)
        )
    played.finish()
    return CycleGANResult(*results)


def _check(forth: Generator, back: Generator, options: AdversarialOptions) -> None:
    """Refuse generators that cannot undo each other."""
    there, here = forth.spec.image, back.spec.image
    if there.channels != here.channels[::-1]:
        raise UsageError(
            "the second generator must take what the first one makes, and the reverse",
            got=f"channels {there.channels} and {here.channels}",
            allowed=f"{there.channels} and {there.channels[::-1]}",
        )
    ranges = {there.input_range, there.output_range, here.input_range, here.output_range}
    if ranges != {(-1.0, 1.0)} or (there.scale, here.scale) != (1, 1):
        raise UsageError(
            "CycleGAN's generators take and make pictures in [-1, 1] of one size",
            got=f"ranges {sorted(ranges)}, scales {there.scale} and {here.scale}",
        )
    if options.identity and there.channels[0] != there.channels[1]:
        raise UsageError(
            "the identity loss needs as many channels in A as in B",
            got=there.channels,
            fix="set identity to 0",
        )


class CycleGANGame:
    """Pictures, discriminators, pools and losses of CycleGAN; a `phases.Game`.

    Discriminators and pools go by the name of the generator whose pictures they judge.
    """

    def __init__(
        self,
        generators: Mapping[str, Generator],
        a: Sequence[Path],
        b: Sequence[Path],
        options: AdversarialOptions,
        seed: int,
        device: torch.device,
    ):
        image = generators[FORTH].spec.image
        self.options, self.device = options, device
        draw = prepare(
            image, crop=options.crop, load=options.load, batch=options.batch, seed=seed, flip=options.flip
        )
        check_size(draw.crop, options.discriminator_layers)
        self.batches = UnpairedBatches(a, b, image.channels, image.input_range, draw)
        self.gan = options.gan or "lsgan"
        width, layers = options.discriminator_width, options.discriminator_layers
        self.engine = Engine(options, device)
        self.discriminators = {
            name: self.engine.arrange(
                initialise(
                    PatchDiscriminator(generator.spec.image.channels[1], width, layers, "instance"),
                    seed + 1 + index,
                ).to(device)
            )
            for index, (name, generator) in enumerate(generators.items())
        }
        self.judges = {name: self.engine.forward(module) for name, module in self.discriminators.items()}
        self.optimiser = torch.optim.Adam(
            itertools.chain(*(module.parameters() for module in self.discriminators.values())),
            lr=options.learning_rate,
            betas=(options.beta1, 0.999),
        )
        self.pools = {name: ImagePool(options.pool, seed + index) for index, name in enumerate(generators)}
        self.teachers = {}
        if options.distillation:
            self.teachers = {
                name: self.engine.forward(
                    self.engine.arrange(
                        copy.deepcopy(generator.module).to(device).eval().requires_grad_(False)
                    )
                )
                for name, generator in generators.items()
            }
        self.distance = Distance(image)

    @property
    def epoch(self) -> int:
        return self.batches.epoch

    def inputs(self, name: str, step: int) -> torch.Tensor:
        return self.batches(step)[0 if name == FORTH else 1]

    def parts(self) -> dict[str, Any]:
        return {
            "discriminator_optimiser": self.optimiser,
            **{f"discriminator_{name}": module for name, module in self.discriminators.items()},
            **{f"pool_{name}": pool for name, pool in self.pools.items()},
        }

    def update(
        self, generators: Mapping[str, Forward], optimiser: torch.optim.Optimizer, step: int, rate: float
    ) -> dict[str, float]:
        parts = self.engine.parts(*self.batches(step))
        for module in self.discriminators.values():
            module.train().requires_grad_(False)
        optimiser.zero_grad(set_to_none=True)
        figures = dict.fromkeys(("loss", "gan", "cycle"), 0.0)
        made: dict[str, list[torch.Tensor]] = {name: [] for name in generators}
        for a, b in parts:
            renew(generators)
            painted, values = self._teach(generators, {FORTH: a, BACK: b}, len(parts))
            for name, pictures in painted.items():
                made[name].append(pictures)
            for name, value in values.items():
                figures[name] += value
        ranks.average(optimiser)
        optimiser.step()
        wanted = {FORTH: [b for _, b in parts], BACK: [a for a, _ in parts]}
        return {**figures, "discriminator": self._judge(wanted, made, step, rate)}

    def _teach(
        self, generators: Mapping[str, Forward], given: Mapping[str, torch.Tensor], count: int
    ) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
        """The generators' gradients of one of `count` micro-batches; its pictures and figures."""
        wanted = {FORTH: given[BACK], BACK: given[FORTH]}
        made = {name: generator(given[name]) for name, generator in generators.items()}
        fooled = torch.zeros((), device=self.device)
        cycled, same, taught = fooled, fooled, fooled
        for name, other in ((FORTH, BACK), (BACK, FORTH)):
            fooled = fooled + adversarial(self.judges[name](made[name]), True, self.gan)
            cycled = cycled + F.l1_loss(generators[other](made[name]), given[name])
            if self.options.identity:
                same = same + F.l1_loss(generators[name](wanted[name]), wanted[name])
            if self.teachers:
                with torch.no_grad():
                    painted = self.teachers[name](given[name])
                taught = taught + self.distance(made[name], painted)
        loss = fooled + self.options.cycle * (cycled + self.options.identity * same)
        loss = loss + self.options.distillation * taught
        (loss / count).backward()
        values = {"loss": loss, "gan": fooled, "cycle": cycled}
        return (
            {name: pictures.detach() for name, pictures in made.items()},
            {name: value.item() / count for name, value in values.items()},
        )

    def _judge(
        self,
        wanted: Mapping[str, list[torch.Tensor]],
        made: Mapping[str, list[torch.Tensor]],
        step: int,
        rate: float,
    ) -> float:
        """One update of the discriminators; their loss. The pools are alike on all processes."""
        self.optimiser.zero_grad(set_to_none=True)
        total = 0.0
        for name, module in self.discriminators.items():
            module.requires_grad_(True)
            shown = self.engine.parts(self.pools[name](ranks.gather(torch.cat(made[name])), step))
            for real, (false,) in zip(wanted[name], shown, strict=True):
                judge = self.judges[name]
                loss = discriminator_loss(judge(real), judge(false), self.gan) / len(shown)
                loss.backward()
                total += loss.item()
        ranks.average(self.optimiser)
        set_learning_rate(self.optimiser, rate)
        self.optimiser.step()
        return total
