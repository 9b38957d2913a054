"""Filter masks found by evolution: Shu et al., Co-Evolutionary Compression (ICCV 2019), for one generator.

An individual is a mask over filters. Each generation keeps its best, draws parents by fitness, exchanges the
masks of whole layers between them and flips single filters. Fitness is the paper's: the parameters that are
kept, weighted, and the distance of the pruned network's pictures from the original's.

Two things differ. The paper evolves a CycleGAN's two generators side by side, since its distance also looks
at the way back; here there is one, judged by its own pictures. And its size follows from the weight alone;
here every mask is brought within a budget, so that it can stand beside other methods at equal cost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.baselines import cut
from compressor.coronet.landing import MINIMUM
from compressor.files import read_json, write_json
from compressor.generators import Generator
from compressor.graph import ChannelGraph
from compressor.progress import Progress

Cost = Callable[[np.ndarray], int]


@dataclass(frozen=True)
class Settings:
    """How much is tried.

    Attributes:
        size_weight: of the share of parameters kept, beside the distance over the pictures' own spread.
        crossover, mutation: chances that two parents exchange layers, and that one filter is flipped.
        probes: batches of pictures that a distance looks at, the same for all.
    """

    population: int = 16
    generations: int = 40
    size_weight: float = 0.1
    crossover: float = 0.6
    mutation: float = 0.02
    probes: int = 2


def evolve(
    generator: Generator,
    graph: ChannelGraph,
    cost: Cost,
    target: int,
    batch: Callable[[int], torch.Tensor],
    folder: Path,
    seed: int,
    settings: Settings = Settings(),
) -> np.ndarray:
    """The best mask within the budget; a stopped call goes on at its generation, with the same result.

    Args:
        cost, target: of a mask (classes,) bool, and what it may be at most.
        batch: input pictures by number.
        folder: for cec.json, the state after each generation.

    Returns:
        (classes,) bool.
    """
    judge = _Judge(generator, graph, [batch(number) for number in range(settings.probes)], settings)
    path, done = folder / "cec.json", 0
    if path.exists():
        state = read_json(path)
        done, masks, scores = int(state["generation"]), np.array(state["masks"], bool), list(state["scores"])
    else:
        rng = np.random.default_rng([seed, 0])
        drawn = [graph.prunable & (rng.random(graph.classes) < 0.5) for _ in range(settings.population)]
        masks = np.array([fit(mask | ~graph.prunable, graph, cost, target, rng) for mask in drawn])
        scores = [judge(mask) for mask in masks]
    with Progress("evolve", settings.generations, done) as progress:
        for generation in range(done + 1, settings.generations + 1):
            rng = np.random.default_rng([seed, generation])
            children = _children(masks, scores, graph, rng, settings)
            best = int(np.argmin(scores))
            fitted = [fit(child, graph, cost, target, rng) for child in children]
            masks, scores = np.array([masks[best], *fitted]), [scores[best], *map(judge, fitted)]
            state = {"generation": generation, "masks": masks.astype(int).tolist(), "scores": scores}
            write_json(path, state)
            progress.update(generation, best=min(scores))
    best_mask: np.ndarray = masks[int(np.argmin(scores))]
    return best_mask


def fit(
    keep: np.ndarray, graph: ChannelGraph, cost: Cost, target: int, rng: np.random.Generator
) -> np.ndarray:
    """A mask brought within the budget: filters dropped, then taken in, in a random order.

    Every latent vector keeps as many filters as other methods leave it.
    """
    kept = keep | ~graph.prunable
    order = rng.permutation(np.flatnonzero(graph.prunable))
    spared: set[int] = set()
    for group in np.unique(graph.groups[graph.prunable]):
        members = [each for each in order if graph.groups[each] == group]
        members.sort(key=lambda each: not kept[each])  # those that are kept come first
        spared |= {int(each) for each in members[:MINIMUM]}
    kept[list(spared)] = True
    free = np.array([each for each in order if int(each) not in spared], int)
    kept = _most(kept, free[kept[free]], cost, target, start=False)
    return _most(kept, free[~kept[free]], cost, target, start=True)


def _most(keep: np.ndarray, order: np.ndarray, cost: Cost, target: int, *, start: bool) -> np.ndarray:
    """With the least of `order` dropped, or the most of it taken in (`start`), that the budget allows."""

    def changed(count: int) -> np.ndarray:
        mask = keep.copy()
        mask[order[:count]] = start
        return mask

    low, high = 0, len(order)
    while low < high:
        middle = (low + high + 1) // 2 if start else (low + high) // 2
        fits = cost(changed(middle)) <= target
        low, high = (middle, high) if start and fits else (low, middle - 1) if start else (
            (low, middle) if fits else (middle + 1, high)
        )  # fmt: skip
    return changed(low)


def _children(
    masks: np.ndarray, scores: list[float], graph: ChannelGraph, rng: np.random.Generator, settings: Settings
) -> list[np.ndarray]:
    """The next generation but its first: parents drawn by 1 / fitness, layers exchanged, filters flipped."""
    chance = 1 / np.maximum(np.array(scores), 1e-12)
    children = []
    for _ in range(len(masks) - 1):
        one, two = masks[rng.choice(len(masks), 2, p=chance / chance.sum())]
        child = one.copy()
        if rng.random() < settings.crossover:
            layers = rng.random(int(graph.groups.max()) + 1) < 0.5
            child = np.where(layers[graph.groups], one, two)
        flipped = graph.prunable & (rng.random(graph.classes) < settings.mutation)
        children.append(child ^ flipped)
    return children


class _Judge:
    """Fitness of a mask, the less the better."""

    def __init__(
        self, generator: Generator, graph: ChannelGraph, probes: list[torch.Tensor], settings: Settings
    ):
        self.generator, self.graph, self.probes, self.settings = generator, graph, probes, settings
        generator.module.eval()
        with torch.inference_mode():
            self.wanted = [generator.module(probe) for probe in probes]
        self.spread = float(np.mean([float(each.std()) for each in self.wanted])) or 1.0
        self.whole = sum(each.numel() for each in generator.module.parameters())

    def __call__(self, keep: np.ndarray) -> float:
        small = cut(self.generator, self.graph, keep).module.eval()
        with torch.inference_mode():
            pairs = zip(self.probes, self.wanted, strict=True)
            distance = np.mean([float((small(probe) - wanted).abs().mean()) for probe, wanted in pairs])
        share = sum(each.numel() for each in small.parameters()) / self.whole
        return self.settings.size_weight * share + float(distance) / self.spread
