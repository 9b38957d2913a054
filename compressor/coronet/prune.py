"""CoroNet: prune a generator to an exact budget with a hypernetwork, in one training run.

The original's weights are reproduced exactly by a hypernetwork with one latent entry for each
class of channels (Kumar et al. 2023, arXiv 2403.08261; Li et al. 2020). While the generator is
trained against the original's own pictures, proximal steps shrink latent entries; at the end the
budget is landed on exactly, the surviving channels become plain weights, and the hypernetwork is
dropped.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from compressor.budget import Budget
from compressor.coronet.document import describe
from compressor.coronet.latency import Meter
from compressor.coronet.supernet import Supernet
from compressor.files import claim_folder, read_json, write_json
from compressor.generators import Generator, load, save
from compressor.options import PruneOptions
from compressor.training.loop import Loop, choose_device, cosine
from compressor.training.losses import Distance
from compressor.training.patches import Patches


@dataclass(frozen=True)
class PruneResult:
    """What pruning gave.

    Attributes:
        generator: the pruned generator, read back from `folder`.
        folder: its model folder, which also holds prune.json.
        document: prune.json: budget asked and reached, widths before and after, trajectory.
    """

    generator: Generator
    folder: Path
    document: dict[str, Any]


def prune(
    generator: Generator,
    images: Sequence[Path],
    budget: Budget,
    output: Path,
    options: PruneOptions = PruneOptions(),  # noqa: B008  frozen
    *,
    teacher: Generator | None = None,
    meter: Meter | None = None,
    seed: int = 0,
    resume: bool = False,
    log: Path | None = None,
) -> PruneResult:
    """Prune a generator to a budget, trained against its own outputs or a teacher's.

    Args:
        generator: the trained original, or what was pruned from it before.
        images: pictures to train on (inputs; no targets needed).
        budget: what the result may cost, at the original's usual input size.
        output: new folder for the model and prune.json.
        options: how to search.
        teacher: the original that `generator` was pruned from: it teaches, and the budget's shares are of it.
        meter: what a budget of latency is measured with.
        seed: of the pictures drawn and the probes.
        resume: go on in `output` where an earlier call was stopped.
        log: JSON-lines file for figures of the training.

    Raises:
        UsageError: the budget cannot be reached, or is already met.
        PocketganError: pictures cannot be read, the network cannot be traced, or `output` is taken.
    """
    factory = generator.spec.arguments.get("factory") if generator.spec.family == "custom" else None
    record = output / "prune.json"
    if resume and record.exists():
        return PruneResult(load(output, factory=factory), output, read_json(record))

    device = choose_device(options.device)
    supernet = Supernet(generator, budget, options, seed=seed, device=device, original=teacher, meter=meter)
    claim_folder(output, resume=resume)

    search = _Search(supernet, images, options)
    identity = {"source": generator.sha256, "budget": budget.text, "seed": seed, **vars(options)}
    identity |= {"teacher": teacher.sha256} if teacher else {}
    identity |= {"meter": dict(meter.identity)} if meter else {}
    parts = {"supernet": supernet, "optimiser": search.optimiser}
    loop = Loop("prune", options.steps, output / "checkpoint.pt", parts, identity, log)
    if not loop.resume():
        supernet.start_warm(search.start, search.patches)
        supernet.settle()
    for step in loop:
        loop.report(**search.step(step))

    supernet.land(options.steps)
    small = supernet.materialise()
    document = describe(
        supernet.original,
        small,
        budget,
        supernet.target,
        supernet.graph,
        latency=supernet.measured(),
        hypernet=options.hypernet,
        proximal=options.proximal,
        steps=options.steps,
        seed=seed,
        trajectory=loop.trajectory,
    )
    save(
        small.spec, small.module, output, {"made_by": "prune", "source_sha256": generator.sha256, **document}
    )
    write_json(record, document)
    loop.finish()
    return PruneResult(load(output, factory=factory), output, document)


class _Search:
    """One pruning run: the generator searched, its teacher (the original), pictures, optimiser."""

    def __init__(self, supernet: Supernet, images: Sequence[Path], options: PruneOptions):
        self.supernet, self.options = supernet, options
        self.device = supernet.hyper.latent.device
        image = supernet.generator.spec.image
        self.teacher = copy.deepcopy(supernet.original.module).to(self.device).eval().requires_grad_(False)
        self.start = self.teacher
        if supernet.original is not supernet.generator:
            self.start = copy.deepcopy(supernet.generator.module).to(self.device).eval()
        self.patches = Patches(images, image, options.crop, options.batch, supernet.seed)
        self.distance = Distance(image, options.perceptual).to(self.device)
        self.optimiser = torch.optim.Adam(
            [{"params": supernet.parameters()}, {"params": [supernet.hyper.latent]}], betas=(0.9, 0.999)
        )

    def step(self, step: int) -> dict[str, float]:
        """One optimiser step and one proximal step; the figures worth watching."""
        options = self.options
        pictures = self.patches(step).to(self.device)
        with torch.no_grad():
            wanted = self.teacher(pictures)
        loss = self.distance(self.supernet.ready()(pictures), wanted)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        kernels, latent = self.optimiser.param_groups
        kernels["lr"] = cosine(step, options.steps, options.learning_rate)
        latent["lr"] = cosine(step, options.steps, options.latent_learning_rate)
        self.optimiser.step()
        return {"loss": loss.item(), "share": self.supernet.shrink(step)}
