"""CoroNet: prune a generator to an exact budget with a hypernetwork, in one training run.

The original's weights are reproduced exactly by a hypernetwork with one latent entry for each
class of channels (Kumar et al. 2023, arXiv 2403.08261; Li et al. 2020). While the generator is
trained against the original's own pictures, or towards true ones (super resolution), proximal steps
shrink latent entries; at the end the budget is landed on exactly, the surviving channels become plain
weights, and the hypernetwork is dropped.
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
from compressor.coronet.hypernet import EMBEDDING
from compressor.coronet.latency import Meter
from compressor.coronet.supernet import Supernet
from compressor.coronet.widths import Widths
from compressor.files import claim_folder, read_json, write_json
from compressor.generators import Generator, load, save
from compressor.launch import leads
from compressor.options import PruneOptions, deciding
from compressor.training import ranks, watch
from compressor.training.engine import Engine
from compressor.training.lessons import Lessons
from compressor.training.loop import Loop, choose_device, cosine


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
        images: pictures to train on: inputs, or with `SuperResolutionOptions` the true, large pictures.
        budget: what the result may cost, at the original's usual input size.
        output: new folder for the model and prune.json.
        options: how to search.
        teacher: the original that `generator` was pruned from: it teaches, and the budget's shares are of it.
        meter: what a budget of latency is measured with.
        seed: of the pictures drawn and the probes.
        resume: go on in `output` where an earlier call was stopped.
        log: JSON-lines file for figures of the training.

    Raises:
        UsageError: the budget cannot be reached or is already met, or the batch cannot be divided among
            the processes.
        PocketganError: pictures cannot be read, the network cannot be traced, or `output` is taken.
    """
    factory = generator.spec.arguments.get("factory") if generator.spec.family == "custom" else None
    record = output / "prune.json"
    watch.check(options)
    ranks.check_batch("prune", options.batch, options.accumulate)
    device = ranks.join(choose_device(options.device))
    if resume and ranks.on_leader(record.exists):
        return PruneResult(load(output, factory=factory), output, read_json(record))

    supernet = Supernet(generator, budget, options, seed=seed, device=device, original=teacher, meter=meter)
    ranks.on_leader(lambda: claim_folder(output, resume=resume))

    search = _Search(supernet, images, options)
    identity = {"source": generator.sha256, "budget": budget.text, "seed": seed, **deciding(options)}
    identity |= {"teacher": teacher.sha256} if teacher else {}
    identity |= {"meter": dict(meter.identity)} if meter else {}
    widths = {"": Widths(supernet)}
    seen = watch.Watch("prune", options.steps, {"": output}, options, search.samples, widths)
    parts = {"supernet": supernet, "optimiser": search.optimiser, "watch": seen}
    loop = Loop("prune", options.steps, output / "checkpoint.pt", parts, identity, log)
    if not loop.resume():
        supernet.start_warm(search.start, search.lessons)
        supernet.settle()
    for step in loop:
        figures = search.step(step)
        loop.report(**figures)
        seen.look(step + 1, figures)

    supernet.land(options.steps)
    seen.look(options.steps, {}, last=True)
    seen.close()
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
        **seen.document(),
        trajectory=loop.trajectory,
    )
    provenance = {"made_by": "prune", "source_sha256": generator.sha256, **document}

    def write() -> None:
        save(small.spec, small.module, output, provenance)
        write_json(record, document)

    ranks.on_leader(write)
    loop.finish()
    return PruneResult(load(output, factory=factory) if leads() else small, output, document)


class _Search:
    """One pruning run: the generator searched, its teacher (the original), pictures, optimiser."""

    def __init__(self, supernet: Supernet, images: Sequence[Path], options: PruneOptions):
        self.supernet, self.options = supernet, options
        self.device = supernet.hyper.latent.device
        image = supernet.generator.spec.image
        self.engine = Engine(options, self.device)
        self.teacher = copy.deepcopy(supernet.original.module).to(self.device).eval().requires_grad_(False)
        self.start = self.teacher
        if supernet.original is not supernet.generator:
            self.start = copy.deepcopy(supernet.generator.module).to(self.device).eval()
        self.show = self.engine.forward(self.engine.arrange(self.teacher))
        self.lessons = Lessons(
            images,
            image,
            options,
            self.engine,
            self.show,
            supernet.seed,
            **options.lesson,
        )
        self.optimiser = torch.optim.Adam(
            [{"params": supernet.parameters()}, {"params": [supernet.hyper.latent]}],
            betas=(0.9, 0.999),
            fused=True,
        )

    def samples(self) -> dict[str, tuple[watch.Panels, tuple[float, float]]]:
        """What original and student make of the first picture now."""
        shown = self.lessons(0)[:1].to(self.device)
        with watch.at_rest(self.supernet.student):
            made = {"original": self.show(shown), "student": self.supernet.ready()(shown)}
        return {"": (made, self.supernet.generator.spec.image.output_range)}

    def step(self, step: int) -> dict[str, float]:
        """One optimiser step and one proximal step; the figures worth watching."""
        options = self.options
        self.optimiser.zero_grad(set_to_none=True)
        total = self.lessons.backward(step, self.supernet.ready)
        ranks.average(self.optimiser)
        kernels, latent = self.optimiser.param_groups
        final = options.final_rate
        # Adam moves every factor of the published form's sums by one step: the sum by EMBEDDING of them.
        moved = EMBEDDING if options.hypernet == "dhp" else 1
        kernels["lr"] = cosine(step, options.steps, options.learning_rate / moved, final=final)
        latent["lr"] = cosine(step, options.steps, options.latent_learning_rate, final=final)
        self.optimiser.step()
        figures = ranks.mean({"loss": total}, self.device)
        return {**figures, "share": self.supernet.shrink(step)}
