"""CoroNet on Pix2Pix: prune an image-to-image generator while it is trained against a discriminator.

As published (Isola et al. 2017; Kumar et al. 2023): a conditional PatchGAN, 100 times the L1 distance to
the wanted picture, Adam at 2e-4 with beta1 0.5, a constant then linearly falling learning rate. No
teacher is needed; distillation from the generator that came in may be added. (Upstream's dropout in
the generator is left out: our generators give one result for one picture.)
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from compressor.adversarial.discriminator import PatchDiscriminator, check_size
from compressor.adversarial.fresh import anew
from compressor.adversarial.initialise import initialise
from compressor.adversarial.losses import adversarial, discriminator_loss
from compressor.budget import Budget
from compressor.coronet.latency import Meter
from compressor.coronet.outcome import PruneResult, already_done, save_discriminator, write_outcome
from compressor.coronet.phases import Forward, play
from compressor.coronet.supernet import Supernet
from compressor.data.pairs import Pair, PairedBatches, prepare
from compressor.errors import UsageError
from compressor.files import claim_folder
from compressor.generators import Generator
from compressor.generators.spec import ImageFormat
from compressor.options import AdversarialOptions, deciding
from compressor.training import ranks, watch
from compressor.training.engine import Engine, renew
from compressor.training.loop import choose_device, set_learning_rate
from compressor.training.losses import Distance
from compressor.training.norms import share_statistics

NAME = "generator"


def prune_pix2pix(
    generator: Generator,
    pairs: Sequence[Pair],
    budget: Budget,
    output: Path,
    options: AdversarialOptions = AdversarialOptions(),  # noqa: B008  frozen
    *,
    direction: str = "AtoB",
    teacher: Generator | None = None,
    meter: Meter | None = None,
    seed: int = 0,
    resume: bool = False,
    log: Path | None = None,
) -> PruneResult:
    """Train a generator on pairs and prune it to a budget on the way.

    Args:
        generator: the trained generator, or (with `options.scratch`) the architecture to train.
        pairs: what is given and what is wanted, from `compressor.data.pairs.find_pairs`.
        budget: what the result may cost, at the generator's usual input size.
        output: new folder: the model folder with prune.json, and discriminator.safetensors.
        options: how to search and train.
        direction: "AtoB" or "BtoA".
        teacher: the original that `generator` was pruned from: the budget's shares are of it, and it
            teaches where `options.distillation` asks for a teacher.
        meter: what a budget of latency is measured with.
        seed: of weights, pictures and the probes.
        resume: go on in `output` where an earlier call was stopped.
        log: JSON-lines file for figures of the training.

    Raises:
        UsageError: the budget cannot be reached or is already met, or settings contradict each other.
        PocketganError: pictures cannot be read, the network cannot be traced, or `output` is taken.
    """
    if generator.spec.image.scale != 1:
        raise UsageError("Pix2Pix keeps the size of its pictures", got=f"scale {generator.spec.image.scale}")
    watch.check(options)
    ranks.check_batch("adversarial", options.batch, options.accumulate)
    device = ranks.join(choose_device(options.device))
    if resume and (done := already_done(generator, output)):
        return done
    if options.scratch:
        generator = replace(generator, module=anew(generator.spec, seed))
    game = Pix2PixGame(teacher or generator, pairs, options, direction, seed, device)
    search = options.search(game.epoch)
    supernet = Supernet(generator, budget, search, seed=seed, device=device, original=teacher, meter=meter)
    ranks.on_leader(lambda: claim_folder(output, resume=resume))
    ranks.agree("the pictures' names", [pair.a.name for pair in pairs])
    originals = {} if options.scratch else {NAME: copy.deepcopy(generator.module).to(device).eval()}
    identity = {
        "task": "pix2pix", "source": generator.sha256, "budget": budget.text, "direction": direction,
        "seed": seed, **deciding(options),
    }  # fmt: skip
    identity |= {"teacher": teacher.sha256} if teacher else {}
    identity |= {"meter": dict(meter.identity)} if meter else {}
    played = play(game, {NAME: supernet}, originals, options, output, identity, log, {NAME: output})
    save_discriminator(game.discriminator, output / "discriminator.safetensors")
    facts = {
        "task": "pix2pix", "direction": direction, "seed": seed, "steps_in_all": played.steps,
        **played.watch.document(NAME),
    }  # fmt: skip
    result = write_outcome(supernet, played.generators[NAME], output, options, facts, played.trajectory)
    played.finish()
    return result


class Pix2PixGame:
    """Pictures, discriminator and losses of Pix2Pix; a `phases.Game`."""

    def __init__(
        self,
        generator: Generator,
        pairs: Sequence[Pair],
        options: AdversarialOptions,
        direction: str,
        seed: int,
        device: torch.device,
    ):
        self.image: ImageFormat = generator.spec.image
        self.options, self.device = options, device
        draw = prepare(
            self.image,
            crop=options.crop,
            load=options.load,
            batch=options.batch,
            seed=seed,
            flip=options.flip,
        )
        check_size(draw.crop, options.discriminator_layers)
        self.batches = PairedBatches(pairs, self.image, draw, direction)
        self.gan = options.gan or "vanilla"
        self.engine = Engine(options, device)
        discriminator = PatchDiscriminator(
            sum(self.image.channels), options.discriminator_width, options.discriminator_layers, "batch"
        )
        self.discriminator = self.engine.arrange(
            share_statistics(initialise(discriminator, seed + 1).to(device))
        )
        self.judge = self.engine.forward(self.discriminator)
        self.optimiser = torch.optim.Adam(
            self.discriminator.parameters(), lr=options.learning_rate, betas=(options.beta1, 0.999)
        )
        self.teacher = None
        if options.distillation:
            teacher = copy.deepcopy(generator.module).to(device).eval().requires_grad_(False)
            self.teacher = self.engine.forward(self.engine.arrange(teacher))
        self.distance = Distance(self.image)

    @property
    def epoch(self) -> int:
        return self.batches.epoch

    def inputs(self, name: str, step: int) -> torch.Tensor:
        return self.batches(step)[0]

    def parts(self) -> dict[str, Any]:
        return {"discriminator": self.discriminator, "discriminator_optimiser": self.optimiser}

    def update(
        self, generators: Mapping[str, Forward], optimiser: torch.optim.Optimizer, step: int, rate: float
    ) -> dict[str, float]:
        parts, generator = self.engine.parts(*self.batches(step)), generators[NAME]
        with torch.set_grad_enabled(len(parts) == 1):  # of several, graphs would fill the memory
            outputs = [generator(inputs) for inputs, _ in parts]
        judged = self._judge(parts, [output.detach() for output in outputs])
        set_learning_rate(self.optimiser, rate)
        self.optimiser.step()

        self.discriminator.requires_grad_(False)
        optimiser.zero_grad(set_to_none=True)
        figures = {"loss": 0.0, "l1": 0.0, "gan": 0.0, "discriminator": judged}
        for (inputs, targets), output in zip(parts, outputs, strict=True):
            if len(parts) > 1:
                renew(generators)
                output = generator(inputs)
            for name, value in self._teach(inputs, targets, output, len(parts)).items():
                figures[name] += value
        ranks.average(optimiser)
        optimiser.step()
        return figures

    def _judge(self, parts: Sequence[tuple[torch.Tensor, ...]], outputs: Sequence[torch.Tensor]) -> float:
        """The discriminator's gradients on real and made pictures, and its loss."""
        self.discriminator.train().requires_grad_(True)
        self.optimiser.zero_grad(set_to_none=True)
        total = 0.0
        for (inputs, targets), output in zip(parts, outputs, strict=True):
            given, wanted, made = self._alike(inputs, targets, output)
            real, false = (self.judge(torch.cat([given, x], 1)) for x in (wanted, made))
            loss = discriminator_loss(real, false, self.gan) / len(parts)
            loss.backward()
            total += loss.item()
        ranks.average(self.optimiser)
        return total

    def _teach(
        self, inputs: torch.Tensor, targets: torch.Tensor, output: torch.Tensor, count: int
    ) -> dict[str, float]:
        """The generator's gradients of one of `count` micro-batches, and its share of the figures."""
        given, wanted, made = self._alike(inputs, targets, output)
        fooled = adversarial(self.judge(torch.cat([given, made], 1)), True, self.gan)
        l1 = F.l1_loss(made, wanted)
        loss = fooled + self.options.l1 * l1
        if self.teacher is not None:
            with torch.no_grad():
                painted = self.teacher(inputs)
            loss = loss + self.options.distillation * self.distance(output, painted)
        (loss / count).backward()
        return {name: value.item() / count for name, value in (("loss", loss), ("l1", l1), ("gan", fooled))}

    def _alike(
        self, inputs: torch.Tensor, targets: torch.Tensor, output: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What is given, wanted and made, in [-1, 1]."""
        return (
            _symmetric(inputs, self.image.input_range),
            _symmetric(targets, self.image.output_range),
            _symmetric(output, self.image.output_range),
        )


def _symmetric(values: torch.Tensor, value_range: tuple[float, float]) -> torch.Tensor:
    """Values of `value_range` in [-1, 1], where the published weights of the losses belong."""
    low, high = value_range
    return values if (low, high) == (-1.0, 1.0) else (values - low) * (2 / (high - low)) - 1
