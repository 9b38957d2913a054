"""CoroNet beside uniform width, Torch-Pruning and CEC: same budgets, same training, same unseen pictures.

    pip install torch-pruning
    python -m benchmarks.pruning_quality --data ../shared/data --output-dir runs/quality

Every method gets the same number of optimiser steps, batches of the same size and source, the same loss
(L1 to the original's own pictures) and the same learning rate. The baselines choose channels at once
and spend all steps on training what is left; CoroNet spends a part of them on its search. PSNR and SSIM
are to the original's pictures on images that nothing was trained on.
A stopped run goes on where it was; cells are shared out among calls that run beside each other.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks.cells import DONE, claim, write_record
from compressor.files import read_json, write_json

if TYPE_CHECKING:
    from compressor.generators import Generator

BUDGETS = ("macs=75%", "macs=50%", "macs=25%")
METHODS = ("coronet", "uniform", "tp-magnitude", "tp-taylor", "tp-taylor-global", "cec")


@dataclass(frozen=True)
class Case:
    """One generator, its pictures, and how it is trained.

    Attributes:
        images, held_out: folder to train on, and one of others; without one, the last ten of `images`.
        steps: of optimiser, over all; `search` of them CoroNet's search.
        crop, batch: of the training pictures.
    """

    checkpoint: str
    factory: str | None
    images: str
    held_out: str | None
    steps: int
    search: int
    crop: int
    batch: int


HORSES, T91, SET14 = "horse2zebra/testA_real", "sr/train_T91", "sr/Set14_x4"
CASES = {
    "fast_style": Case(
        "fast_style_la_muse.safetensors", "benchmarks.networks.fast_style:fast_style",
        HORSES, None, 240, 100, 96, 1,
    ),
    "gan_compression": Case("gan_compression_horse2zebra.pth", None, HORSES, None, 400, 160, 128, 1),
    "realesr_anime": Case("realesr-animevideov3.pth", None, T91, SET14, 240, 100, 32, 2),
    "imdn": Case("IMDN_x4.pth", "benchmarks.networks.imdn:imdn_x4", T91, SET14, 240, 100, 32, 2),
}  # fmt: skip
HELD_OUT = 10
RATE = 5e-4


@click.command()
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--output-dir", "output", type=click.Path(path_type=Path), required=True)
@click.option("--seeds", default=3, show_default=True)
@click.option("--only", multiple=True, type=click.Choice(list(CASES)), help="These generators.")
@click.option("--budget", "budgets", multiple=True, default=BUDGETS, help="These budgets.")
@click.option("--method", "methods", multiple=True, type=click.Choice(METHODS), default=METHODS)
@click.option("--threads", default=1, show_default=True, help="Of torch.")
@click.option("--record", type=click.Path(path_type=Path), help="File for all cells as JSON.")
def main(
    data: Path,
    output: Path,
    seeds: int,
    only: tuple[str, ...],
    budgets: tuple[str, ...],
    methods: tuple[str, ...],
    threads: int,
    record: Path | None,
) -> None:
    """Fill in the cells that are missing, and print the table of all that are there."""
    import torch

    torch.set_num_threads(threads)
    for seed, name, budget, method in itertools.product(range(seeds), only or CASES, budgets, methods):
        folder = output / name / f"{budget.replace('=', '-').rstrip('%')}" / f"{method}-{seed}"
        if claim(folder):
            row = cell(CASES[name], data, budget, method, seed, folder)
            write_json(folder / DONE, {"generator": name, "budget": budget, "method": method, **row})
    rows = [read_json(path) for path in sorted(output.rglob(DONE))]
    if record is not None:
        version = importlib.metadata.version("torch-pruning")
        write_record(record, rows, CASES, threads, torch_pruning=version)
    print(table(rows))


def cell(case: Case, data: Path, budget: str, method: str, seed: int, folder: Path) -> dict[str, Any]:
    """Prune, train and judge once; the figures."""
    from compressor.data.images import list_images
    from compressor.evaluate import evaluate
    from compressor.generators import load
    from compressor.options import DistilOptions
    from compressor.training.distil import distil

    generator = load(data / "weights" / case.checkpoint, factory=case.factory)
    pictures = list_images(data / case.images)
    if case.held_out:
        unseen = [path for path in list_images(data / case.held_out) if "_LR" in path.stem]
    else:
        pictures, unseen = pictures[:-HELD_OUT], pictures[-HELD_OUT:]
    begun = time.monotonic()
    choose = _coronet if method == "coronet" else _baseline
    small, left = choose(generator, pictures, case, budget, method, seed, folder)
    chosen = time.monotonic()
    options = DistilOptions(steps=left, batch=case.batch, crop=case.crop, learning_rate=RATE, device="cpu")
    trained = distil(small, generator, pictures, folder / "distill", options, seed=seed, resume=True)
    judged = evaluate(
        trained.generator, unseen, folder / "eval", teacher=generator, pictures=2, resume=True
    ).document
    return {
        "seed": seed,
        "share": share(generator, small),
        "psnr": judged["psnr_mean"],
        "ssim": judged["ssim_mean"],
        "psnr_of_images": [round(image["psnr"], 3) for image in judged["images"]],
        "seconds": {"choice": chosen - begun, "training": time.monotonic() - chosen},
    }


def share(generator: Generator, small: Generator) -> float:
    """MACs of the small generator over the original's."""
    from compressor.cost import count

    shape = generator.spec.image.input_shape
    return count(small.module, shape).macs / count(generator.module, shape).macs


def _coronet(
    generator: Generator, pictures: list[Path], case: Case, budget: str, method: str, seed: int, folder: Path
) -> tuple[Generator, int]:
    from compressor.budget import Budget
    from compressor.coronet.prune import prune
    from compressor.options import PruneOptions

    options = PruneOptions(
        steps=case.search, batch=case.batch, crop=case.crop, learning_rate=RATE, device="cpu"
    )
    pruned = prune(
        generator, pictures, Budget.parse(budget), folder / "prune", options, seed=seed, resume=True
    )
    return pruned.generator, case.steps - case.search


def _baseline(
    generator: Generator, pictures: list[Path], case: Case, budget: str, method: str, seed: int, folder: Path
) -> tuple[Generator, int]:
    from benchmarks import baselines, cec
    from compressor.budget import Budget
    from compressor.coronet.targets import joint_cost
    from compressor.graph import trace
    from compressor.training.patches import Patches

    graph = trace(generator.module, generator.spec.image.input_shape)
    cost, target = joint_cost(graph, generator.module, Budget.parse(budget))
    patches = Patches(pictures, generator.spec.image, case.crop, case.batch, seed)
    if method == "uniform":
        keep = baselines.uniform(generator, graph, cost, target)
    elif method == "cec":
        keep = cec.evolve(generator, graph, cost, target, patches, folder, seed)
    else:
        keep = baselines.torch_pruning(method, generator, graph, cost, target, patches)
    return baselines.cut(generator, graph, keep), case.steps


def table(rows: list[dict[str, Any]]) -> str:
    """Medians over seeds (lowest to highest), as Markdown."""
    lines = ["| generator | budget | method | MACs kept | PSNR, dB | SSIM | seeds |", "|---" * 7 + "|"]
    for (name, _, _), group in itertools.groupby(sorted(rows, key=_order), _order):
        same = list(group)
        psnr, ssim = [row["psnr"] for row in same], [row["ssim"] for row in same]
        lines.append(
            f"| {name} | {same[0]['budget']} | {same[0]['method']} | "
            f"{100 * statistics.median(row['share'] for row in same):.2f} % | {_spread(psnr, 2)} | "
            f"{_spread(ssim, 4)} | {len(same)} |"
        )
    return "\n".join(lines)


def _order(row: dict[str, Any]) -> tuple[str, float, int]:
    """By generator, falling budget, method."""
    return row["generator"], -float(row["budget"].strip("macs=%")), METHODS.index(row["method"])


def _spread(values: list[float], digits: int) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


if __name__ == "__main__":
    main()
