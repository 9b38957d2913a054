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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from compressor import cost as costs
from compressor.budget import Budget
from compressor.coronet.hypernet import HyperNetwork
from compressor.coronet.importance import sensitivity, starting_latent
from compressor.coronet.landing import CostModel, cost_model, land
from compressor.coronet.materialise import shrink_spec, shrink_state
from compressor.coronet.proximal import Proximal
from compressor.files import claim_folder, read_json, write_json
from compressor.generators import Generator, load, save
from compressor.graph import ChannelGraph, trace
from compressor.options import PruneOptions
from compressor.training.loop import Loop, choose_device, cosine, train_mode
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
    seed: int = 0,
    resume: bool = False,
    log: Path | None = None,
) -> PruneResult:
    """Prune a generator to a budget, trained against its own outputs.

    Args:
        generator: the trained original.
        images: pictures to train on (inputs; no targets needed).
        budget: what the result may cost, at the original's usual input size.
        output: new folder for the model and prune.json.
        options: how to search.
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

    graph = trace(generator.module, generator.spec.image.input_shape)
    cost = cost_model(graph, generator.module, budget.metric)
    target = budget.target(cost(np.ones(graph.classes, bool)))
    land(np.ones(graph.classes), graph, cost, target)  # fails now if the budget cannot be reached
    claim_folder(output, resume=resume)

    search = _Search(generator, graph, cost, target, images, options, seed)
    identity = {"source": generator.sha256, "budget": budget.text, "seed": seed, **vars(options)}
    parts = {
        "hypernet": search.hyper,
        "student": search.student,
        "optimiser": search.optimiser,
        "proximal": search.proximal,
    }
    loop = Loop("prune", options.steps, output / "checkpoint.pt", parts, identity, log)
    if not loop.resume():
        search.start()
    for step in loop:
        loop.report(**search.step(step))

    keep = land(search.scores(), graph, cost, target)
    small = search.materialise(keep)
    document = _document(generator, small, budget, target, graph, options, seed, loop.trajectory)
    save(
        small.spec, small.module, output, {"made_by": "prune", "source_sha256": generator.sha256, **document}
    )
    write_json(record, document)
    loop.finish()
    return PruneResult(load(output, factory=factory), output, document)


class _Search:
    """The state of one pruning run: hypernetwork, the rest of the student, teacher, optimiser."""

    def __init__(
        self,
        generator: Generator,
        graph: ChannelGraph,
        cost: CostModel,
        target: int,
        images: Sequence[Path],
        options: PruneOptions,
        seed: int,
    ):
        self.generator, self.graph, self.cost, self.target, self.options = (
            generator, graph, cost, target, options,
        )  # fmt: skip
        self.seed = seed
        self.device = choose_device(options.device)
        self.teacher = copy.deepcopy(generator.module).to(self.device).eval().requires_grad_(False)
        self.student = train_mode(copy.deepcopy(generator.module).to(self.device))
        self.patches = Patches(images, generator.spec.image, options.crop, options.batch, seed)
        self.distance = Distance(generator.spec.image, options.perceptual).to(self.device)
        self.proximal = Proximal(graph, cost, target, options)
        self._equip(np.ones(graph.classes))

    def _equip(self, latent: np.ndarray) -> None:
        """A fresh hypernetwork for these latent entries, and an optimiser for all that is trained."""
        self.hyper = HyperNetwork(self.teacher, self.graph, latent, self.options.hypernet, self.seed).to(
            self.device
        )
        made = {f"{name}.weight" for name in self.hyper.convolutions}
        plain = [p for name, p in self.student.named_parameters() if name not in made]
        kernels = list(self.hyper.parts.parameters())
        self.optimiser = torch.optim.Adam(
            [{"params": kernels + plain}, {"params": [self.hyper.latent]}], betas=(0.9, 0.999)
        )

    def start(self) -> None:
        """Measure what matters, and give the latent entries their first values by it."""
        importance = sensitivity(self.teacher, self.graph, self.patches, seed=self.seed)
        latent = starting_latent(importance, self.cost.marginal(), self.graph.prunable)
        fresh = HyperNetwork(self.teacher, self.graph, latent, self.options.hypernet, self.seed)
        self.hyper.load_state_dict(fresh.state_dict())

    def scores(self) -> np.ndarray:
        """(classes,) how much each channel class should be kept."""
        return self.hyper.latent.detach().abs().cpu().numpy().astype(np.float64)

    def step(self, step: int) -> dict[str, float]:
        """One optimiser step and one proximal step; the figures worth watching."""
        options = self.options
        pictures = self.patches(step).to(self.device)
        with torch.no_grad():
            wanted = self.teacher(pictures)
        weights = self.hyper.weights()
        loss = self.distance(torch.func.functional_call(self.student, weights, (pictures,)), wanted)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        kernels, latent = self.optimiser.param_groups
        kernels["lr"] = cosine(step, options.steps, options.learning_rate)
        latent["lr"] = cosine(step, options.steps, options.latent_learning_rate)
        self.optimiser.step()
        share = self.proximal.step(self.hyper.latent, step)
        return {"loss": loss.item(), "share": share}

    def materialise(self, keep: np.ndarray) -> Generator:
        """The small generator with plain weights; the hypernetwork is evaluated a last time."""
        spec = shrink_spec(self.generator.spec, self.graph, keep)
        state = {**self.student.state_dict(), **self.hyper.weights()}
        module = spec.build()
        module.load_state_dict(shrink_state(state, self.student, self.graph, keep))
        return replace(self.generator, spec=spec, module=module)


def _document(
    generator: Generator,
    small: Generator,
    budget: Budget,
    target: int,
    graph: ChannelGraph,
    options: PruneOptions,
    seed: int,
    trajectory: list[dict[str, float]],
) -> dict[str, Any]:
    """prune.json, from costs counted anew on the materialised network."""
    shape = generator.spec.image.input_shape
    before, after = costs.count(generator.module, shape), costs.count(small.module, shape)
    reached = getattr(after, budget.metric)
    if reached > target:
        raise AssertionError(f"landed on {reached} {budget.metric}, over the target of {target}")
    shrunk = {layer.name: layer for layer in after.layers}
    return {
        "budget": {"asked": budget.text, "metric": budget.metric, "target": target},
        "original": _totals(before),
        "reached": _totals(after),
        "share": reached / getattr(before, budget.metric),
        "hypernet": options.hypernet,
        "proximal": options.proximal,
        "steps": options.steps,
        "seed": seed,
        "layers": [
            {
                "name": layer.name,
                "kind": layer.kind,
                "macs_before": layer.macs,
                "macs": shrunk[layer.name].macs,
                "out_before": layer.output_shape[1],
                "out": shrunk[layer.name].output_shape[1],
            }
            for layer in before.layers
            if layer.macs
        ],
        "kept_whole": [{"name": name, "reason": reason} for name, reason in graph.kept_whole],
        "trajectory": trajectory,
    }


def _totals(cost: costs.Cost) -> dict[str, int]:
    return {name: getattr(cost, name) for name in ("macs", "literature_macs", "parameters", "bytes")}
